"""The table of run_probes.py, from its JSON alone."""

from typing import Any

from evaluation.masked.frequency_bands import BANDS
from shared.markdown import escape, markdown_table

NOT_MEASURED = "not measured"


def make_table(report: dict[str, Any]) -> str:
    """The report as Markdown: a row for each measure, a column for each model; shares and correlations in percent."""
    models = report["models"]
    parts = [markdown_table(["probe", *map(escape, models)], _measures(models)), _notes(report)]
    if any(row.get("similarity") for row in models.values()):
        parts.append(_layers(models))
    if any(row.get("cloze") for row in models.values()):
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


def _measures(models: dict[str, Any]) -> list[Any]:
    """The rows of the table."""

    def row(name: str, probe: str, key: str, *path: str | int, form: str = ".1f") -> list[str]:
        found = [model.get(probe) for model in models.values()]
        for part in path:
            found = [one and one[part] for one in found]
        return [name, *(_cell(one, key, form) for one in found)]

    return [
        row("**copy gain**", "copy", "copy_gain", form="+.1f"),
        row("masked word found behind the same sentence", "copy", "found_with"),
        row("found without it", "copy", "found_without"),
        row("**STS-B, zero-shot**, last layer", "similarity", "spearman"),
        row("*bags of words*, Jaccard", "similarity", "spearman", "controls", "jaccard"),
        row("*bags of words*, IDF", "similarity", "spearman", "controls", "idf"),
        row("*its embedding matrix alone*", "similarity", "spearman", "controls", "input_embeddings"),
        row("*random weights*, last layer", "similarity", "spearman", "controls", "random_weights", -1),
        row("**masked accuracy**", "frequency", "accuracy"),
        *(row(f"masked accuracy, {name}", "frequency", "accuracy", name) for name in BANDS),
        row("*always the most frequent token*", "frequency", "most_frequent_token"),
        row("**BLiMP**, part of it (chance 50)", "blimp", "accuracy"),
        row("**dated cloze**", "cloze", "accuracy"),
        row("*chance*", "cloze", "chance"),
        row("*always the most frequent answer*", "cloze", "most_frequent_answer"),
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
    head = ["STS-B by layer", *(name for label in models for name in (escape(label), "*random weights*"))]
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
