"""The tables and pictures of analyse_corpus.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.corpus.card import cell, table
from data_prep.corpus.counts import bin_start
from shared.files import atomic_file

MANY = 24  # snapshots, above which curves become one and a table has no column for each
MATRIX = 15  # snapshots, above which a matrix is a picture only
SHOWN_REASONS = 12


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
    with atomic_file(path) as temporary:
        temporary.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")


def _snapshots(analysis: dict[str, Any]) -> str:
    rows = []
    for name, total in analysis["snapshots"].items():
        percentiles = analysis["lengths"][name]
        languages = sorted(analysis["languages"][name].items(), key=lambda item: (-item[1], item[0]))[:5]
        shown = ", ".join(f"{cell(language)} {count / total['documents']:.1%}" for language, count in languages)
        lengths = " / ".join(f"{percentiles[percent]:,}" for percent in ("5", "25", "50", "75", "95"))
        rows.append((cell(name), total["documents"], total["words"], lengths, shown))
    titles = ("snapshot", "documents", "words", "words in a document: 5 / 25 / 50 / 75 / 95%", "languages")
    return table(titles, rows)


def _terms(analysis: dict[str, Any]) -> str:
    terms = analysis["terms"]
    rows = []
    for name, total in analysis["snapshots"].items():
        counts = [terms[term][name] for term in terms]
        shown = [f"{c['term_documents']:,} ({c['term_documents'] / total['documents']:.2%})" for c in counts]
        rows.append((cell(name), *shown))
    return "Documents with the term, and their share.\n\n" + table(("snapshot", *map(cell, terms)), rows)


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
        f"in standard errors. Another mix of domains moves words too.\n\n{table(titles, rows('risers'))}\n\n"
        f"The greatest falls:\n\n{table(titles, rows('fallers'))}"
    )


def _dates(analysis: dict[str, Any]) -> str:
    text = "`date`: crawled, revised or published. `last_modified`: what the server said.\n\n"
    rows = [
        (kind, cell(name), facts["first"] or "", facts["median"] or "", facts["last"] or "", facts["unknown"])
        for kind, snapshots in analysis["dates"].items()
        for name, facts in snapshots.items()
        if facts["months"] or kind == "date"
    ]
    return text + table(("", "snapshot", "first", "median", "last", "documents without"), rows)


def _domains(analysis: dict[str, Any]) -> str:
    names = list(analysis["snapshots"])
    shown = names if len(names) <= MANY else []
    rows = [
        (cell(row["domain"]), sum(row["documents"].values()), *(row["documents"].get(name, 0) for name in shown))
        for row in analysis["domains"]["top"]
    ]
    text = (
        "The registered domain is approximated: two labels, or three below the commonest second-level names (.co.uk)."
        "\n\n" + table(("domain", "documents", *map(cell, shown)), rows)
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
        part = f"### Same {kind}\n\n" + table(("snapshot", f"documents with a {kind}", "distinct", "repeated"), rows)
        if not _greatest(facts):
            part += f"\n\nNo two snapshots share a {kind}." if len(names) > 1 else ""
        elif len(names) <= MATRIX:
            part += f"\n\nJaccard: distinct {kind}s in both, of those in either:\n\n"
            part += _matrix(names, similarity(facts, "jaccard"), "{:.4f}")
            part += f"\n\nContainment: share of the row's {kind}s that the column has too:\n\n"
            part += _matrix(names, similarity(facts, "containment"), "{:.4f}")
        parts.append(part)
    return "\n\n".join(parts)


def similarity(facts: dict[str, Any], kind: str) -> list[list[float | None]]:
    """Jaccard's index or the containment of each two snapshots; None where one has nothing."""
    shared, distinct = facts["shared"], facts["distinct"]
    return [
        [
            (shared[i][j] / (distinct[i] + distinct[j] - shared[i][j] if kind == "jaccard" else distinct[i]))
            if distinct[i] and distinct[j]
            else None
            for j in range(len(distinct))
        ]
        for i in range(len(distinct))
    ]


def _greatest(facts: dict[str, Any]) -> float:
    """The greatest containment of one snapshot in another."""
    values = similarity(facts, "containment")
    return max((v or 0.0 for i, row in enumerate(values) for j, v in enumerate(row) if i != j), default=0.0)


def _stages(analysis: dict[str, Any]) -> str:
    rows = []
    for step in analysis["stages"]:
        counts = step["counts"]
        rows.append((step["stage"], "kept", counts["kept"], _share(counts["kept"], counts["in"])))
        for kind in ("dropped", "bad"):
            for reason, number in sorted(counts[kind].items(), key=lambda item: (-item[1], item[0])):
                shown = f"damaged: {reason}" if kind == "bad" else reason
                rows.append((step["stage"], cell(shown), number, _share(number, counts["in"])))
    return table(("stage", "reason", "documents", "share"), rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else ""


def _matrix(names: list[str], values: list[list[float | None]], form: str) -> str:
    rows = [
        (cell(name), *("" if value is None else form.format(value) for value in row))
        for name, row in zip(names, values, strict=True)
    ]
    return table(("", *map(cell, names)), rows)


def draw_pictures(folder: Path, analysis: dict[str, Any]) -> list[str]:
    """Draw each table that has something to show; returns the names of the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    for name, draw in (
        ("terms", draw_terms),
        ("rises", draw_rises),
        ("dates", draw_dates),
        ("domains", draw_domains),
        ("duplicates", draw_duplicates),
        ("lengths", draw_lengths),
        ("stages", draw_stages),
    ):
        with pyplot.rc_context({"text.parse_math": False, "font.size": 9}):  # a term may hold a dollar sign
            figure = draw(pyplot, analysis)
        if figure is not None:
            with atomic_file(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, dpi=130)
            pyplot.close(figure)
            drawn.append(f"{name}.png")
    return drawn


def draw_terms(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """The share of documents with each term, over snapshots."""
    if not analysis["terms"]:
        return None
    totals = analysis["snapshots"]
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    for term, counts in analysis["terms"].items():
        shares = [100 * counts[name]["term_documents"] / total["documents"] for name, total in totals.items()]
        axes.plot(range(len(totals)), shares, "o-", markersize=4, label=term)
    _name_ticks(axes, list(totals))
    axes.set(ylabel="% of documents with the term", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_rises(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """The greatest risers and fallers of each pair of snapshots."""
    entries = [entry for entry in analysis["rises"] if entry["risers"]][:3]
    if not entries:
        return None
    figure, grid = pyplot.subplots(1, len(entries), figsize=(6 * len(entries), 7), layout="constrained", squeeze=False)
    for axes, entry in zip(grid[0], entries, strict=True):
        rows = [row for row in entry["risers"][:25] if row["z"] > 0][::-1]
        fallers = [row for row in entry["fallers"][:15] if row["z"] < 0]
        rows = fallers[::-1] + rows if len(rows) < 25 else fallers[:15] + rows
        rows.sort(key=lambda row: row["z"])
        axes.barh(
            range(len(rows)),
            [row["z"] for row in rows],
            color=["#c44e52" if row["z"] < 0 else "#4c72b0" for row in rows],
        )
        axes.set_yticks(range(len(rows)), [row["word"] for row in rows])
        axes.set(
            title=f"{entry['first']} to {entry['last']}",
            xlabel="z of the log-odds ratio",
            ylim=(-0.6, len(rows) - 0.4),
        )
        axes.grid(axis="x", alpha=0.3)
    return figure


def draw_dates(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """Documents by month or year of their dates."""
    kinds = {kind: facts for kind, facts in analysis["dates"].items() if any(f["months"] for f in facts.values())}
    if not kinds:
        return None
    figure, grid = pyplot.subplots(len(kinds), 1, figsize=(9, 3.5 * len(kinds)), layout="constrained", squeeze=False)
    for axes, (kind, facts) in zip(grid[:, 0], kinds.items(), strict=True):
        months = _all_months(sorted({month for fact in facts.values() for month in fact["months"]}))
        groups = {name: fact["months"] for name, fact in facts.items() if fact["months"]}
        if len(months) > 60 or len({len(month) for month in months}) > 1:  # a year alone has no place among months
            years = sorted({int(month[:4]) for month in months})
            months = [str(year) for year in range(years[0], years[-1] + 1)]
            groups = {name: _by_year(counts) for name, counts in groups.items()}
        if len(groups) > MANY // 2:
            groups = {f"all {len(groups)} snapshots": _sum(groups.values())}
        bottom = [0] * len(months)
        for name, counts in groups.items():
            heights = [counts.get(month, 0) for month in months]
            colour = f"C{list(facts).index(name)}" if name in facts else None  # the same in both pictures
            axes.bar(range(len(months)), heights, bottom=bottom, label=name, width=0.9, color=colour)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        _name_ticks(axes, months)
        axes.set(title=kind, ylabel="documents")
        axes.legend(fontsize=7)
    return figure


def draw_domains(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """The largest domains, and the correlation of their counts between snapshots."""
    top = analysis["domains"]["top"][:25][::-1]
    if not top:
        return None
    names = list(analysis["snapshots"])
    correlation = analysis["domains"]["correlation"]["pearson"]
    both = len(names) > 1 and any(value is not None for row in correlation for value in row)
    size = (12, 5.5) if both else (7, 1.5 + 0.17 * len(top))
    figure, axes = pyplot.subplots(1, 1 + both, figsize=size, layout="constrained", squeeze=False)
    axes[0][0].barh([row["domain"][:40] for row in top], [sum(row["documents"].values()) for row in top])
    axes[0][0].set(xlabel="documents", title="largest domains", xscale="log")
    if both:
        _heat(axes[0][1], names, correlation, "Pearson, log(1 + documents) of domains", -1, 1)
    return figure


def draw_duplicates(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """Which share of a snapshot's URLs and texts another snapshot has too."""
    names = list(analysis["snapshots"])
    shown = {kind: facts for kind, facts in analysis["duplicates"].items() if _greatest(facts)}
    if not shown:
        return None
    figure, grid = pyplot.subplots(1, len(shown), figsize=(6 * len(shown), 5), layout="constrained", squeeze=False)
    for axes, (kind, facts) in zip(grid[0], shown.items(), strict=True):
        values = similarity(facts, "containment")
        for index in range(len(names)):
            values[index][index] = None  # always 1: it would take all the colour
        _heat(axes, names, values, f"share of the row's {kind}s in the column", 0, _greatest(facts))
    return figure


def draw_lengths(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """How long documents are, in words."""
    histograms = analysis["length_histogram"]
    if len(histograms) > MANY // 2:
        histograms = {f"all {len(histograms)} snapshots": _sum(histograms.values())}
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    for name, counts in histograms.items():
        total = sum(counts.values())
        bins: dict[int, int] = {}  # three of the fine bins together, or short documents would look like a comb
        for key, count in counts.items():
            bins[int(key) // 3] = bins.get(int(key) // 3, 0) + count
        numbers = range(min(bins), max(bins) + 1)
        axes.plot(
            [bin_start(3 * number) + 1 for number in numbers],
            [100 * bins.get(number, 0) / total for number in numbers],
            label=name,
            drawstyle="steps-post",
        )
    axes.set(xscale="log", xlabel="words in a document (plus one)", ylabel="% of documents", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def draw_stages(pyplot: Any, analysis: dict[str, Any]) -> Any:
    """What each stage kept, and why it dropped the rest."""
    stages = [step for step in analysis["stages"] if step["counts"]["in"]]
    if not stages:
        return None
    totals: dict[str, int] = {}
    for step in stages:
        for reason, count in (*step["counts"]["dropped"].items(), *step["counts"]["bad"].items()):
            totals[reason] = totals.get(reason, 0) + count
    reasons = sorted(totals, key=lambda reason: (-totals[reason], reason))[:SHOWN_REASONS]
    figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.6 * len(stages)), layout="constrained")
    labels = [f"{number + 1}. {step['stage']}" for number, step in enumerate(stages)]
    left = [0.0] * len(stages)
    colours = [
        "#55a868",
        *[c for i, c in enumerate(pyplot.cm.tab20.colors) if i not in (4, 5)][: len(reasons)],
        "#bbbbbb",
    ]
    for name, colour in zip(["kept", *reasons, "other reasons"], colours, strict=True):
        widths = []
        for step in stages:
            counts = step["counts"]
            dropped = {**counts["dropped"], **counts["bad"]}
            if name == "kept":
                value = counts["kept"]
            elif name == "other reasons":
                value = sum(count for reason, count in dropped.items() if reason not in reasons)
            else:
                value = dropped.get(name, 0)
            widths.append(100 * value / counts["in"])
        if any(widths):
            axes.barh(labels, widths, left=left, color=colour, label=name[:50])
        left = [low + width for low, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="% of the documents that came in", xlim=(0, 100))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _heat(
    axes: Any, names: list[str], values: list[list[float | None]], title: str, least: float, most: float
) -> None:
    shown = [[float("nan") if value is None else value for value in row] for row in values]
    image = axes.imshow(shown, vmin=least, vmax=most, cmap="viridis" if least == 0 else "RdBu")
    axes.set_title(title)
    _name_ticks(axes, names)
    axes.set_yticks(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    if len(names) <= MANY // 2:
        for y, row in enumerate(shown):
            for x, value in enumerate(row):
                if value == value:
                    dark = value < 0.6 * most if least == 0 else abs(value) > 0.6
                    axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=7, color="w" if dark else "k")


def _name_ticks(axes: Any, names: list[str]) -> None:
    step = -(-len(names) // 30)
    places = range(0, len(names), step)
    turned = len(names) > 8 or max(map(len, names)) > 8
    axes.set_xticks(
        places,
        [names[place][:24] for place in places],
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
    )


def _all_months(months: list[str]) -> list[str]:
    """The months from the first to the last, those in between too; as they are if some are years."""
    if {len(month) for month in months} != {7}:
        return months
    first, last = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (months[0], months[-1]))
    return [f"{number // 12:04d}-{number % 12 + 1:02d}" for number in range(first, last + 1)]


def _by_year(months: dict[str, int]) -> dict[str, int]:
    years: dict[str, int] = {}
    for month, count in months.items():
        years[month[:4]] = years.get(month[:4], 0) + count
    return years


def _sum(tables: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in tables:
        for key, count in counts.items():
            total[key] = total.get(key, 0) + count
    return total
