"""Months in a row: what each update read, learned and forgot, from the folders that `make update` leaves."""

from pathlib import Path
from statistics import mean
from typing import Any

from evaluation.report.inputs import read_json
from shared.errors import InputError
from shared.markdown import escape, markdown_table
from shared.training.card import readable

HEAD = ["model", "text to", "tokens read", "new words", "freshness gain over the model before", "largest rise before"]


def months_section(folders: list[str]) -> str:
    """A row for each update, in their order. Raises InputError for a folder that is none."""
    rows, head = [_row(Path(folder)) for folder in folders], HEAD
    if any(len(row) > len(HEAD) for row in rows):
        head = [*HEAD, "task average"]
        rows = [[*row, "–"][: len(head)] for row in rows]
    return (
        f"{markdown_table(head, rows)}\n\nEach model is compared with the one that it goes on from. Gain: by how many "
        "bits per byte more it is ahead on text that this one could not know than on older text. Largest rise "
        "before: of bits per byte on a period that both know; below 0 nothing was forgotten. 95% intervals "
        "over documents."
    )


def series_table(result: dict[str, Any]) -> str:
    """What evaluation/bench/updates.py found: a row for each model and seed, the cloze by year, tasks."""
    first = result["settings"]["years"][0]
    head = ["model", "seed", "text to", "tokens read", "minutes, 1 core", "Wikipedia, bits per byte"]
    head += [f"text to {first}", "later text", "freshness gain", "of the gain from scratch"]
    rows = [[escape(name), seed, *_measured(models, name)] for name, seed, models in _by_name(result)]
    parts = [markdown_table(head, rows), new_words_table(result), _cloze_table(result)]
    parts += [_task_table(result["tasks"])] if "tasks" in result else []
    return "\n\n".join(filter(None, parts))


def _by_name(result: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The name of each model, a seed that it was trained with, and all models of that seed; in the order of names."""
    names = dict.fromkeys(name for models in result["seeds"].values() for name in models)
    return [(name, seed, models) for name in names for seed, models in result["seeds"].items() if name in models]


def _measured(models: dict[str, Any], name: str) -> list[str]:
    """The cells of a model: what it read and took, changes of bits per byte from the first model, its gain."""
    row, base = models[name], next(iter(models.values()))
    old = mean(row["old"].values())
    cells = [str(row["text_to"]), f"{row['tokens'] / 1e6:.2f}M", f"{row['seconds'] / 60:.1f}", f"{old:.3f}"]
    if row is base:
        return [*cells, *[""] * 4]
    cells[-1] += f" ({old - mean(base['old'].values()):+.3f})"
    gain, anew = row["gain"], models.get(f"scratch_{row['text_to']}")
    cells += [f"{-gain[key]:+.3f}" for key in ("lead_early", "lead_late")] + [_interval(gain, "gain")]
    return [*cells, f"{gain['gain'] / anew['gain']['gain']:.0%}" if anew and anew is not row else ""]


def new_words_table(result: dict[str, Any]) -> str:
    """Bits per byte of sentences with words that no text before their year has, as changes from the first model."""
    first, rows = result["settings"]["years"][0], []
    for name, seed, models in _by_name(result):
        if gain := models[name].get("new_words"):
            anew = models.get(f"scratch_{models[name]['text_to']}", {}).get("new_words", gain)
            share = "" if anew is gain else f"{gain['gain'] / anew['gain']:.0%}"
            cells = [_interval(gain, "lead_early", -1), _interval(gain, "lead_late", -1), _interval(gain, "gain")]
            rows.append([escape(name), seed, *cells, share])
    head = ["sentences with new words", "seed", f"words new to {first}", "words new later", "freshness gain"]
    return markdown_table([*head, "of the gain from scratch"], rows) if rows else ""


def _cloze_table(result: dict[str, Any]) -> str:
    """Share of the gaps that are filled, the mean over the seeds of a model, by the year of the sentences."""
    found: dict[str, list[Any]] = {}
    for name, _, models in _by_name(result):
        if cloze := models[name]["cloze"]:
            found.setdefault(name, []).append(cloze)
    if not found:
        return ""
    first = next(iter(found.values()))[0]["by_year"]
    head = ["dated cloze, accuracy", *(f"{row['year']} ({row['questions']:,})" for row in first), "all, 95% interval"]
    rows = []
    for name, runs in found.items():
        by_year = [f"{100 * mean(run['by_year'][i]['accuracy'] for run in runs):.1f}" for i in range(len(first))]
        low, high = (100 * mean(run["accuracy_interval"][i] for run in runs) for i in (0, 1))
        every = f"{100 * mean(run['accuracy'] for run in runs):.1f} ({low:.1f} to {high:.1f})"
        rows.append([escape(name), *by_year, every])
    always = [f"{100 * row['most_frequent_answer']:.1f}" for row in first]
    rows.append(["always the most frequent answer", *always, ""])
    return markdown_table(head, rows)


def _task_table(found: dict[str, Any]) -> str:
    """Scores after fine-tuning, and the difference from the first model with its interval."""
    tasks = found["tasks"]
    against = {(row["model"], row["task"]): row for row in found["comparisons"]}
    rows = []
    for name, cells in found["results"].items():
        row = [escape(name)]
        for task in tasks:
            text = f"{100 * cells[task]['mean']:.1f}" if "mean" in cells.get(task, {}) else "not measured"
            if (name, task) in against:
                other = against[name, task]
                low, high = 100 * other["low"], 100 * other["high"]
                text += f" ({100 * other['difference']:+.1f}: {low:+.1f} to {high:+.1f})"
            row.append(text)
        rows.append(row)
    return markdown_table(["after fine-tuning", *(f"{name}, {task['metric']}" for name, task in tasks.items())], rows)


def _interval(found: dict[str, Any], key: str, sign: int = 1) -> str:
    low, high = sorted(sign * end for end in found[f"{key}_interval"])
    return f"{sign * found[key]:+.3f} ({low:+.3f} to {high:+.3f})"


def _row(folder: Path) -> list[str]:
    freshness, file = _read(folder / "results" / "freshness.json"), folder / "results" / "freshness.json"
    try:
        text = freshness["text"]
        (name, gain), *others = text["gains"].items()
        if others:
            raise InputError(f"{file}: is of more than one update; name the folder of one")
        manifest = _read(folder / name / "manifest.json")
        pairs = zip(text["periods"], gain["periods"], strict=True)
        known = [found for period, found in pairs if period["name"] in gain["early"]]
        row = [escape(name), freshness["cutoffs"][name], readable(manifest["results"]["train_tokens"])]
        row.append(f"{len(_read(folder / 'tokenizer' / 'report.json')['words']):,}")
        row.append(_interval(gain, "gain"))
        row.append(_interval(min(known, key=lambda found: found["lead"]), "lead", -1))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"--months {folder}: is not a folder of make update: {error!r}") from error
    benchmark = folder / "results" / "benchmark.json"
    if benchmark.is_file():
        average = _read(benchmark)["averages"].get(name)
        row.append(f"{100 * average['mean']:.1f}" if average else "–")
    return row


def _read(path: Path) -> Any:
    found = read_json(path)
    if found is None:
        raise InputError(f"--months {path}: there is no such file; name the folders that make update wrote")
    return found


def rates_table(report: dict[str, Any]) -> str:
    """Several recipes of an update, by what a row of such updates gains and forgets; changes in bits per byte."""
    rows = []
    for row in report["rows"]:
        cells = [str(row["seed"]), str(row["batch"]), f"{row['learning_rate']:g}"]
        cells += [", ".join(f"{weight:g}" for weight in row["weights"]), f"{row['of_scratch']:.0%}"]
        rows.append(cells + [f"{row[part]:+.3f}" for part in ("old", "to_2023", "later")])
    head = ["seed", "batch", "learning rate", "new year, years before, Wikipedia", "of the gain from scratch"]
    return markdown_table([*head, "Wikipedia", "text to 2023", "later text"], rows)
