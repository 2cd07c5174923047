"""The table of run_probes.py, from its JSON alone."""

from collections.abc import Callable
from typing import Any

from evaluation.masked.frequency_bands import BANDS
from shared.markdown import escape, markdown_table

NOT_MEASURED = "not measured"


def make_table(report: dict[str, Any]) -> str:
    """The report as Markdown: a row for each measure, a column for each model; shares and correlations in percent."""
    models = report["models"]
    found = {name: [row.get(name) for row in models.values()] for name in ("copy", "similarity", "frequency", "blimp")}
    found["cloze"] = [row.get("cloze") for row in models.values()]
    rows = [*_copy(found["copy"]), *_similarity(found["similarity"]), *_frequency(found["frequency"])]
    rows += [*_blimp(found["blimp"]), *_cloze(found["cloze"])]
    parts = [markdown_table(["probe", *map(escape, models)], rows), _notes(report)]
    if any(found["similarity"]):
        parts.append(_layers(models))
    if any(found["cloze"]):
        parts.append(_years(models))
    return "\n\n".join(parts) + "\n"


def _cell(row: dict[str, Any] | None, key: str, form: str = ".1f") -> str:
    """A share in percent, with its interval where there is one."""
    if row is None or key not in row:
        return "" if row else NOT_MEASURED
    text = f"{100 * row[key]:{form}}"
    if f"{key}_interval" in row:
        low, high = row[f"{key}_interval"]
        text += f" ({100 * low:{form}} to {100 * high:{form}})"
    return text


def _row(name: str, rows: list[Any], key: str, of: Callable[[Any], Any] = lambda row: row, form: str = ".1f") -> Any:
    return [name, *(_cell(row and of(row), key, form) for row in rows)]


def _copy(rows: list[Any]) -> list[Any]:
    return [
        _row("**copy gain**", rows, "copy_gain", form="+.1f"),
        _row("masked word found behind the same sentence", rows, "found_with"),
        _row("found without it", rows, "found_without"),
    ]


def _similarity(rows: list[Any]) -> list[Any]:
    return [
        _row("**STS-B, zero-shot**, last layer", rows, "spearman"),
        _row("*bags of words*, Jaccard", rows, "spearman", lambda row: row["controls"]["jaccard"]),
        _row("*bags of words*, IDF", rows, "spearman", lambda row: row["controls"]["idf"]),
        _row("*its embedding matrix alone*", rows, "spearman", lambda row: row["controls"]["input_embeddings"]),
        _row("*random weights*, last layer", rows, "spearman", lambda row: row["controls"]["random_weights"][-1]),
    ]


def _frequency(rows: list[Any]) -> list[Any]:
    bands = [_row(f"masked accuracy, {name}", rows, "accuracy", lambda row, name=name: row[name]) for name in BANDS]
    most = _row("*always the most frequent token*", rows, "most_frequent_token")
    return [_row("**masked accuracy**", rows, "accuracy"), *bands, most]


def _blimp(rows: list[Any]) -> list[Any]:
    return [_row("**BLiMP**, part of it (chance 50)", rows, "accuracy")]


def _cloze(rows: list[Any]) -> list[Any]:
    return [
        _row("**dated cloze**", rows, "accuracy"),
        _row("*chance*", rows, "chance"),
        _row("*always the most frequent answer*", rows, "most_frequent_answer"),
    ]


def _notes(report: dict[str, Any]) -> str:
    """What was measured on, of the first model, and how long it took."""
    models = report["models"]
    first = next(iter(models.values()))
    parts = ["In percent, with 95% intervals; controls in italics."]
    if found := first.get("copy"):
        parts.append(f"Copy: {found['sentences']:,} sentences, {found['tokens']:.1f} tokens of each masked.")
    if found := first.get("similarity"):
        parts.append(f"STS-B: {found['pairs']:,} pairs, Spearman's correlation.")
    if found := first.get("frequency"):
        counts = ", ".join(f"{name}: {found[name]['targets']:,}" for name in BANDS)
        parts.append(f"Masked accuracy: {found['targets']:,} targets ({counts}).")
    if found := first.get("blimp"):
        parts.append(f"BLiMP: {found['pairs']:,} pairs of {found['paradigms']} paradigms.")
    if found := first.get("cloze"):
        kinds = ", ".join(
            f"{row['questions']:,} of kind {row['kind']} with {row['choices']} choices" for row in found["by_kind"]
        )
        parts.append(f"Cloze: {found['questions']:,} questions ({escape(kinds)}).")
    times = ", ".join(f"{escape(label)} {row['seconds'] / 60:.1f}" for label, row in models.items())
    return " ".join([*parts, f"Minutes on {escape(report['hardware']['device'])}: {times}."])


def _layers(models: dict[str, Any]) -> str:
    found = {label: row["similarity"] for label, row in models.items()}
    head = ["STS-B by layer"]
    head += [name for label in models for name in (escape(label), "*random weights*")]
    rows = []
    for layer in range(max(len(row["layers"]) for row in found.values())):
        cells = ["output of the embeddings" if layer == 0 else f"layer {layer}"]
        for row in found.values():
            for layers in (row["layers"], row["controls"]["random_weights"]):
                cells.append(f"{100 * layers[layer]['spearman']:.1f}" if layer < len(layers) else "")
        rows.append(cells)
    return markdown_table(head, rows)


def _years(models: dict[str, Any]) -> str:
    found = {label: row["cloze"] for label, row in models.items()}
    head = ["cloze", "questions", "*chance*", "*most frequent answer*", *map(escape, models)]
    rows = []
    for key, part in (("year", "by_year"), ("kind", "by_kind")):
        for number, row in enumerate(next(iter(found.values()))[part]):
            controls = [f"{100 * row[name]:.1f}" for name in ("chance", "most_frequent_answer")]
            cells = [_cell(one[part][number], "accuracy") for one in found.values()]
            rows.append([escape(str(row[key])), row["questions"], *controls, *cells])
    return markdown_table(head, rows)
