"""Pretrain a BERT-style encoder by masked-language modelling, from scratch or from a checkpoint.

    accelerate launch pretraining/run_mlm.py --config pretraining/recipes/tiny.yaml --packed_dataset data/packed

Reads packed blocks (data_prep/pack_dataset.py) or text, which it packs first and keeps in a cache. Writes a model that
plain `AutoModelForMaskedLM.from_pretrained` loads, its tokenizer, recipe.yaml, manifest.json, results, curve and card.
Reports loss, perplexity, masked accuracy and bits per byte, always at the same 15% of held-out positions.
With no flag it runs recipes/demo.yaml on the documentation strings of the installed libraries.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EvalPrediction, pipeline, set_seed

from pretraining.attention import count_documents, keep_documents_apart
from pretraining.chunked_loss import LossArguments, make_loss
from pretraining.masking import EVALUATION, MaskedBlocks, MaskingArguments, make_masker, whole_batch
from pretraining.text.blocks import open_or_pack
from pretraining.text.mixture import Mixture, MixtureArguments, PackedSets
from pretraining.update.start import Update, UpdateArguments
from pretraining.vocabulary.rows import build_model
from shared.command_line import run_script
from shared.errors import InputError
from shared.loss import IGNORED, project_masked_only, sum_over_targets
from shared.model_config import ModelArguments
from shared.training.arguments import RunArguments, choose_best_by
from shared.training.budget import describe_training, plan_steps
from shared.training.card import ModelCardFacts
from shared.training.data_order import lengths_of
from shared.training.record import RunRecord
from shared.training.trainer import ExactTrainer

DEMO_RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"
RESULTS = {
    "eval_loss": "loss (nats per masked token)",
    "eval_perplexity": "perplexity",
    "eval_masked_accuracy": "masked accuracy",
    "eval_most_frequent_token_accuracy": "masked accuracy of always guessing the most frequent token",
    "eval_bits_per_byte": "bits per byte (held-out part of the training text)",
    "train_tokens": "training tokens",
    "train_tokens_per_second": "training tokens per second",
    "train_share_data": "share of the time of a step: waiting for data",
    "train_share_forward": "share: forward pass",
    "train_share_backward": "share: backward pass",
    "train_share_optimizer": "share: clipping and optimizer",
    "train_share_other": "share: the rest (starting data workers, logging)",
    "train_model_flops_utilization": "model FLOPs utilisation, of what one matrix product reaches here",
    "train_peak_memory_gib": "peak memory of a process, GiB",
}


@dataclass
class DataArguments(UpdateArguments, LossArguments, MaskingArguments, MixtureArguments):
    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "Text instead: parquet, JSON lines or .txt (blank lines separate documents), or folders."},
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Text of the Hub, by id; or 'docstrings', those of the installed libraries."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    max_seq_length: int | None = field(
        default=None, metadata={"help": "Tokens in a block. Default: 128, or as packed."}
    )
    isolate_documents: bool = field(
        default=False, metadata={"help": "Let no token attend to another document of its block."}
    )
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents held out by hash, when text is packed here."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N blocks only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first N blocks only."})
    mask_examples: list[str] = field(
        default_factory=list, metadata={"help": "Sentences with one <mask> each, filled in and printed at the end."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        MixtureArguments.__post_init__(self)
        for sentence in self.mask_examples:
            if sentence.count("<mask>") != 1:
                raise InputError(f"--mask_examples {sentence!r}: must hold <mask> once")


def make_datasets(
    tokenizer: Any, packed: PackedSets, data_args: DataArguments, args: RunArguments, say: Callable[[str], None]
) -> tuple[MaskedBlocks, MaskedBlocks]:
    """Blocks to train on, with fresh masks in every epoch, and to evaluate, under the same masks always."""
    datasets, data_seed = [], args.seed if args.data_seed is None else args.data_seed
    for rows, flag, masking, mask_seed in (
        (packed.training_rows(data_args.max_train_samples, data_seed), "--max_train_samples", data_args, args.seed),
        (packed.validation_rows(data_args.max_eval_samples), "--max_eval_samples", EVALUATION, 0),
    ):
        edges = (tokenizer.pad_token_id, tokenizer.sep_token_id if data_args.isolate_documents else None)
        dataset = MaskedBlocks(rows, make_masker(tokenizer, masking, mask_seed), *edges)
        dataset.check_share(flag, say)
        datasets.append(dataset)
    if isinstance(datasets[0].blocks, Mixture) and args.train_sampling_strategy == "random":
        args.train_sampling_strategy = "sequential"  # the mixture's own order is a random one
    lengths_of(datasets[0], args)  # there are none: refuses group_by_length before a model is there
    return datasets[0], datasets[1]


def compute_metrics(prediction: EvalPrediction, tokens_per_byte: float) -> dict[str, float]:
    """Metrics from the sums of `sum_over_targets`. Bits per byte are those of the original text: loss per token times
    tokens per byte, so that models with different tokenizers can be compared."""
    targets = prediction.label_ids[prediction.label_ids != IGNORED]
    loss, accuracy = (prediction.predictions.sum(axis=0, dtype=np.float64) / len(targets)).tolist()
    return {
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "masked_accuracy": accuracy,
        "most_frequent_token_accuracy": np.bincount(targets).max().item() / len(targets),
        "bits_per_byte": loss / math.log(2) * tokens_per_byte,
    }


def describe(
    config: Any, model_args: ModelArguments, data_args: DataArguments, more: dict[str, str]
) -> ModelCardFacts:
    """Title, task, source of the text and results, for the model card."""
    title = f"A {config.model_type} encoder pretrained by masked-language modelling."
    files = data_args.packed_dataset or data_args.train_file[:1]
    source = data_args.dataset_name or ", ".join(Path(file).name for file in files)
    return ModelCardFacts(title, "fill-mask", source, RESULTS | more, model_args.model_name_or_path)


def fill_masks(model_path: str, sentences: list[str]) -> None:
    """Fill in the sentences with the saved model, loaded as anybody would load it, and print the three best words."""
    fill = pipeline("fill-mask", model=model_path, device="cpu")
    for sentence in sentences:
        best = fill(sentence.replace("<mask>", fill.tokenizer.mask_token), top_k=3)
        print(f"  {sentence}  ->  " + ", ".join(f"{word['token_str'].strip()} {word['score']:.2f}" for word in best))


def main(model_args: ModelArguments, data_args: DataArguments, training_args: RunArguments) -> dict[str, Any]:
    # 1. Start the run.
    record = RunRecord(training_args, model_args, data_args)
    training_args.remove_unused_columns = False  # the batches carry more than the model's signature names
    update = Update(model_args, data_args, training_args)

    # 2. Tokenizer and data.
    with training_args.main_process_first(desc="preparing data"):
        tokenizer, packed = open_or_pack(model_args, data_args, quiet=not record.is_writer)
    choose_best_by(training_args, [key[5:] for key in RESULTS | packed.results if key.startswith("eval_")])
    if record.use_inputs(packed.manifest, packed.identity | update.identity):
        return record.finished["results"]
    length, per_byte = packed.manifest["max_seq_length"], packed.tokens_per_byte
    train_dataset, eval_dataset = make_datasets(tokenizer, packed, data_args, training_args, record.note)
    most_documents = count_documents(model_args, data_args, training_args, train_dataset, eval_dataset)

    # 3. Model and Trainer.
    def build_trainer(args: RunArguments) -> ExactTrainer:
        set_seed(args.seed)
        model = build_model(model_args, tokenizer, length, record.note, train_dataset.blocks)
        project_masked_only(model, record.note)
        if data_args.isolate_documents:
            keep_documents_apart(model, most_documents)
        return ExactTrainer(
            model=model,
            args=args,
            data_collator=whole_batch,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            compute_loss_func=make_loss(model, data_args.loss_chunk, args),
            compute_metrics=lambda found: compute_metrics(found, per_byte) | packed.bits_per_byte(found, eval_dataset),
            preprocess_logits_for_metrics=sum_over_targets,
            callbacks=update.callbacks(model, tokenizer),
            identity=record.identity,
        )

    plan = plan_steps(build_trainer, training_args, len(train_dataset), length, record.checkpoint)
    if training_args.dry_run:
        record.show(plan)
        return plan
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics = trainer.train(resume_from_checkpoint=record.checkpoint).metrics | packed.shares(train_dataset, trainer)
    update.finish(trainer, record.note)
    trainer.save_model()
    metrics |= describe_training(trainer, length, train_dataset.masker.most_targets(length) / length)
    trainer.save_metrics("train", metrics)

    # 5. Evaluate and report.
    evaluation = trainer.evaluate()
    trainer.save_metrics("eval", evaluation)
    trainer.save_state()
    metrics |= evaluation
    record.finish(trainer, metrics, describe(trainer.model.config, model_args, data_args, packed.results))
    record.show({name: metrics[key] for key, name in (RESULTS | packed.results).items() if key in metrics})
    if record.is_writer and data_args.mask_examples:
        fill_masks(training_args.output_dir, data_args.mask_examples)
    return metrics


if __name__ == "__main__":
    run_script(main, ModelArguments, DataArguments, RunArguments, default_recipe=DEMO_RECIPE)
