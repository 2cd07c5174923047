"""The numbers of result files that have an error, for compare_models.py: whatever script wrote them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

from evaluation.tasks.bootstrap import Examples
from evaluation.tasks.page import CONTROLS
from shared.errors import InputError

# Of scores more is better, and they are shown in percent; of losses less. Others, such as the loss per token, hang on
# the tokenizer.
SHARES = ("accuracy", "f1", "matthews_correlation", "pearson", "spearman", "average", "score", "copy_gain")
LOSSES = ("bits_per_byte", "pll_bits_per_byte")
# What must be the same for two results to be comparable, of the settings of all scripts.
SETTINGS = ("max_samples", "overrides", "input", "within_word", "max_seq_length", "validation_fraction", "pll_samples")
SETTINGS += ("period", "held_out", "min_documents", "max_characters", "seed")
SETTINGS += ("copy_text", "stsb", "text", "blimp", "cloze", "max_blocks")  # of run_probes.py
NO_RESULTS = ("settings", "versions", "hardware", "speed", "references", "controls")


@dataclass(frozen=True)
class Number:
    """A number of a result: its metric, value and standard error if known; what it made of each example if kept."""

    metric: str
    value: float
    error: float | None
    examples: Examples | None = None
    tokenizer: str | None = None  # of a number that only models with the same tokenizer can be compared by
    tasks: frozenset[str] = frozenset()  # of an average

    @property
    def unit(self) -> float:
        """100 for shares, which are shown and allowed in percent."""
        return 100.0 if self.metric in SHARES else 1.0

    @property
    def sign(self) -> int:
        return -1 if self.metric in LOSSES else 1


@dataclass(frozen=True)
class Gain:
    """The freshness gain over an older model, and the standard errors of the differences from it by number, both of
    the same documents. `base` is the file and the name of the older model."""

    base: tuple[Path, str]
    value: float
    error: float
    is_fresher: bool
    errors: dict[str, float]


@dataclass(frozen=True)
class Result:
    numbers: dict[str, Number]
    settings: dict[str, Any]
    sources: set[tuple[Path, str]]  # the files that were read, and what the model is called there
    gain: Gain | None = None


def read_result(text: str) -> Result:
    """The numbers of a result file, or of all in a folder, for one model. Raises InputError."""
    path, model = text, ""
    if not Path(path).exists() and ":" in text:
        path, _, model = text.rpartition(":")
    if not Path(path).exists():
        raise InputError(f"{text}: there is no such result")
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*.json"))
    numbers: dict[str, Number] = {}
    settings: dict[str, Any] = {}
    sources, gain = set(), None
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: is no JSON: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("models"), (dict, list)):
            continue  # of another kind, such as models.json beside benchmark.json
        if "settings" not in content:
            raise InputError(f"{file}: has no settings; is it a whole result file?")
        name = choose_model(content["models"], model, file)
        is_benchmark = content.get("kind") == "benchmark"
        found = read_benchmark(content, name, file) if is_benchmark else dict(find_numbers(content, name))
        clashes = {*found} & {*numbers}
        if clashes:
            raise InputError(f"{file}: {min(clashes)} is also in another file of {path}; name one of the files")
        numbers |= found
        sources.add((file.resolve(), name))
        gain = gain or read_gain(content, name, file)
        known = [key for key in SETTINGS if key in content["settings"]]
        settings |= {key if len(files) == 1 else f"{file.stem}: {key}": content["settings"][key] for key in known}
    if not numbers:
        raise InputError(f"{text}: holds no result with numbers and their errors")
    return Result(numbers, settings, sources, gain)


def read_gain(content: dict[str, Any], model: str, file: Path) -> Gain | None:
    """What run_freshness.py found of this model over the oldest one; None for another result."""
    try:
        text = content["text"]
        found, names = text["gains"][model], [f"text {period['name']}" for period in text["periods"]]
        rows = zip(names, found["periods"], strict=True)
        errors = {name: _error_of(*row["lead_interval"]) for name, row in rows}
        error = _error_of(*found["gain_interval"])
        return Gain((file.resolve(), text["old"]), found["gain"], error, found["is_fresher"], errors)
    except (KeyError, TypeError, ValueError):  # without --cutoff, of the older model itself, or of another script
        return None


def choose_model(models: Iterable[str], wanted: str, file: Path) -> str:
    """The model that is asked for, or the only one. Raises InputError."""
    names = [name for name in models if name not in CONTROLS]
    if wanted in models:
        return wanted
    if wanted or len(names) != 1:
        asked = f"no model {wanted}" if wanted else "more than one model"
        raise InputError(f"{file}: {asked}: write {file}:MODEL with one of {', '.join(models)}")
    return names[0]


def read_benchmark(content: dict[str, Any], model: str, file: Path) -> dict[str, Number]:
    """The score of each task and their average. Raises InputError for a file that lacks a key."""
    from safetensors.numpy import load_file

    numbers: dict[str, Number] = {}
    examples_file = file.with_name("examples.safetensors")
    kept = load_file(examples_file) if examples_file.is_file() else {}
    try:
        for task, facts in content["tasks"].items():
            cell = content["results"][model].get(task, {})
            if "mean" not in cell:
                continue
            examples = None
            if "key" in facts and (parts := kept.get(f"{task}/{model}")) is not None:
                examples = Examples(parts.astype(float), facts["score"], facts["key"])
            numbers[task] = Number(facts["metric"], cell["mean"], _error(cell), examples)
        cell = content["averages"][model]
        if cell is not None and len(numbers) > 1:
            numbers["average"] = Number("average", cell["mean"], _error(cell), tasks=frozenset(numbers))
    except KeyError as error:
        raise InputError(f"{file}: not a whole result of run_benchmark.py: {error} is missing") from error
    return numbers


def _error(cell: dict[str, Any]) -> float | None:
    """The standard error: as it is given, or of the interval, or by the deviation over seeds."""
    if cell.get("standard_error") is not None:
        return float(cell["standard_error"])
    if cell.get("low") is not None and cell.get("high") is not None:
        return _error_of(cell["low"], cell["high"])
    if cell.get("std") is not None and len(cell.get("seeds", ())) > 1:
        return float(cell["std"]) / sqrt(len(cell["seeds"]))
    return None


def _error_of(low: float, high: float) -> float:
    """The standard error that a 95% interval stands for."""
    return float(high - low) / (2 * NormalDist().inv_cdf(0.975))


def find_numbers(
    content: Any, model: str, path: tuple[str, ...] = (), tokenizer: str | None = None
) -> Iterator[tuple[str, Number]]:
    """The numbers of a known metric that have an error beside them, wherever they are in a result, named by the keys
    that lead to them; of what stands under `models` only those of this model.

    An error is METRIC_interval, of two numbers, or what `_error` finds. `same_tokenizer` in a result says that its
    numbers hold for one tokenizer, by its hash.
    """
    if isinstance(content, list):  # of rows that say what they are
        content = {str(row["name"]): row for row in content if isinstance(row, dict) and "name" in row}
    if not isinstance(content, dict):
        return
    tokenizer = content.get("same_tokenizer", tokenizer)
    for key, value in content.items():
        if key in (*SHARES, *LOSSES) and isinstance(value, (int, float)):
            ends = content.get(f"{key}_interval")
            error = _error_of(*ends) if ends else _error(content)
            if error is not None and isfinite(value):
                name = [*path, key] if key.startswith("pll") or not path else path
                yield " ".join(name), Number(key, float(value), error, tokenizer=tokenizer)
        elif key == "models":
            yield from find_numbers(value.get(model) if isinstance(value, dict) else None, model, path, tokenizer)
        elif key not in NO_RESULTS:
            yield from find_numbers(value, model, path if key == "periods" else (*path, key), tokenizer)
