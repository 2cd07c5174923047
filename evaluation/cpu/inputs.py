"""The rows on which run_cpu_benchmark.py compares the variants of a model, and what is made of their logits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import numpy as np

from evaluation.cpu.processes import Worker, noting_failure
from finetuning import run_glue
from finetuning.common.arguments import CheckpointArguments
from finetuning.common.checkpoint import MULTI, REGRESSION, SINGLE
from finetuning.common.data import check_columns, load_splits
from finetuning.common.tables import format_of
from finetuning.glue.predictions import THRESHOLDS, as_predictions
from finetuning.metrics.glue_tasks import main_metric
from shared.documents import Documents
from shared.errors import InputError

MADE_UP, TEXTS, CALIBRATION = 64, 256, 256  # rows, unless a flag says otherwise
MASK_EVERY = 7  # tokens: about the share that masked-language models are trained with
OWN_TASKS = {SINGLE: "single_label", MULTI: "multi_label", REGRESSION: "regression"}


@dataclass
class Rows:
    """Rows of input, the longest first, and their labels.

    `inputs` holds lists of token ids and the like; `places` the tokens whose logits count, for tasks that label
    tokens; `labels` a class, number or row of zeros and ones for each row or place. `metric_task` is a configuration
    of finetuning/metrics/glue_tasks.py, None without labels that can be scored.
    """

    source: str
    inputs: list[dict[str, list[int]]]
    batch_size: int
    padding: dict[str, int]
    places: list[list[int]] | None = None
    labels: np.ndarray | None = None
    metric_task: str | None = None
    problem_type: str = SINGLE
    calibration: list[dict[str, np.ndarray]] = field(default_factory=list)
    thresholds: list[float] | None = None  # that fine-tuning tuned

    def predict(self, logits: np.ndarray) -> np.ndarray:
        """What is compared: classes, numbers, or rows of zeros and ones."""
        return as_predictions(logits, self.problem_type, self.thresholds)

    def score(self, logits: np.ndarray) -> float | None:
        """The first metric of the task."""
        if self.metric_task is None:
            return None
        metric = evaluate.load(run_glue.METRICS, self.metric_task)
        found = metric.compute(predictions=self.predict(logits), references=self.labels)
        return float(found[main_metric(self.metric_task)])

    def describe(self) -> dict[str, Any]:
        """For the result file."""
        metric = None if self.metric_task is None else main_metric(self.metric_task)
        places = None if self.places is None else sum(map(len, self.places))
        return {"source": self.source, "rows": len(self.inputs), "places": places, "metric": metric}


def read_rows(path: str, task: str, model: Any, tokenizer: Any, names: Sequence[str], args: Any) -> Rows:
    """The rows of --input for a model, or made-up ones without it. Raises InputError."""
    padding = dict.fromkeys(names, 0) | {"input_ids": tokenizer.pad_token_id}
    if args.input is None:
        rows = made_up_rows(tokenizer, names, args.max_seq_length)
        found = Rows("made-up rows", rows, args.batch_size, padding)
    elif task == "sequence_classification":
        return labelled_rows(path, tokenizer, names, padding, args)
    else:
        texts = list(islice(Documents([args.input]), args.max_samples or TEXTS))
        if not texts:
            raise InputError(f"--input {args.input}: holds no text")
        encoded = tokenizer(texts, truncation=True, max_length=args.max_seq_length)
        rows = [{name: encoded[name][i] for name in names} for i in range(len(texts))]
        found = Rows(Path(args.input).name, rows, args.batch_size, padding)
        found.calibration = calibration_rows(tokenizer, names, args)
    found.inputs.sort(key=lambda row: -len(row["input_ids"]))
    if task != "sequence_classification":
        choose_places(found, task, tokenizer)
        if task == "masked_lm" and args.input is not None:
            found.metric_task = OWN_TASKS[SINGLE]
    return found


def made_up_rows(tokenizer: Any, names: Sequence[str], length: int) -> list[dict[str, list[int]]]:
    """Random tokens in rows of all lengths up to `length`, always the same."""
    random = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    rows = []
    for size in np.linspace(min(8, length), length, MADE_UP).astype(int):
        ids = [tokenizer.cls_token_id, *random.choice(ordinary, size - 2).tolist(), tokenizer.sep_token_id]
        rows.append({name: [int(name == "attention_mask")] * len(ids) for name in names} | {"input_ids": ids})
    return rows


def choose_places(rows: Rows, task: str, tokenizer: Any) -> None:
    """The tokens that count: all ordinary ones or, for a masked-language model, those that are masked here."""
    special = set(tokenizer.all_special_ids)
    rows.places, labels = [], []
    for number, row in enumerate(rows.inputs):
        places = [i for i, token in enumerate(row["input_ids"]) if token not in special]
        if task == "masked_lm":
            places = places[number % MASK_EVERY :: MASK_EVERY] or places[:1]
            labels += [row["input_ids"][i] for i in places]
            row["input_ids"] = [tokenizer.mask_token_id if i in places else n for i, n in enumerate(row["input_ids"])]
        rows.places.append(places)
    rows.labels = np.array(labels) if labels else None


def data_arguments(path: str, args: Any, most: int | None) -> run_glue.DataArguments:
    """The flags of run_glue.py for a file, folder or Hub id."""
    is_file = format_of(path) is not None
    return run_glue.DataArguments(
        dataset_name=None if is_file else path,
        validation_file=path if is_file else None,
        max_eval_samples=most,
        task_name=args.task_name,
        text_column=args.text_column,
        text_pair_column=args.text_pair_column,
        label_column=args.label_column,
        max_seq_length=args.max_seq_length,
    )


def labelled_rows(path: str, tokenizer: Any, names: Sequence[str], padding: dict[str, int], args: Any) -> Rows:
    """The validation rows of --input, as run_glue.py reads them."""
    data_args = data_arguments(args.input, args, args.max_samples)
    wanted = SimpleNamespace(do_train=False, do_eval=True, do_predict=False)
    try:
        _, found, config, _, _ = run_glue.load_data(CheckpointArguments(model_name_or_path=path), data_args, wanted)
    except InputError as error:
        raise InputError(f"--input {args.input}, for --models {path}: {error}") from error
    rows = found["validation"]
    rows = rows.select(np.argsort(-np.array(rows["length"]), kind="stable"))
    return Rows(
        args.task_name or Path(args.input).name,
        [{name: row[name] for name in names} for row in rows],
        args.batch_size,
        padding,
        labels=np.array(rows["labels"]),
        metric_task=args.task_name or OWN_TASKS[config.problem_type],
        problem_type=config.problem_type,
        calibration=calibration_rows(tokenizer, names, args),
        thresholds=getattr(config, THRESHOLDS, None),
    )


def calibration_rows(tokenizer: Any, names: Sequence[str], args: Any) -> list[dict[str, np.ndarray]]:
    """One batch a row, of --calibration_input or of the train split of --input; none if nothing is calibrated."""
    if "onnx_static" not in args.variants:
        return []
    source = args.calibration_input or args.input
    if format_of(source) is None and (Path(source).suffix in (".txt", ".gz") or Path(source).is_file()):
        texts: list[list[str]] = [list(islice(Documents([source]), CALIBRATION))]
    else:
        data_args = data_arguments(source, args, None)
        splits, _ = load_splits(data_args, args.task_name, renamed=run_glue.MNLI)
        if args.calibration_input is None and "train" not in splits:
            lacks = f"--variants onnx_static: --input {args.input} has no train split to calibrate on"
            raise InputError(f"{lacks}; name other rows than those of the comparison with --calibration_input")
        split = splits.get("train") or next(iter(splits.values()))
        check_columns(split, data_args.text_columns, "text")
        texts = [list(split.first(CALIBRATION).rows[name]) for name in data_args.text_columns]
    found = tokenizer(*texts, truncation=True, max_length=args.max_seq_length)
    return [{name: np.array([found[name][i]], np.int64) for name in names} for i in range(len(texts[0]))]


def write_batches(rows: Rows, path: Path) -> Path:
    """Padded batches as arrays `NUMBER.NAME`, the places as `NUMBER.rows` and `NUMBER.columns`, and their `count`."""
    arrays: dict[str, np.ndarray] = {}
    starts = range(0, len(rows.inputs), rows.batch_size)
    for number, start in enumerate(starts):
        batch = rows.inputs[start : start + rows.batch_size]
        length = max(len(row["input_ids"]) for row in batch)
        for name, filler in rows.padding.items():
            arrays[f"{number}.{name}"] = np.array([row[name] + [filler] * (length - len(row[name])) for row in batch])
        if rows.places is not None:
            places = rows.places[start : start + rows.batch_size]
            arrays[f"{number}.rows"] = np.repeat(np.arange(len(places)), [len(columns) for columns in places])
            arrays[f"{number}.columns"] = np.array([column for columns in places for column in columns], np.int64)
    np.savez(path, count=np.array(len(starts)), **arrays)
    return path


def compare(running: dict[str, Worker], rows: Rows, folder: Path, found: dict[str, Any]) -> None:
    """What each variant makes of the rows, against eager: logits, predictions and the score."""
    path = write_batches(rows, folder / "batches.npz")
    eager: dict[str, Any] = {}
    for variant, worker in running.items():
        with noting_failure(found[variant]):
            logits = np.load(worker.ask(predict=str(path))["output"], allow_pickle=False)
            predicted, score = rows.predict(logits), rows.score(logits)
            eager = eager or {"logits": logits, "predicted": predicted, "score": score}
            same = (predicted == eager["predicted"]).reshape(len(predicted), -1).all(1)
            found[variant]["parity"] = {
                "largest_logit_difference": float(np.abs(logits - eager["logits"]).max()),
                "agreement": None if rows.problem_type == "regression" else float(same.mean()),
                "score": score,
                "points": None if score is None else 100 * (score - eager["score"]),
            }
