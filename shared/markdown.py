"""Markdown that our pages are made of: tables, and text of unknown origin in them."""

import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

MOST_CHARACTERS = 500  # of a text on a page


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]], rule: str = "") -> str:
    """A Markdown table; cells are text that is Markdown already, or numbers: whole ones get a comma at every thousand.

    `rule` is the line under the head, which says by a colon what stands at the right. By default that are the columns
    of whole numbers.
    """
    rows = [*rows]
    if not rule:
        numeric = [bool(rows) and all(isinstance(row[i], Integral) for row in rows) for i in range(len(head))]
        rule = _line("---:" if right else "---" for right in numeric)
    return "\n".join([_line(head), rule, *(_line(map(_cell, row)) for row in rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, Integral) else str(value)


def escape(text: str, most: int = MOST_CHARACTERS) -> str:
    """Text of unknown origin on one line of Markdown, as it reads; its end is cut off after `most` characters."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[:most]} ..."
    return re.sub(r"([\\`*_{}\[\]<>#|~&$!])", r"\\\1", "".join(c if c.isprintable() else "�" for c in line))
