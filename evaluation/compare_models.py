"""Compare last month's model with this month's: a gate that fails when anything fell by more than noise explains.

    python evaluation/compare_models.py --before runs/benchmark-10 --after runs/benchmark-11 --max_drop 0.5

Reads two results, which may also stand first and without their flags: result files of this folder (benchmark.json and
others), or folders of them, with :MODEL behind one that has several models. Shows every number with its 95% interval.

The rule: a number fails if it got worse by more than is allowed, plus noise. Noise is the standard error of the
difference times the normal quantile at which all numbers together raise a false alarm with a probability of 5%
(--confidence 0.95; Bonferroni's correction). The error is that of a paired bootstrap where both benchmarks kept what
they made of the same examples, or one run_freshness.py measured both models; else the two are added as if independent,
so that the gate sees less. A number without an error fails on the allowance alone, and one that AFTER lacks fails.
The exit code is 1 if anything fails.
"""

import sys
from dataclasses import asdict, dataclass, field
from math import hypot, inf
from statistics import NormalDist
from typing import Any

from evaluation.report.numbers import LOSSES, Number, Result, read_result
from evaluation.tasks.bootstrap import Sample, average, resample
from shared.command_line import check_ranges, run_script
from shared.errors import InputError, RunError
from shared.files import write_report
from shared.markdown import markdown_table


@dataclass
class CompareArguments:
    before: str = field(metadata={"help": "A result file or folder, and :MODEL if it has several."})
    after: str = field(metadata={"help": "The same of the newer model."})
    max_drop: float = field(default=0.0, metadata={"help": "Points (percent) that a score may fall beyond noise."})
    max_rise: float = field(
        default=0.0, metadata={"help": "How much a loss may rise beyond noise, such as bits per byte."}
    )
    allow: list[str] = field(
        default_factory=list, metadata={"help": "NAME=value: another allowance for a task, bucket or metric."}
    )
    must_be_fresher: bool = field(
        default=False, metadata={"help": "Fail unless run_freshness.py shows AFTER to be fresher than BEFORE."}
    )
    confidence: float = field(default=0.95, metadata={"help": "Probability of no false alarm at all."})
    accept_changes: bool = field(
        default=False, metadata={"help": "Compare results that were got with other settings."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder for comparison.json and comparison.md."})

    def __post_init__(self) -> None:
        check_ranges(self, confidence=">= 0.5, < 1", max_drop=">= 0", max_rise=">= 0")
        for entry in self.allow:
            name, _, value = entry.partition("=")
            try:
                if not name or not 0 <= float(value) < inf:
                    raise ValueError
            except ValueError as error:
                raise InputError(f"--allow {entry}: write NAME=value, a number from 0") from error


def compare(before: Result, after: Result, args: CompareArguments) -> list[dict[str, Any]]:
    """A row for each number of either: values with errors, change, noise, what is allowed, and the verdict."""
    allowed = {name: float(value) for name, _, value in (entry.partition("=") for entry in args.allow)}
    known = {*before.numbers, *after.numbers, *(n.metric for n in before.numbers.values())}
    for name in allowed:
        if name not in known:
            raise InputError(f"--allow {name}: there are {', '.join(sorted(known))}")
    common = [name for name in before.numbers if name in after.numbers]
    both = [name for name in common if not differ(before.numbers[name], after.numbers[name])]
    if not both:
        raise InputError(f"{args.before}, {args.after}: have no number in common")
    quantile = NormalDist().inv_cdf(1 - (1 - args.confidence) / len(both))
    tasks = {name: pair(before.numbers[name], after.numbers[name]) for name in both}
    if "average" in tasks:
        samples = [tasks.get(name) for name in sorted(before.numbers["average"].tasks)]
        tasks["average"] = average([sample for sample in samples if sample]) if all(samples) else None
    rows = []
    for name in dict.fromkeys([*before.numbers, *after.numbers]):
        old, new = before.numbers.get(name), after.numbers.get(name)
        number = old or new
        row: dict[str, Any] = {"name": name, "metric": number.metric, "unit": number.unit}
        row |= {"before": old and old.value, "before_error": old and old.error}
        row |= {"after": new and new.value, "after_error": new and new.error}
        rows.append(row)
        if old is None or new is None:
            row["verdict"] = "new" if old is None else "missing"
            continue
        if other := differ(old, new):
            row["verdict"] = f"not compared: other {other}"
            continue
        if old.metric != new.metric:
            raise InputError(f"{name}: is {old.metric} in {args.before} and {new.metric} in {args.after}")
        default = args.max_rise if number.metric in LOSSES else args.max_drop
        limit = allowed.get(name, allowed.get(number.metric, default)) / number.unit
        same_text = after.gain.errors.get(name) if after.gain and after.gain.base in before.sources else None
        error = noise_of(old, new, tasks[name]) if same_text is None else same_text
        noise = 0.0 if error is None else quantile * error
        change = new.value - old.value
        row |= {"change": change, "change_error": error, "is_paired": tasks[name] is not None or same_text is not None}
        row |= {"allowed": limit, "fails_beyond": limit + noise}
        gain = number.sign * change
        row["verdict"] = "worse" if -gain > limit + noise else "better" if gain > noise and error else "as before"
    return rows + ([judge_gain(before, after, args)] if args.must_be_fresher else [])


def differ(old: Number, new: Number) -> str:
    """In what two numbers of one name differ so that they do not compare, if they do."""
    return "tokenizer" if old.tokenizer != new.tokenizer else "tasks" if old.tasks != new.tasks else ""


def judge_gain(before: Result, after: Result, args: CompareArguments) -> dict[str, Any]:
    """The row of the freshness gain. Raises InputError where it was not measured over the model before."""
    gain = after.gain
    if gain is None or gain.base not in before.sources:
        raise InputError(
            f"--must_be_fresher: {args.after} holds no gain over {args.before}; measure both models in one call of "
            "run_freshness.py with --cutoff, and name freshness.json:OLD and freshness.json:NEW"
        )
    row = {"name": "freshness gain", "metric": "bits_per_byte", "unit": 1.0, "before": None, "after": None}
    row |= {"change": gain.value, "change_error": gain.error, "is_paired": True}
    return row | {"verdict": "better" if gain.is_fresher else "worse"}


def pair(old: Number, new: Number) -> Sample | None:
    """The resampled difference of two numbers on the same examples; None if they are not known to be."""
    if old.examples is None or new.examples is None or old.examples.key != new.examples.key:
        return None
    return resample(new.examples, "after") - resample(old.examples, "before")


def noise_of(old: Number, new: Number, difference: Sample | None) -> float | None:
    """The standard error of a difference."""
    if difference is not None:
        return float(difference.values.std())
    return None if old.error is None or new.error is None else hypot(old.error, new.error)


def make_table(report: dict[str, Any]) -> str:
    """The comparison in comparison.json as Markdown."""
    z = NormalDist().inv_cdf(0.975)

    def shown(row: dict[str, Any], key: str, sign: str = "") -> str:
        value, error, unit = row.get(key), row.get(f"{key}_error"), row["unit"]
        if value is None:
            return "–"
        digits = 1 if unit == 100 else 4
        text = f"{round(unit * value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")
        return text if error is None else f"{text} ± {unit * z * error:.{digits}f}"

    found = []
    for row in report["rows"]:
        verdict = f"**{row['verdict']}**" if row["verdict"] in ("worse", "missing") else row["verdict"]
        limit = shown(row, "fails_beyond")
        if "fails_beyond" in row:
            limit = ("+" if row["metric"] in LOSSES else "−") + limit
        cells = [row["name"], row["metric"].replace("_", " "), shown(row, "before"), shown(row, "after")]
        cells += [shown(row, "change", "+") + ("" if row.get("is_paired", True) else " (unpaired)"), limit, verdict]
        found.append(cells)
    head = ["number", "metric", "before", "after", "change", "fails beyond", "verdict"]
    table = markdown_table(head, found, "|---|---|---:|---:|---:|---:|---|")
    return f"{table}\n\n± is half of a 95% interval. Shares are in percent.\n"


def main(args: CompareArguments) -> list[dict[str, Any]]:
    before, after = read_result(args.before), read_result(args.after)
    rows = compare(before, after, args)  # first: what has nothing in common no flag makes comparable
    pairs = {key: (before.settings.get(key), after.settings.get(key)) for key in before.settings | after.settings}
    changed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in sorted(pairs.items()) if old != new)
    if changed and not args.accept_changes:
        raise InputError(f"{args.before}, {args.after}: other settings ({changed}); insist with --accept_changes")
    report = {"settings": asdict(args), "rows": rows}
    table = make_table(report)
    if args.output_dir is not None:
        write_report(args.output_dir, "comparison", report, table)
    print(table)
    bad = [row["name"] for row in rows if row["verdict"] in ("worse", "missing")]
    if bad:
        raise RunError(f"{len(bad)} of {len(rows)} numbers got worse or are missing: {', '.join(bad)}")
    return rows


def name_words(words: list[str]) -> list[str]:
    """The command line with the first two words as --before and --after."""
    if len(words) >= 2 and not words[0].startswith("-") and not words[1].startswith("-"):
        return ["--before", words[0], "--after", words[1], *words[2:]]
    return words


if __name__ == "__main__":
    sys.argv[1:] = name_words(sys.argv[1:])
    run_script(main, CompareArguments)
