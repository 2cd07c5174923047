"""A sentence encoder: its model, evaluators and Trainer, all of them sentence-transformers', made exact."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.functional import normalize
from transformers import AutoModel, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from finetuning.common.arguments import CheckpointArguments
from finetuning.embedding.pairs import NLI, PAIRS, SCORES, TRIPLETS, Form
from shared.command_line import report
from shared.errors import InputError, one_line
from shared.model_config import check_finite, check_fits, check_vocabulary, check_weights, plain_outputs
from shared.tokenizer import load_tokenizer
from shared.training.checkpoints import verify
from shared.training.trainer import ExactTrainer

try:
    import sentence_transformers
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.sentence_transformer import evaluation
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
except ModuleNotFoundError as error:  # a script that imports this ends here, before it works
    sys.exit(report(InputError(f"{error.name} is not installed; run pip install -r requirements-embeddings.txt")))

LIBRARY = f"sentence-transformers {sentence_transformers.__version__}"


def load_encoder(args: CheckpointArguments, max_seq_length: int | None, device: Any) -> Any:
    """A SentenceTransformer in fp32: as it was saved, or mean pooling over a plain encoder. Raises InputError."""
    name = args.model_name_or_path
    try:
        settings = {"dtype": "float32", "use_safetensors": True, "attn_implementation": args.attn_implementation}
        model = SentenceTransformer(name, device=str(device), model_kwargs=settings)
    except (ImportError, OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(f"--model_name_or_path {name}: {one_line(error)}") from error
    config = model.config
    if config is None:
        raise InputError(f"--model_name_or_path {name}: begins with {type(model[0]).__name__}, not with a transformer")
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or config.is_encoder_decoder:
        way_out = "name one that was trained on masked tokens, as run_mlm.py does"
        raise InputError(f"--model_name_or_path {name}: {config.model_type} is no encoder; {way_out}")
    plain_outputs(config)
    if not args.random_weights:  # the library does not say which weights are missing
        load = {"config": config, "use_safetensors": True, "output_loading_info": True}
        check_weights(*AutoModel.from_pretrained(model[0].model.name_or_path, **load), str(name))
        check_finite(model, f"--model_name_or_path {name}")
    if args.tokenizer_name:
        model.tokenizer = load_tokenizer(args.tokenizer_name)
    if args.random_weights:
        model[0].model = AutoModel.from_config(config, attn_implementation=args.attn_implementation).to(device)
    else:
        check_vocabulary(config, model.tokenizer, str(name))
    model.max_seq_length = max_seq_length or model.max_seq_length
    check_fits(config, model.tokenizer, model.max_seq_length)
    return model


def similarities(model: Any, first: Sequence[str], second: Sequence[str], batch_size: int) -> np.ndarray:
    """The cosine of each text with its partner, (rows,) float32."""
    settings = {"batch_size": batch_size, "convert_to_tensor": True}
    one, two = (normalize(model.encode(list(texts), **settings), dim=1) for texts in (first, second))
    return (one * two).sum(1).float().cpu().numpy()


class Evaluator(BaseEvaluator):
    """The library's evaluator for a form of data, with names of metrics that are the field's.

    Of scores: Pearson's and Spearman's correlation with the cosine. Of triplets: how often the positive is nearer than
    the negative. Of pairs: how well each first text finds its second among all second texts.
    """

    def __init__(self, form: str, rows: Any, batch_size: int) -> None:
        super().__init__()
        self.rows = len(rows)
        columns = [rows[name][:] for name in rows.column_names if name.startswith("text_")]
        settings = {"batch_size": batch_size, "write_csv": False}
        if form == SCORES:
            kinds = {"similarity_fn_names": ["cosine"], **settings}
            self.inner = evaluation.EmbeddingSimilarityEvaluator(*columns, rows["labels"][:], **kinds)
            self.names = {"pearson_cosine": "pearson", "spearman_cosine": "spearman"}
        elif form == PAIRS:
            self.inner = evaluation.InformationRetrievalEvaluator(*_retrieval(*columns), **settings)
            self.names = {"cosine_accuracy@1": "accuracy_at_1", "cosine_mrr@10": "mrr_at_10"}
        else:
            self.inner = evaluation.TripletEvaluator(*columns, similarity_fn_names=["cosine"], **settings)
            self.names = {"cosine_accuracy": "accuracy"}

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found = self.inner(model)
        # The correlation of cosines that are all the same is nan; as in finetuning/metrics/glue_tasks.py, it is 0.
        return {ours: float(np.nan_to_num(found[theirs])) for theirs, ours in self.names.items()}


def _retrieval(first: Sequence[str], second: Sequence[str]) -> tuple[dict[str, str], dict[str, str], Any]:
    """Each different text once, and which second texts belong to a first one."""
    queries, corpus = ({text: str(i) for i, text in enumerate(dict.fromkeys(texts))} for texts in (first, second))
    belonging: dict[str, set[str]] = {}
    for one, two in zip(first, second, strict=True):
        belonging.setdefault(queries[one], set()).add(corpus[two])
    return {i: text for text, i in queries.items()}, {i: text for text, i in corpus.items()}, belonging


class EmbeddingTrainer(ExactTrainer, SentenceTransformerTrainer):
    """sentence-transformers' Trainer with ExactTrainer's order of samples, checkpoints and resume.

    `train_dataset` has the columns that `pairs.as_columns` makes. `args` are Trainer's own: the library's
    additions (batch samplers, prompts, routers) have no meaning here. The loss of a step does not depend on how the
    step is split if it is a sum over rows (`losses.BY_ROW`); Trainer's mean of means would.
    """

    training_args_class = TrainingArguments
    loss_is_scaled_for_ga = True

    def __init__(self, args: Any, **kwargs: Any) -> None:
        args.learning_rate_mapping = {}  # of the library's additions the only one that is read
        super().__init__(args=args, **kwargs)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none: RunRecord writes the card."""

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset  # the collator takes what it needs

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs | {"label": inputs["labels"]})
        return loss * len(inputs["labels"]) / num_items_in_batch

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        with suppress(OSError):  # the library makes this folder for files that our evaluator does not write
            Path(self.args.output_dir, "eval").rmdir()
        return output._replace(num_samples=self.evaluator.rows)  # for the rate; the library counts none

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)  # the library would go on with the last model if this failed
        verify(best)
        self._load_from_checkpoint(str(best))


class Collator:
    """What turns rows into a batch: the library's collator for the texts, which it puts behind the model's default
    prompt, and the labels, (rows,) float32. A class, since a DataLoader pickles it for workers that are spawned."""

    def __init__(self, model: Any, form: Form) -> None:
        self.names = [f"text_{i}" for i in range(3 if form.name in (TRIPLETS, NLI) else 2)]
        prompts = model.prompts.get(model.default_prompt_name)
        self.tokenize = SentenceTransformerDataCollator(model.preprocess, prompts=prompts)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.tokenize([{name: row[name] for name in self.names} for row in rows])
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.float32)}
