"""Fine-tune an encoder to find named entities: to give each word of a sentence a tag such as B-PER, I-PER or O.

    accelerate launch finetuning/run_ner.py --config finetuning/recipes/ner.yaml --model_name_or_path runs/tiny_modern

Reads a dataset of the Hub, a local folder, parquet and JSON files with a list of words and one of tags in each row, or
files of columns as CoNLL has them. Writes a model that plain `AutoModelForTokenClassification.from_pretrained` loads,
its tags in the configuration, results for each type of entity, an error analysis, and with --do_predict
predictions.conll. Reports precision, recall and F1 of entities, in seqeval's default and strict mode.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import evaluate
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, EvalPrediction, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments, choose_best_by
from finetuning.common.checkpoint import load_config, load_model
from finetuning.common.data import LabelledDataArguments, choose_splits, data_identity, load_splits, read_rows
from finetuning.common.dry_run import dry_run
from finetuning.common.error_analysis import write_json_lines
from finetuning.common.length_order import longest_first
from finetuning.common.scores import names_of_scores
from finetuning.common.search import search
from finetuning.common.seeds import run_seeds
from finetuning.ner.conll import is_column_file, read_columns, write_predictions
from finetuning.ner.errors import write_entity_errors
from finetuning.ner.sentences import Sentences, check_types, find_columns, find_types, read_sentences
from finetuning.ner.tags import check_labels, labels_of, types_of
from finetuning.ner.windows import encode, merge_windows
from shared.command_line import run_script
from shared.errors import InputError
from shared.files import write_json
from shared.loss import cross_entropy_loss
from shared.tokenizer import load_tokenizer
from shared.training.arguments import RunArguments
from shared.training.card import ModelCardFacts, readable
from shared.training.record import RunRecord
from shared.training.trainer import ExactTrainer

METRICS = str(Path(__file__).parent / "metrics" / "entities.py")


@dataclass
class DataArguments(LabelledDataArguments):
    text_column_name: str | None = field(
        default=None,
        metadata={"help": "The column of the words. Default: tokens or words; in a file of columns the first (1)."},
    )
    label_column_name: str | None = field(
        default=None,
        metadata={"help": "The column of the tags. Default: ner_tags or tags; in a file of columns the last."},
    )
    tag_scheme: Literal["IOB1", "IOB2", "BIOES"] = field(
        default="IOB2", metadata={"help": "The scheme that the model learns, whatever that of the data."}
    )
    repair_tags: bool = field(
        default=False, metadata={"help": "Read tags of no scheme as the entities that they seem to mean; count them."}
    )
    label_all_tokens: bool = field(
        default=False,
        metadata={"help": "Train on all tokens of a word. Default: on its first, which decides the word."},
    )
    max_seq_length: int = field(default=512, metadata={"help": "Tokens of a window; longer sentences get several."})
    stride: int | None = field(
        default=None, metadata={"help": "Tokens that two windows share at most. Default: a quarter of a window."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_seq_length < 8:
            raise InputError(f"--max_seq_length {self.max_seq_length}: must be at least 8")
        if self.stride is not None and not 0 <= self.stride <= self.max_seq_length // 2:
            raise InputError(f"--stride {self.stride}: must be from 0 to half of --max_seq_length")


def load_data(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> tuple[dict[str, Sentences], Any, Any, dict[str, str]]:
    """The sentences of the splits that are asked for, with tags in the model's scheme, the configuration with the
    model's tags, the tokenizer, and the hashes of what was read."""
    names = (data_args.text_column_name, data_args.label_column_name)
    splits, hashes = load_splits(
        data_args, read_file=lambda path: read_columns(path, *names) if is_column_file(path) else read_rows(path)
    )
    chosen = choose_splits(splits, data_args, training_args)
    columns = {name: find_columns(split, *names, needs_tags=name != "test") for name, split in chosen.items()}
    sentences = {name: read_sentences(split, *columns[name], data_args.repair_tags) for name, split in chosen.items()}
    labels, fields = None, {}
    if training_args.do_train:  # the types of the whole split, though --max_train_samples may take a part of it
        types = find_types(splits["train"], columns["train"][1])
        check_types(sentences, chosen, types)
        labels, fields = labels_of(types, data_args.tag_scheme), {"tag_scheme": data_args.tag_scheme}
    config = load_config(model_args, AutoModelForTokenClassification, labels, **fields)
    config.tag_scheme = check_labels(list(config.label2id), getattr(config, "tag_scheme", None))
    check_types(sentences, chosen, types_of(list(config.label2id)))
    sentences = {name: some.in_scheme(config.tag_scheme) for name, some in sentences.items()}
    tokenizer = load_tokenizer(model_args.tokenizer_name or model_args.model_name_or_path)
    tokenizer.padding_side = "right"  # where a word's token is, is counted from the left
    return sentences, config, tokenizer, hashes


def keep_classes(logits: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce logits to what evaluation keeps: the class of each token, (batch, tokens) int32, and its probability."""
    probability, label = logits.float().softmax(-1).max(-1)
    return label.int(), probability


def read_tags(classes: np.ndarray, windows: Dataset, sentences: Sentences, config: Any) -> list[list[str]]:
    """The predicted tags of each sentence from the classes of the windows' tokens, (windows, tokens)."""
    return [[config.id2label[label] for label in row] for row in merge_windows(classes, windows, sentences.words)]


def score(
    metric: Any, found: list[list[str]], sentences: Sentences, config: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores of predicted tags, and those of each type. `outside_accuracy` is that of saying O to every word."""
    scores = metric.compute(predictions=found, references=sentences.tags, scheme=config.tag_scheme)
    types = scores.pop("types")
    scores["outside_accuracy"] = float(np.mean([tag == "O" for tags in sentences.tags for tag in tags]))
    return scores | {f"f1_{kind}": of_type["f1"] for kind, of_type in types.items()}, types


def main(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> dict[str, Any]:
    if training_args.seeds:
        return run_seeds(main, model_args, data_args, training_args)

    # 1. Start the run.
    record = RunRecord(training_args, model_args, data_args)
    if record.finished and not training_args.dry_run:
        record.print(f"This run finished on {record.finished['ended']}. To train again, name a new --output_dir.")
        return record.finished["results"]
    folder = Path(training_args.output_dir)

    # 2. Data, labels and tokenizer.
    with training_args.main_process_first(desc="preparing data"):
        sentences, config, tokenizer, hashes = load_data(model_args, data_args, training_args)
    record.use_inputs(hashes, data_identity(hashes, tokenizer))
    metric = evaluate.load(METRICS, keep_in_memory=True)  # or it writes into the user's cache
    choose_best_by(training_args, "f1")

    def windows_of(some: Sentences, is_training: bool = False) -> Dataset:
        sizes, all_tokens = (data_args.max_seq_length, data_args.stride), is_training and data_args.label_all_tokens
        windows = encode(tokenizer, some.words, some.tags, config.label2id, *sizes, all_tokens)
        return windows if is_training else longest_first(windows)[0]

    windows = {name: windows_of(some, name == "train") for name, some in sentences.items()}

    # 3. Model and Trainer.
    def load() -> Any:
        return load_model(model_args, AutoModelForTokenClassification, config, tokenizer, data_args.max_seq_length)

    def build_trainer(args: RunArguments, train: Any = None, held_out: Sentences | None = None) -> ExactTrainer:
        """On the training data, or on two parts of it: then the model is made anew for each trial of the search."""
        eval_dataset = windows_of(held_out) if held_out else windows.get("validation")

        def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
            some = held_out or sentences["validation"]
            return score(metric, read_tags(prediction.predictions[0], eval_dataset, some, config), some, config)[0]

        set_seed(args.seed)
        return ExactTrainer(
            model=None if held_out else load(),
            model_init=load if held_out else None,
            args=args,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            train_dataset=windows_of(train, True) if train else windows.get("train"),
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            compute_loss_func=cross_entropy_loss,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=keep_classes,
            callbacks=args.callbacks,
            identity=record.identity,
        )

    if training_args.search_trials:
        parts = sentences["train"].divide(training_args.search_fraction, training_args.search_seed)
        found = search(lambda args: build_trainer(args, *parts), training_args, "eval_f1")
        record.print(f"The search found {found}.")
    if training_args.dry_run:
        plan = dry_run(build_trainer, training_args, windows["train"])
        record.print("\n".join(f"{name}: {readable(value)}" for name, value in plan.items()))
        return plan
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics: dict[str, Any] = {f"{name}_repaired": some.repaired for name, some in sentences.items() if some.repaired}
    if training_args.do_train:
        metrics |= trainer.train(resume_from_checkpoint=record.checkpoint).metrics
        trainer.save_model()
        trainer.save_metrics("train", metrics)
        trainer.save_state()

    # 5. Evaluate, predict and report.
    trainer.compute_metrics = None  # scored here, with more to say
    for name, prefix in (("validation", "eval"), ("test", "test")):
        if name not in windows:
            continue
        some = sentences[name]
        output = trainer.predict(windows[name], metric_key_prefix=prefix)
        tags = read_tags(output.predictions[0], windows[name], some, config)
        confidence = merge_windows(output.predictions[1], windows[name], some.words)
        found, types = score(metric, tags, some, config) if some.tags else ({}, {})
        if record.is_writer and name == "test":
            write_predictions(folder / "predictions.conll", some.words, tags, confidence, config.tag_scheme)
        elif record.is_writer:
            write_entity_errors(folder / "errors", some, tags, confidence)
            pairs = enumerate(zip(some.tags, tags, strict=True))
            rows = ({"index": i, "gold": gold, "prediction": of_row} for i, (gold, of_row) in pairs)
            write_json_lines(folder / "errors" / "predictions.jsonl", rows)
        if record.is_writer and types:
            write_json(folder / f"{prefix}_report.json", types)
        found = output.metrics | {f"{prefix}_{key}": value for key, value in found.items()}
        trainer.save_metrics(prefix, found)
        metrics |= found
    shown = names_of_scores(metrics)
    if training_args.do_train:
        source = data_args.dataset_name or Path(data_args.train_file).name
        title = f"A {config.model_type} encoder fine-tuned on {source}."
        card = ModelCardFacts(title, "token-classification", source, shown, model_args.model_name_or_path, "loss")
        record.finish(trainer, metrics, card)
    record.print("\n".join(f"{key}: {readable(metrics[key])}" for key in shown))
    return metrics


if __name__ == "__main__":
    run_script(main, CheckpointArguments, DataArguments, FineTuningArguments)
