"""Fine-tune an encoder to give sentences vectors, whose cosine says how alike two sentences are.

    python finetuning/run_embedding.py --config finetuning/recipes/stsb_embedding.yaml --model_name_or_path runs/tiny

Reads pairs with scores, pairs that mean the same, triplets, or NLI: a dataset of the Hub, a local folder, or parquet,
CSV, TSV and JSON files. Writes a model that `SentenceTransformer` loads, and whose encoder plain
`AutoModel.from_pretrained` loads, results, and with --do_predict predictions.jsonl, the cosine of each pair. Reports,
before training too, the correlation of cosine and score (scores), how often the positive is the nearer text (triplets,
NLI), or how high the partner of a text ranks among all (pairs).
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.common.checkpoint import tokenizer_of
from finetuning.common.data import LabelledDataArguments, Split, choose_splits, load_splits, split_off
from finetuning.common.error_analysis import write_error_analysis, write_json_lines
from finetuning.common.held_out import hold_out
from finetuning.common.run import dry_run, finish, record_data, search_settings, start, train_and_save
from finetuning.embedding.encoder import LIBRARY, Collator, EmbeddingTrainer, Evaluator, load_encoder, similarities
from finetuning.embedding.losses import BY_ROW, LOSSES, MEASURES, check_arguments, choose_loss
from finetuning.embedding.pairs import SCORES, Form, as_columns, find_form, has_scores, read_texts, with_lengths
from shared.command_line import run_script
from shared.errors import InputError
from shared.training.arguments import choose_best_by

USAGE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/or/id/of/this/model")
vectors = model.encode(["A man plays the guitar.", "Somebody makes music."])
print(model.similarity(vectors[0], vectors[1]))  # the cosine"""


MOST_TOKENS = 512  # of a text, where rows are sorted by length and the model has a limit of its own


@dataclass
class DataArguments(LabelledDataArguments):
    data_format: Literal["scores", "pairs", "triplets", "nli"] | None = field(
        default=None, metadata={"help": "What the rows are. Default: as their columns say."}
    )
    text_column: str | None = field(
        default=None, metadata={"help": "The column of the first text. Default: sentence1, anchor, premise or query."}
    )
    text_pair_column: str | None = field(
        default=None,
        metadata={"help": "The column of the second. Default: sentence2, positive, hypothesis or answer."},
    )
    negative_column: str | None = field(
        default=None, metadata={"help": "The column of the third text of a triplet. Default: negative."}
    )
    label_column: str | None = field(
        default=None, metadata={"help": "The column of the score or of NLI's label. Default: label or score."}
    )
    score_scale: list[float] = field(
        default_factory=list,
        metadata={"help": "The lowest and the highest score, which become cosines of 0 and 1. Default: as found."},
    )
    loss: Literal["cosine", "cosent", "negatives"] | None = field(
        default=None,
        metadata={
            "help": "CosineSimilarityLoss, CoSENTLoss or MultipleNegativesRankingLoss. Default: cosine for scores, "
            "else negatives."
        },
    )
    max_seq_length: int | None = field(
        default=None, metadata={"help": "Tokens of a text; longer ones are cut. Default: as the model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        scale = self.score_scale
        if scale and (len(scale) != 2 or not scale[0] < scale[1]):
            raise InputError(f"--score_scale {' '.join(map(str, scale))}: give the lowest and the highest score")


def load_data(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> tuple[dict[str, Split], dict[str, Any], Form, Any, dict[str, str], str]:
    """The splits that are asked for, as they are and as columns for loss and evaluator, their form, the tokenizer, the
    hashes of what was read, and what it was made into, for readers. Raises InputError.

    A test split may lack labels: then it has no columns, and its first two texts are compared.
    """
    splits, hashes = load_splits(data_args)
    chosen = (data_args.text_column, data_args.text_pair_column, data_args.negative_column, data_args.label_column)
    if data_args.validation_fraction:
        texts = find_form(splits["train"], data_args.data_format, chosen).texts[:1] if "train" in splits else ()
        splits = hold_out(splits, data_args, texts)
    splits = choose_splits(splits, data_args, training_args)
    form = find_form(next(iter(splits.values())), data_args.data_format, chosen)
    data_args.loss = choose_loss(data_args.loss, form, training_args)
    columns, said = {}, []
    for name, split in splits.items():
        if name.startswith("test") and not (form.name == SCORES and has_scores(split, form.label)):
            read_texts(split, form.texts[:2])
        else:
            columns[name], shown = as_columns(split, form, data_args.score_scale)
            said.append(f"{name}: {shown}.")
    if form.name == SCORES and columns:
        first = next(iter(columns.values()))["labels"]
        low, high = data_args.score_scale or (min(first), max(first))
        said.append(f"Scores of {low:g} and {high:g} become cosines of 0 and 1.")
        for found in columns.values():
            found["labels"] = [(score - low) / (high - low) for score in found["labels"]]
    tokenizer = tokenizer_of(model_args)
    most = data_args.max_seq_length or MOST_TOKENS
    rows = {name: with_lengths(found, tokenizer, most) for name, found in columns.items()}
    return splits, rows, form, tokenizer, hashes, " ".join(said)


def evaluate(trainer: EmbeddingTrainer, name: str, split: Split, rows: Any, form: Form) -> dict[str, float]:
    """The metrics of a split, if it has labels. Writes the cosines of the first two texts of each row: of a test split
    as JSON lines in the order of the rows, of scored pairs as an error analysis."""
    model, batch_size = trainer.model, trainer.args.per_device_eval_batch_size
    folder, prefix = Path(trainer.args.output_dir), name.replace("validation", "eval")
    scores = {} if rows is None else Evaluator(form.name, rows, batch_size)(model)
    if name.startswith("test") or form.name == SCORES:
        found = similarities(model, *(split.rows[column][:] for column in form.texts[:2]), batch_size)
    if name.startswith("test"):
        path = folder / f"{name.replace('test', 'predictions')}.jsonl"
        write_json_lines(path, ({"index": i, "similarity": value} for i, value in enumerate(found.tolist())))
    elif form.name == SCORES:
        facts = (split.rows, form.texts, rows["length"][:], rows["labels"][:], found)
        scores |= write_error_analysis(folder / prefix.replace("eval", "errors"), "regression", *facts)
    return {f"{prefix}_{key}": value for key, value in scores.items()}


def main(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> dict[str, Any]:
    # 1. Start the run.
    check_arguments(model_args, training_args)
    record, results = start(main, model_args, data_args, training_args)
    if record is None:
        return results

    # 2. Data.
    splits, rows, form, tokenizer, hashes, said = load_data(model_args, data_args, training_args)
    if record_data(record, hashes, tokenizer, library=LIBRARY):
        return record.finished["results"]
    record.print(said)
    choose_best_by(training_args, MEASURES[form.name], MEASURES[form.name][0])

    # 3. Model and Trainer.
    def load() -> Any:
        return load_encoder(model_args, data_args.max_seq_length, training_args.device)

    def build_trainer(args: FineTuningArguments, *parts: Any) -> EmbeddingTrainer:
        """On the training data, or on two parts of it: then the model is made anew for each trial of the search."""
        train, held_out = parts or (rows.get("train"), rows.get("validation"))
        set_seed(args.seed)
        model = load()
        return EmbeddingTrainer(
            model=None if parts else model,
            model_init=load if parts else None,
            args=args,
            data_collator=Collator(model, form),
            train_dataset=train,
            evaluator=held_out and Evaluator(form.name, held_out, args.per_device_eval_batch_size),
            loss=LOSSES[data_args.loss],
            callbacks=args.callbacks,
            identity=record.identity,
        )

    if training_args.dry_run:
        return dry_run(build_trainer, rows["train"], record, can_be_split=data_args.loss in BY_ROW)
    if training_args.search_trials:
        parts = split_off(rows["train"], training_args.search_fraction, training_args.search_seed)
        search_settings(build_trainer, parts, f"eval_{MEASURES[form.name][0]}", record)
    trainer = build_trainer(training_args)

    # 4. Train.
    before = trainer.evaluator(trainer.model) if trainer.evaluator and training_args.do_train else {}
    metrics = train_and_save(trainer, record)

    # 5. Evaluate, predict and report.
    for name in [name for name in splits if name != "train"]:
        found = evaluate(trainer, name, splits[name], rows.get(name), form)
        found |= {f"eval_before_{key}": value for key, value in before.items() if name == "validation"}
        trainer.save_metrics(name.replace("validation", "eval"), found)
        metrics |= found
    facts = {"usage": USAGE, "library": "sentence-transformers"}
    what = f"whose vectors say how alike texts are. {said}"
    return finish(trainer, record, metrics, "sentence-similarity", data_args.source, what, **facts)


if __name__ == "__main__":
    run_script(main, CheckpointArguments, DataArguments, FineTuningArguments)
