"""The losses of a sentence encoder: which ones fit the data, and what each asks of a run."""

from sentence_transformers.sentence_transformer import losses

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.embedding.pairs import NLI, PAIRS, SCORES, TRIPLETS, Form
from shared.command_line import refuse_flags
from shared.errors import InputError

LOSSES = {
    "cosine": losses.CosineSimilarityLoss,
    "cosent": losses.CoSENTLoss,
    "negatives": losses.MultipleNegativesRankingLoss,
}
BY_ROW = ("cosine",)  # a sum over rows; in the others the rows of a batch are compared with each other
MEASURES = {  # the first is that of the best epoch
    SCORES: ("spearman", "pearson"),
    PAIRS: ("mrr_at_10", "accuracy_at_1"),
    TRIPLETS: ("accuracy",),
    NLI: ("accuracy",),
}


def check_arguments(model_args: CheckpointArguments, training_args: FineTuningArguments) -> None:
    """Raise InputError for flags of the neighbouring scripts that have no meaning here."""
    if training_args.world_size > 1 or training_args.deepspeed_plugin is not None:
        raise InputError(
            "a sentence encoder is trained by one process without DeepSpeed, since the rows of a batch are compared "
            "with each other; start it with python, without a launch file"
        )
    no_flags = {"torch_compile": "not for sentence encoders", "label_smoothing_factor": "similarities are no classes"}
    refuse_flags(training_args, no_flags)
    no_flags = {"ignore_mismatched_sizes": "a sentence encoder has no head", "dropout": "not for sentence encoders"}
    refuse_flags(model_args, no_flags)


def choose_loss(loss: str | None, form: Form, training_args: FineTuningArguments) -> str:
    """The loss, by default that of the form. Raises InputError if it does not fit the data or cannot be split."""
    fitting = ("cosine", "cosent") if form.name == SCORES else ("negatives",)
    loss = loss or fitting[0]
    if loss not in fitting:
        raise InputError(f"--loss {loss}: the rows are {form.name}; for these there is {' and '.join(fitting)}")
    if loss not in BY_ROW and training_args.gradient_accumulation_steps > 1:
        raise InputError(
            f"--gradient_accumulation_steps {training_args.gradient_accumulation_steps}: --loss {loss} compares the "
            "rows of a batch, and its parts are smaller batches; raise --per_device_train_batch_size"
        )
    return loss
