"""Fine-tune an encoder to tag words: named entities (B-PER, I-PER, O), chunks, or parts of speech.

    accelerate launch finetuning/run_ner.py --config finetuning/recipes/ner.yaml

Reads a dataset of the Hub, a local folder, parquet and JSON files with a list of words and one of tags in each row,
files of columns as CoNLL has them, or CSV with a word in each row. Writes a model that plain
`AutoModelForTokenClassification.from_pretrained` loads, its tags in the configuration, results for each type of
entity, an error analysis, and with --do_predict predictions.conll. Reports precision, recall and F1 of entities, in
seqeval's default and strict mode; of parts of speech (--tag_scheme POS) accuracy and F1.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Dataset
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, EvalPrediction, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.common.checkpoint import SINGLE, load_config, load_model, tokenizer_of
from finetuning.common.classes import choose_loss
from finetuning.common.data import choose_splits, load_splits
from finetuning.common.held_out import hold_out
from finetuning.common.run import dry_run, finish, record_data, search_settings, start, train_and_save
from finetuning.ner.report import write_report
from finetuning.ner.scores import main_metric, score
from finetuning.ner.sentences import (
    Sentences,
    TagArguments,
    check_types,
    count_repaired,
    find_columns,
    find_types,
    read_file,
    read_sentences,
)
from finetuning.ner.tags import as_tag, check_labels, labels_of, model_scheme, types_of
from finetuning.ner.windows import encode, keep_classes, merge_windows
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.files import write_json
from shared.training.arguments import choose_best_by
from shared.training.trainer import ExactTrainer

METRICS = str(Path(__file__).parent / "metrics" / "entities.py")


@dataclass
class DataArguments(TagArguments):
    label_all_tokens: bool = field(
        default=False, metadata={"help": "Train on all tokens of a word. Default: on its first, which decides."}
    )
    max_seq_length: int = field(default=512, metadata={"help": "Tokens of a window; longer sentences get several."})
    stride: int | None = field(default=None, metadata={"help": "Tokens that two windows share. Default: a quarter."})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, max_seq_length=">= 8")
        if self.stride is not None and not 0 <= self.stride <= self.max_seq_length // 2:
            raise InputError(f"--stride {self.stride}: must be from 0 to half of --max_seq_length")


def load_data(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> tuple[dict[str, Sentences], Any, Any, dict[str, str]]:
    """The sentences of the splits that are asked for, with tags in the model's scheme, the configuration with the
    model's tags, the tokenizer, and the hashes of what was read."""
    names, scheme, labels = (data_args.text_column, data_args.label_column), data_args.tag_scheme, None
    if not training_args.do_train:  # the model has its own
        config = load_config(model_args, AutoModelForTokenClassification, None, data_args.class_names)
        scheme = model_scheme(config, scheme)
    more = (names, data_args.sentence_column, scheme)
    splits, hashes = load_splits(data_args, read_file=lambda *file: read_file(*file, *more))
    if data_args.validation_fraction:
        found = find_columns(splits["train"], *names, needs_tags=True) if "train" in splits else ()
        splits = hold_out(splits, data_args, found[:1], lambda split: split.rows[found[1]][:])
    chosen = choose_splits(splits, data_args, training_args)
    columns = {name: find_columns(split, *names, needs_tags=name != "test") for name, split in chosen.items()}
    read = partial(read_sentences, repair=data_args.repair_tags, scheme=scheme)
    sentences = {name: read(split, *columns[name]) for name, split in chosen.items()}
    if training_args.do_train:  # the types of the whole split, though --max_train_samples may take a part of it
        types = find_types(splits["train"], columns["train"][1], scheme)
        check_types(sentences, chosen, types, scheme)
        labels = labels_of(types, scheme)
    config = load_config(model_args, AutoModelForTokenClassification, labels, data_args.class_names)
    config.tag_scheme = check_labels(list(config.label2id), scheme)
    check_types(sentences, chosen, types_of([as_tag(label, scheme) for label in config.label2id]))
    sentences = {name: some.in_scheme(config.tag_scheme) for name, some in sentences.items()}
    tokenizer = tokenizer_of(model_args)
    tokenizer.padding_side = "right"  # where a word's token is, is counted from the left
    return sentences, config, tokenizer, hashes


def cut_windows(some: Sentences, tokenizer: Any, config: Any, data_args: DataArguments, for_training: bool) -> Dataset:
    """Sentences as windows of tokens with labels."""
    sizes = (data_args.max_seq_length, data_args.stride)
    all_tokens = for_training and data_args.label_all_tokens
    ids = {as_tag(label, config.tag_scheme): number for label, number in config.label2id.items()}
    return encode(tokenizer, some.words, some.tags, ids, *sizes, for_training, all_tokens)


def read_tags(classes: np.ndarray, windows: Dataset, sentences: Sentences, config: Any) -> list[list[str]]:
    """The predicted tags of each sentence from the classes of the windows' tokens, (windows, tokens)."""
    tags = {number: as_tag(label, config.tag_scheme) for number, label in config.id2label.items()}
    return [[tags[label] for label in row] for row in merge_windows(classes, windows, sentences.words)]


def measures_of(metric: Any, some: Sentences | None, config: Any) -> tuple[list[str] | None, str]:
    """What `score` will measure, known before a model is, and the measure that chooses the best epoch."""
    names = ["loss", *score(metric, some.tags, some, config.tag_scheme)[0]] if some and some.tags else None
    return names, main_metric(config.tag_scheme)


def compute_metrics(
    prediction: EvalPrediction, windows: Dataset, sentences: Sentences, metric: Any, config: Any
) -> dict[str, float]:
    """The scores of windows and sentences, for Trainer."""
    found = read_tags(prediction.predictions[0], windows, sentences, config)
    return score(metric, found, sentences, config.tag_scheme)[0]


def predict_split(
    trainer: Any, record: Any, name: str, some: Sentences, windows: Dataset, metric: Any, config: Any
) -> dict[str, float]:
    """The metrics of a split, with scores if it has tags. Writes its predictions and where they are wrong."""
    prefix = name.replace("validation", "eval")
    trainer.compute_metrics = None  # scored here, with more to say
    output = trainer.predict(windows, metric_key_prefix=prefix)
    tags = read_tags(output.predictions[0], windows, some, config)
    scores, types = score(metric, tags, some, config.tag_scheme) if some.tags else ({}, {})
    if record.is_writer:
        confidence = merge_windows(output.predictions[1], windows, some.words)
        write_report(record.folder, prefix, some, tags, confidence, config.tag_scheme)
        if types:
            write_json(record.folder / f"{prefix}_report.json", types)
    return output.metrics | {f"{prefix}_{key}": value for key, value in scores.items()}


def main(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> dict[str, Any]:
    # 1. Start the run.
    record, results = start(main, model_args, data_args, training_args)
    if record is None:
        return results

    # 2. Data, labels and tokenizer.
    with training_args.main_process_first(desc="preparing data"):
        sentences, config, tokenizer, hashes = load_data(model_args, data_args, training_args)
    if record_data(record, hashes, tokenizer):
        return record.finished["results"]
    metric = evaluate.load(METRICS, keep_in_memory=True)  # or it writes into the user's cache
    choose_best_by(training_args, *measures_of(metric, sentences.get("validation"), config))
    windows_of = partial(cut_windows, tokenizer=tokenizer, config=config, data_args=data_args)
    windows = {name: windows_of(some, for_training=name == "train") for name, some in sentences.items()}
    loss = choose_loss(data_args, training_args, SINGLE, list(config.label2id), windows.get("train"))

    # 3. Model and Trainer.
    most = data_args.max_seq_length
    load = partial(load_model, record, model_args, AutoModelForTokenClassification, config, tokenizer, most)

    def build_trainer(args: FineTuningArguments, train: Any = None, held_out: Sentences | None = None) -> ExactTrainer:
        """On the training data, or on two parts of it: then the model is made anew for each trial of the search."""
        some = held_out or sentences.get("validation")
        eval_dataset = windows_of(held_out, for_training=False) if held_out else windows.get("validation")
        set_seed(args.seed)
        return ExactTrainer(
            model=None if held_out else load(),
            model_init=load if held_out else None,
            args=args,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            train_dataset=windows_of(train, for_training=True) if train else windows.get("train"),
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            compute_loss_func=loss,
            compute_metrics=lambda found: compute_metrics(found, eval_dataset, some, metric, config),
            preprocess_logits_for_metrics=keep_classes,
            callbacks=args.callbacks,
            identity=record.identity,
        )

    if training_args.dry_run:
        return dry_run(build_trainer, windows["train"], record)
    if training_args.search_trials:
        parts = sentences["train"].divide(training_args.search_fraction, training_args.search_seed)
        search_settings(build_trainer, parts, f"eval_{main_metric(config.tag_scheme)}", record)
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics = train_and_save(trainer, record, count_repaired(sentences))

    # 5. Evaluate, predict and report.
    for name in [name for name in windows if name != "train"]:
        found = predict_split(trainer, record, name, sentences[name], windows[name], metric, config)
        trainer.save_metrics(name.replace("validation", "eval"), found)
        metrics |= found
    source = data_args.source
    return finish(trainer, record, metrics, "token-classification", source, f"fine-tuned on {source}.")


if __name__ == "__main__":
    run_script(main, CheckpointArguments, DataArguments, FineTuningArguments)
