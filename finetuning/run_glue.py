"""Fine-tune an encoder to classify or to score sentences and pairs of them: GLUE's tasks, or a set of one's own.

    accelerate launch finetuning/run_glue.py --config finetuning/recipes/mrpc.yaml

Reads a dataset of the Hub, a local folder, or parquet, CSV, TSV and JSON files. Writes a model that plain
`AutoModelForSequenceClassification.from_pretrained` loads, its label names in the configuration, results, an error
analysis, and with --do_predict predictions.jsonl, for GLUE's tasks also in the format of its server. Reports the
task's metrics; with --seeds 1 2 3 their mean and standard deviation.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.common.checkpoint import MULTI, REGRESSION, SINGLE, load_config, load_model, read_head, tokenizer_of
from finetuning.common.classes import choose_loss
from finetuning.common.data import Split, check_roles, choose_splits, load_splits, split_off
from finetuning.common.held_out import hold_out
from finetuning.common.length_order import as_before, longest_first
from finetuning.common.run import dry_run, finish, record_data, search_settings, start, train_and_save
from finetuning.glue.columns import LabelArguments, about_rows, count_left_out, settle_columns
from finetuning.glue.labels import RENAME, choose_problem_type, encode_labels, find_names, read_labels
from finetuning.glue.predictions import write_split
from finetuning.glue.scores import names_of_measures, score
from finetuning.glue.thresholds import check_tuning, score_and_tune
from finetuning.metrics.glue_tasks import main_metric
from shared.command_line import refuse_flags, run_script
from shared.errors import InputError
from shared.training.arguments import choose_best_by
from shared.training.trainer import ExactTrainer

METRICS = str(Path(__file__).parent / "metrics" / "glue_tasks.py")
PAIRS = {  # the text columns of GLUE's tasks
    "ax": ("premise", "hypothesis"),
    "cola": ("sentence", None),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "sst2": ("sentence", None),
    "stsb": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
MNLI = {"validation_matched": "validation", "test_matched": "test"}


@dataclass
class DataArguments(LabelArguments):
    task_name: str | None = field(default=None, metadata={"help": f"A task of GLUE: {', '.join(PAIRS)}."})
    text_column: str = field(default="sentence", metadata={"help": "The column of the text, if not that of the task."})
    text_pair_column: str | None = field(default=None, metadata={"help": "The column of the second text of a pair."})
    tune_thresholds: bool = field(
        default=False,
        metadata={"help": "Choose, on the validation split, the probability from which on a label is given, for F1."},
    )
    max_seq_length: int = field(default=128, metadata={"help": "Tokens of a text or pair; longer ones are cut."})

    def __post_init__(self) -> None:
        if self.task_name is not None:
            if self.task_name not in PAIRS:
                raise InputError(f"--task_name {self.task_name}: must be one of {', '.join(PAIRS)}")
            if (self.text_column, self.text_pair_column) == ("sentence", None):
                self.text_column, self.text_pair_column = PAIRS[self.task_name]
            refuse_flags(self, {"problem_type": "--task_name says what the labels are"})
            self.problem_type = REGRESSION if self.task_name == "stsb" else SINGLE
        super().__post_init__()
        texts = [("text_column", self.text_column), ("text_pair_column", self.text_pair_column)]
        check_roles(*texts, ("label_column", self.label_column))
        check_roles(*texts, *(("label_columns", name) for name in self.label_columns))

    @property
    def text_flags(self) -> dict[str, str]:
        """The columns of text, each with the flag that names it."""
        both = {self.text_column: "text_column", self.text_pair_column: "text_pair_column"}
        return {name: flag for name, flag in both.items() if name}

    @property
    def text_columns(self) -> list[str]:
        return list(self.text_flags)


def tokenize(split: Split, labels: list[Any] | None, data_args: DataArguments, tokenizer: Any) -> Any:
    """The rows as tokens, with their number in `length`, and `labels` where there are any."""
    columns = data_args.text_columns

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        texts = tokenizer(*(batch[name] for name in columns), truncation=True, max_length=data_args.max_seq_length)
        return texts | {"length": [len(row) for row in texts["input_ids"]]}

    rows = split.rows.select_columns(columns)
    rows = rows.map(encode, batched=True, remove_columns=columns, desc=f"tokenizing {Path(split.where).name}")
    return rows if labels is None else rows.add_column("labels", labels)


def load_data(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> tuple[dict[str, Split], dict[str, Any], Any, Any, dict[str, str]]:
    """The splits that are asked for, as text and as tokens, the configuration with their labels, the tokenizer, and
    the hashes of what was read."""
    splits, hashes = load_splits(data_args, data_args.task_name, renamed=MNLI)
    splits = hold_out(splits, data_args, data_args.text_flags, data_args.labels_of)
    splits = settle_columns(choose_splits(splits, data_args, training_args), data_args)
    head = read_head(model_args, AutoModelForSequenceClassification, training_args.do_train)
    kind = data_args.problem_type = choose_problem_type(data_args, head, next(iter(splits.values())))
    labels = {name: read_labels(split, data_args.label_column, kind) for name, split in splits.items()}
    names = None
    if training_args.do_train:
        names = find_names(labels["train"], splits["train"], data_args.label_column, kind)
    config = load_config(model_args, AutoModelForSequenceClassification, names, data_args.class_names, kind)
    check_tuning(data_args.tune_thresholds, config, training_args.do_train, "validation" in splits)
    tokenizer = tokenizer_of(model_args)
    rows = {}
    for name, split in splits.items():
        if labels[name] is not None:
            labels[name] = encode_labels(labels[name], config.label2id, split, kind, "" if names else RENAME)
        rows[name] = tokenize(split, labels[name], data_args, tokenizer)
    return splits, rows, config, tokenizer, hashes


def predict_split(
    trainer: Any, record: Any, name: str, split: Split, rows: Any, metric: Any, data_args: DataArguments
) -> dict[str, float]:
    """The metrics of a split, with scores if it has labels. Writes its predictions: of a test split also for GLUE's
    server, of others with an error analysis. Thresholds are tuned on the first validation split."""
    ordered, order = longest_first(rows)
    prefix, found = name.replace("validation", "eval"), {}
    trainer.compute_metrics = None  # scored here, with more to say
    output = trainer.predict(ordered, metric_key_prefix=prefix)
    logits = as_before(output.predictions, order)
    if "labels" in rows.column_names:
        is_tuned = data_args.tune_thresholds and name == "validation"
        found = score_and_tune(trainer, metric, rows["labels"], logits, is_tuned)
    if record.is_writer:
        texts, about = split.rows.select_columns(data_args.text_columns), about_rows(split, data_args)
        found |= write_split(record, name, logits, trainer.model.config, about, texts, rows, data_args.task_name)
    return output.metrics | {f"{prefix}_{key}": value for key, value in found.items()}


def main(
    model_args: CheckpointArguments, data_args: DataArguments, training_args: FineTuningArguments
) -> dict[str, Any]:
    # 1. Start the run.
    record, results = start(main, model_args, data_args, training_args)
    if record is None:
        return results

    # 2. Data, labels and tokenizer.
    with training_args.main_process_first(desc="preparing data"):
        splits, rows, config, tokenizer, hashes = load_data(model_args, data_args, training_args)
    if record_data(record, hashes, tokenizer):
        return record.finished["results"]
    kind, names = config.problem_type, list(config.label2id)
    task = data_args.task_name or {SINGLE: "single_label", MULTI: "multi_label", REGRESSION: "regression"}[kind]
    metric = evaluate.load(METRICS, task, keep_in_memory=True)  # or it writes into the user's cache
    choose_best_by(training_args, names_of_measures(metric, rows.get("validation"), names, kind), main_metric(task))
    loss = choose_loss(data_args, training_args, kind, names, rows.get("train"))

    # 3. Model and Trainer.
    most = data_args.max_seq_length
    load = partial(load_model, record, model_args, AutoModelForSequenceClassification, config, tokenizer, most)

    def build_trainer(args: FineTuningArguments, *parts: Any) -> ExactTrainer:
        """On the training data, or on two parts of it: then the model is made anew for each trial of the search."""
        train, held_out = parts or (rows.get("train"), rows.get("validation"))
        set_seed(args.seed)
        return ExactTrainer(
            model=None if parts else load(),
            model_init=load if parts else None,
            args=args,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=None if held_out is None else longest_first(held_out)[0],
            processing_class=tokenizer,
            compute_loss_func=loss,
            compute_metrics=lambda found: score(metric, found.label_ids, found.predictions, names, kind),
            callbacks=args.callbacks,
            identity=record.identity,
        )

    if training_args.dry_run:
        return dry_run(build_trainer, rows["train"], record)
    if training_args.search_trials:
        parts = split_off(rows["train"], training_args.search_fraction, training_args.search_seed)
        search_settings(build_trainer, parts, f"eval_{main_metric(task)}", record)
    trainer = build_trainer(training_args)

    # 4. Train.
    metrics = train_and_save(trainer, record, count_left_out(splits))

    # 5. Evaluate, predict and report.
    for name in [name for name in rows if name != "train"]:
        found = predict_split(trainer, record, name, splits[name], rows[name], metric, data_args)
        trainer.save_metrics(name.replace("validation", "eval"), found)
        metrics |= found
    source = data_args.task_name or data_args.source
    return finish(trainer, record, metrics, "text-classification", source, f"fine-tuned on {source}.")


if __name__ == "__main__":
    run_script(main, CheckpointArguments, DataArguments, FineTuningArguments)
