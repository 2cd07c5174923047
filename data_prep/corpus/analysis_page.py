"""The page of analyse_corpus.py: its tables, with the pictures beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus.card import cell
from shared.files import write_text
from shared.markdown import markdown_table

MANY = 24  # snapshots, above which curves become one and a table has no column for each
MATRIX = 15  # snapshots, above which a matrix is a picture only


def write_tables(path: Path, analysis: dict[str, Any], pictures: Sequence[str], by: str) -> None:
    """Write the Markdown page: every table with its picture, largest things first."""
    names = list(analysis["snapshots"])
    sections = [
        f"# What is in the corpus\n\n{len(names)} snapshots (by {by}). All numbers: `analysis.json`.",
        "## Snapshots\n\n" + _snapshots(analysis),
        "## Terms\n\n" + _terms(analysis) if analysis["terms"] else "",
        *(_rises(entry) for entry in analysis["rises"]),
        "## Dates\n\n" + _dates(analysis),
        "## Domains\n\n" + _domains(analysis),
        "## Duplicates\n\n" + _duplicates(analysis),
        "## What each stage dropped\n\n" + _stages(analysis) if analysis["stages"] else "",
    ]
    for name in pictures:
        title = {"rises": "## Risers", "stages": "## What each", "lengths": "## Snapshots"}.get(
            name.removesuffix(".png"), f"## {name.removesuffix('.png').capitalize()}"
        )
        index = max(index for index, section in enumerate(sections) if section.startswith(title))
        sections[index] += f"\n\n![{name.removesuffix('.png')}]({name})"
    write_text(path, "\n\n".join(filter(None, sections)) + "\n")


def _snapshots(analysis: dict[str, Any]) -> str:
    rows = []
    for name, total in analysis["snapshots"].items():
        percentiles = analysis["lengths"][name]
        languages = sorted(analysis["languages"][name].items(), key=lambda item: (-item[1], item[0]))[:5]
        shown = ", ".join(f"{cell(language)} {count / total['documents']:.1%}" for language, count in languages)
        lengths = " / ".join(f"{percentiles[percent]:,}" for percent in ("5", "25", "50", "75", "95"))
        rows.append((cell(name), total["documents"], total["words"], lengths, shown))
    titles = ("snapshot", "documents", "words", "words in a document: 5 / 25 / 50 / 75 / 95%", "languages")
    return markdown_table(titles, rows)


def _terms(analysis: dict[str, Any]) -> str:
    terms = analysis["terms"]
    rows = []
    for name, total in analysis["snapshots"].items():
        counts = [terms[term][name] for term in terms]
        shown = [f"{c['term_documents']:,} ({c['term_documents'] / total['documents']:.2%})" for c in counts]
        rows.append((cell(name), *shown))
    return "Documents with the term, and their share.\n\n" + markdown_table(("snapshot", *map(cell, terms)), rows)


def _rises(entry: dict[str, Any]) -> str:
    def rows(kind: str) -> list[tuple[Any, ...]]:
        return [
            (
                cell(row["word"]),
                row["first"],
                row["last"],
                f"{row['first_share']:.2%}",
                f"{row['last_share']:.2%}",
                row["z"],
            )
            for row in entry[kind]
            if (row["z"] > 0) == (kind == "risers")
        ]

    first, last = cell(entry["first"]), cell(entry["last"])
    titles = ("word", f"documents of {first}", f"of {last}", "share", "share", "z")
    return (
        f"## Risers from {first} to {last}\n\nLog-odds ratio of the share of documents, with a prior; z is its size "
        f"in standard errors. Another mix of domains moves words too.\n\n{markdown_table(titles, rows('risers'))}\n\n"
        f"The greatest falls:\n\n{markdown_table(titles, rows('fallers'))}"
    )


def _dates(analysis: dict[str, Any]) -> str:
    text = "`date`: crawled, revised or published. `last_modified`: what the server said.\n\n"
    rows = [
        (kind, cell(name), facts["first"] or "", facts["median"] or "", facts["last"] or "", facts["unknown"])
        for kind, snapshots in analysis["dates"].items()
        for name, facts in snapshots.items()
        if facts["months"] or kind == "date"
    ]
    return text + markdown_table(("", "snapshot", "first", "median", "last", "documents without"), rows)


def _domains(analysis: dict[str, Any]) -> str:
    names = list(analysis["snapshots"])
    shown = names if len(names) <= MANY else []
    rows = [
        (cell(row["domain"]), sum(row["documents"].values()), *(row["documents"].get(name, 0) for name in shown))
        for row in analysis["domains"]["top"]
    ]
    text = (
        "The registered domain is approximated: two labels, or three below the commonest second-level names (.co.uk)."
        "\n\n" + markdown_table(("domain", "documents", *map(cell, shown)), rows)
    )
    known = any(value is not None for row in analysis["domains"]["correlation"]["pearson"] for value in row)
    if not known:
        return text + "\n\nThere are too few domains for a correlation."
    if 1 < len(names) <= MATRIX:
        for kind, title in (("pearson", "Pearson's"), ("spearman", "Spearman's")):
            text += f"\n\n{title} correlation of log(1 + documents), over the domains that either snapshot has:\n\n"
            text += _matrix(names, analysis["domains"]["correlation"][kind], "{:.3f}")
    return text


def _duplicates(analysis: dict[str, Any]) -> str:
    names = list(analysis["snapshots"])
    parts = []
    for kind, facts in analysis["duplicates"].items():
        rows = [
            (cell(name), documents, distinct, f"{1 - distinct / documents:.2%}" if documents else "")
            for name, documents, distinct in zip(names, facts["documents"], facts["distinct"], strict=True)
        ]
        part = f"### Same {kind}\n\n" + markdown_table(
            ("snapshot", f"documents with a {kind}", "distinct", "repeated"), rows
        )
        if not greatest_similarity(facts):
            part += f"\n\nNo two snapshots share a {kind}." if len(names) > 1 else ""
        elif len(names) <= MATRIX:
            part += f"\n\nJaccard: distinct {kind}s in both, of those in either:\n\n"
            part += _matrix(names, similarity(facts, "jaccard"), "{:.4f}")
            part += f"\n\nContainment: share of the row's {kind}s that the column has too:\n\n"
            part += _matrix(names, similarity(facts, "containment"), "{:.4f}")
        parts.append(part)
    return "\n\n".join(parts)


def similarity(facts: dict[str, Any], kind: str) -> np.ndarray:
    """Jaccard's index or the containment of each two snapshots; NaN where one has nothing."""
    shared, row, column = np.array(facts["shared"]), np.array(facts["distinct"])[:, None], np.array(facts["distinct"])
    size = row + column - shared if kind == "jaccard" else row
    return np.where((row > 0) & (column > 0), shared / np.maximum(size, 1), np.nan)


def greatest_similarity(facts: dict[str, Any]) -> float:
    """The greatest containment of one snapshot in another."""
    values = np.nan_to_num(similarity(facts, "containment"))
    np.fill_diagonal(values, 0)
    return float(values.max())


def _stages(analysis: dict[str, Any]) -> str:
    rows = []
    for step in analysis["stages"]:
        counts = step["counts"]
        rows.append((step["stage"], "kept", counts["kept"], _share(counts["kept"], counts["in"])))
        for kind in ("dropped", "bad"):
            for reason, number in sorted(counts[kind].items(), key=lambda item: (-item[1], item[0])):
                shown = f"damaged: {reason}" if kind == "bad" else reason
                rows.append((step["stage"], cell(shown), number, _share(number, counts["in"])))
    return markdown_table(("stage", "reason", "documents", "share"), rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else ""


def _matrix(names: list[str], values: Any, form: str) -> str:
    table = np.array(values, dtype=float)  # None is no number
    rows = [
        (cell(name), *("" if np.isnan(value) else form.format(value) for value in row))
        for name, row in zip(names, table, strict=True)
    ]
    return markdown_table(("", *map(cell, names)), rows)
