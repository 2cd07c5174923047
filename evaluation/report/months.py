"""Months in a row: what each update read, learned and forgot, from the folders that `make update` leaves."""

from pathlib import Path
from typing import Any

from evaluation.report.inputs import read_json
from shared.errors import InputError
from shared.markdown import escape, markdown_table
from shared.training.card import readable

LEADS = ("lead_early", "lead_late", "gain")
HEAD = ["model", "text to", "tokens read", "new words", "freshness gain over the model before", "largest rise before"]


def months_section(folders: list[str]) -> str:
    """A row for each update, in their order. Raises InputError for a folder that is none."""
    rows = [_row(Path(folder)) for folder in folders]
    if any(len(row) > len(HEAD) for row in rows):
        head = [*HEAD, "task average"]
        rows = [[*row, *["–"] * (len(head) - len(row))] for row in rows]
    else:
        head = HEAD
    return (
        f"{markdown_table(head, rows)}\n\nEach model is compared with the one that it goes on from. Gain: by how many "
        "bits per byte more it is ahead on text that this one could not know than on older text. Largest rise "
        "before: of bits per byte on a period that both know; below 0 nothing was forgotten. 95% intervals "
        "over documents."
    )


def update_table(result: dict[str, Any]) -> str:
    """Updates and their alternatives over the model that all of them are compared with: what each read and took, its
    lead on old and on new text, and its gain. `runs` says what no result of run_freshness.py does."""
    text, old = result["text"], result["text"]["old"]
    head = ["model", "text to", "tokens read", "minutes, 1 core", "Wikipedia, bits per byte"]
    head.append(f"lead on text to {result['cutoffs'][old][:4]}")
    rows = []
    for name, run in result["runs"].items():
        cells = [escape(run["what"]), result["cutoffs"][name], f"{run['tokens'] / 1e6:.1f}M"]
        cells += [f"{run['seconds'] / 60:.1f}", f"{run['wikipedia']:.3f}" if run["wikipedia"] else "not measured"]
        cells += [_interval(text["gains"][name], key) if name != old else "" for key in LEADS]
        rows.append(cells)
    return markdown_table([*head, "on later text", "freshness gain"], rows)


def _interval(found: dict[str, Any], key: str) -> str:
    low, high = found[f"{key}_interval"]
    return f"{found[key]:+.3f} ({low:+.3f} to {high:+.3f})"


def _row(folder: Path) -> list[str]:
    freshness, file = _read(folder / "results" / "freshness.json"), folder / "results" / "freshness.json"
    try:
        text = freshness["text"]
        (name, gain), *others = text["gains"].items()
        if others:
            raise InputError(f"{file}: is of more than one update; name the folder of one")
        manifest = _read(folder / name / "manifest.json")
        known = [
            (-found["lead"], [-found["lead_interval"][1], -found["lead_interval"][0]])
            for period, found in zip(text["periods"], gain["periods"], strict=True)
            if period["name"] in gain["early"]
        ]
        rise, (low, high) = max(known)
        row = [escape(name), freshness["cutoffs"][name], readable(manifest["results"]["train_tokens"])]
        row.append(f"{len(_read(folder / 'tokenizer' / 'report.json')['words']):,}")
        row.append(_interval(gain, "gain"))
        row.append(f"{rise:+.3f} ({low:+.3f} to {high:+.3f})")
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
