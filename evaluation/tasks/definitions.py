"""The tasks of the benchmark: the script, recipe and metric of each, its predictions, and its majority class."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from evaluation.tasks.bootstrap import Examples, parts_of
from shared.files import content_hash


@dataclass(frozen=True)
class Task:
    """A task: the fine-tuning script and the recipe that run it, and its main metric there, which `divisor` makes a
    share. `parts` is what evaluation/tasks/bootstrap.py calls that metric."""

    script: str
    recipe: str
    metric: str
    parts: str
    flags: dict[str, str] = field(default_factory=dict)
    divisor: float = 1.0

    @property
    def module(self) -> Any:
        from finetuning import run_glue, run_ner, run_qa  # here: they take seconds, and tables need none of them

        return {"run_glue": run_glue, "run_ner": run_ner, "run_qa": run_qa}[self.script]


def _glue(task: str, metric: str = "accuracy", recipe: str = "") -> Task:
    return Task("run_glue", recipe or task, metric, metric, {"task_name": task, "dataset_name": "nyu-mll/glue"})


TASKS = {
    "cola": _glue("cola", "matthews_correlation"),
    "sst2": _glue("sst2"),
    "mrpc": _glue("mrpc"),
    "stsb": _glue("stsb", "pearson"),
    "qqp": _glue("qqp"),
    "mnli": _glue("mnli"),
    "qnli": _glue("qnli"),
    "rte": _glue("rte"),
    "wnli": _glue("wnli", recipe="rte"),
    "snli": Task("run_glue", "snli", "accuracy", "accuracy", {"dataset_name": "stanfordnlp/snli"}),
    "wnut_17": Task("run_ner", "ner", "f1", "entity_f1", {"dataset_name": "leondz/wnut_17"}),
    "wikiann": Task(
        "run_ner", "ner", "f1", "entity_f1", {"dataset_name": "unimelb-nlp/wikiann", "dataset_config_name": "en"}
    ),
    "squad": Task("run_qa", "qa", "f1", "squad_f1", {"dataset_name": "rajpurkar/squad"}, 100.0),
    "squad_v2": Task(
        *("run_qa", "qa", "f1", "squad_v2_f1"),
        {"dataset_name": "rajpurkar/squad_v2", "version_2_with_negative": "true"},
        100.0,
    ),
    # Seconds, from a grammar, for tests and for trying things out.
    "opinions": Task("run_glue", "glue_smoke", "accuracy", "accuracy"),
    "entities": Task("run_ner", "ner_smoke", "f1", "entity_f1"),
    "questions": Task("run_qa", "qa_smoke", "f1", "squad_v2_f1", divisor=100.0),
}


def read_predictions(task: str, folder: str | Path, run: tuple[Any, ...]) -> list[dict[str, Any]] | None:
    """What a run found in its validation split: a dict with `gold` and `prediction` for each row; None if it did not
    write that. `run` are its arguments."""
    path = Path(folder, "errors", "predictions.jsonl")
    if path.is_file():
        with open(path, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    if TASKS[task].script != "run_qa":
        return None
    from finetuning.common.data import choose_splits, load_splits
    from finetuning.qa.squad import check_questions, read_questions

    _, data_args, training_args = run
    splits, _ = load_splits(data_args, read_file=read_questions)
    split = choose_splits(splits, data_args, training_args)["validation"]
    rows = check_questions(split, True, data_args.version_2_with_negative, data_args.drop_misplaced_answers).rows
    found = json.loads(Path(folder, "eval_predictions.json").read_text(encoding="utf-8"))
    pairs = zip(rows["id"][:], rows["answers"][:], strict=True)
    return [{"gold": answers["text"], "prediction": found[name]} for name, answers in pairs]


def make_examples(task: str, runs: Sequence[list[dict[str, Any]]]) -> Examples:
    """The examples of runs of a task that predicted the same rows. Raises ValueError if they did not."""
    keys = {content_hash([row["gold"] for row in rows]) for rows in runs}
    if len(keys) > 1:
        raise ValueError("the runs were evaluated on different rows")
    found = [parts_of(rows, TASKS[task].parts) for rows in runs]
    return Examples(np.stack([parts for parts, _ in found]), found[0][1], f"{task} {keys.pop()}")


def predict_majority(
    task: str, run: tuple[Any, ...], gold: list[Any] | None
) -> tuple[list[dict[str, Any]] | None, dict[str, float]]:
    """The control that looks at no text: predictions of the validation rows, and their metrics; None for nothing.

    The most frequent class of the training data, their mean if they are numbers, O for words, no answer to questions
    that may have none. `run` are the arguments of a fine-tuning run of the task, `gold` what such a run wrote.
    """
    if TASKS[task].script == "run_ner":
        rows = [{"gold": tags, "prediction": ["O"] * len(tags)} for tags in gold or []]
        return rows or None, {"f1": 0.0}
    if TASKS[task].script == "run_qa":
        if TASKS[task].parts != "squad_v2_f1" or gold is None:
            return None, {}
        share = 100 * mean(not answers for answers in gold)
        return [{"gold": answers, "prediction": ""} for answers in gold], {"f1": share, "exact_match": share}
    return _majority_label(task, run)


def _majority_label(task: str, run: tuple[Any, ...]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    import evaluate

    from finetuning.common.data import choose_splits, load_splits
    from finetuning.glue.columns import settle_columns
    from finetuning.glue.labels import REGRESSION, find_names, find_problem_type, read_labels
    from finetuning.run_glue import METRICS, MNLI

    _, data_args, training_args = run
    splits, _ = load_splits(data_args, data_args.task_name, renamed=MNLI)
    splits = settle_columns(choose_splits(splits, data_args, training_args), data_args)
    column = data_args.label_column
    kind = data_args.problem_type or find_problem_type(splits["train"], column)
    train, gold = (read_labels(splits[name], column, kind) for name in ("train", "validation"))
    if kind == REGRESSION:
        chosen, ids = mean(train), {}
    else:
        counts = Counter(train)
        ids = {name: i for i, name in enumerate(find_names(train, splits["train"], column, kind))}
        chosen = max(ids, key=lambda name: counts[name])
    metric = evaluate.load(METRICS, data_args.task_name or "single_label")
    found, right = [ids.get(chosen, chosen)] * len(gold), [ids.get(label, label) for label in gold]
    rows = [{"gold": label, "prediction": chosen} for label in gold]
    return rows, metric.compute(predictions=found, references=right)
