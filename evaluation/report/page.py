"""A report as one HTML page: Markdown rendered, pictures drawn into it, nothing fetched from anywhere.

markdown-it-py renders the Markdown; page.html and chart.html beside this file are the page and its charts, filled by
jinja2. Both escape all text: HTML in Markdown is shown as it is written, and links lead to http(s) alone.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

COLORS = 8  # in page.html, for light and for dark
SHORT = 32  # characters of a cell that is not broken into lines
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass
class Line:
    """A line of a chart. `points` are (x, y); `bands`, where there are any, (low, high) of each."""

    label: str
    points: list[tuple[float, float]]
    bands: list[tuple[float, float]] = field(default_factory=list)
    dots: bool = False


def render_page(markdown: str, pictures: dict[str, Markup]) -> str:
    """The page. `pictures` are those of `draw_lines`, by the names under which the Markdown shows them; a picture of
    another name is left out."""
    parser = make_parser(pictures)
    tokens = parser.parse(markdown)
    parts: list[list[Token]] = [[]]  # what is above the first heading of level 2, then a part for each
    title = "Report"
    for token, after in zip(tokens, [*tokens[1:], Token("", "", 0)], strict=True):
        is_heading = token.type == "heading_open" and token.level == 0
        if is_heading and token.tag == "h2":
            parts.append([])
        elif is_heading and token.tag == "h1":
            title = _plain(after)
        elif token.type == "td_open" and len(after.content) <= SHORT:
            token.attrSet("class", "short")
        parts[-1].append(token)
    head, *bodies = (Markup(parser.renderer.render(part, parser.options, {})) for part in parts)
    titles = [_plain(part[1]) for part in parts[1:]]
    sections = [{"id": slug(t), "title": t, "body": body} for t, body in zip(titles, bodies, strict=True)]
    return TEMPLATES.get_template("page.html").render(title=title, head=head, sections=sections)


def make_parser(pictures: dict[str, Markup]) -> MarkdownIt:
    """CommonMark without HTML, with tables that scroll, and pictures as figures in the place of their paragraphs."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.validateLink = lambda url: bool(re.match(r"https?://|[\w.-]+\.png$", url))

    def figure(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        if (picture := pictures.get(str(tokens[at].attrs["src"]))) is None:
            return ""
        caption = renderer.renderInline(tokens[at].children or [], options, env)
        return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>\n"

    def unwrap(state: Any) -> None:
        for opening, inline, closing in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
            if opening.type == "paragraph_open" and all(child.type == "image" for child in inline.children):
                opening.hidden = closing.hidden = True

    parser.core.ruler.push("unwrap", unwrap)
    parser.add_render_rule("image", figure)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _plain(inline: Token) -> str:
    """The text of a heading without marks."""
    return "".join(child.content for child in inline.children or [])


def slug(title: str) -> str:
    """An id for a heading."""
    return re.sub(r"\W+", "-", title.lower()).strip("-") or "section"


WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 546, 12, 264  # the edges of the chart within


def draw_lines(lines: Sequence[Line], x_label: str, y_label: str, names: Sequence[str] | None = None) -> Markup:
    """A chart as inline SVG in the page's colours, with its legend above it. `names` are those of x = 0, 1, ..."""
    values = [point for line in lines for point in line.points]
    highs = [v for line in lines for band in line.bands for v in band] + [y for _, y in values]
    x_low, x_high = min(x for x, _ in values), max(x for x, _ in values)
    ticks = _ticks(min(highs), max(highs))
    y_low, y_high = min(ticks[0], *highs), max(ticks[-1], *highs)
    x_span, y_span = (x_high - x_low) or 1.0, (y_high - y_low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / x_span * (RIGHT - LEFT)
        return round(across, 1), round(BOTTOM - (y - y_low) / y_span * (BOTTOM - TOP), 1)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))

    def band(line: Line) -> str:
        edges = [[(x, ends[i]) for (x, _), ends in zip(line.points, line.bands, strict=True)] for i in (0, 1)]
        return path([*edges[0], *reversed(edges[1])])

    if names is None:
        marks = [(tick, f"{tick:,.6g}") for tick in _ticks(x_low, x_high) if x_low <= tick <= x_high]
    else:
        fit = int((RIGHT - LEFT) / (11 * max(map(len, names)) + 14))  # at the size of letters on a phone
        marks = [*enumerate(names)][:: math.ceil(len(names) / max(1, fit))]
    drawn = [
        {
            "label": line.label,
            "color": f"var(--c{number % COLORS})",
            "path": path(line.points),
            "band": band(line) if line.bands else "",
            "dots": [place(*point) for point in line.points] if line.dots or len(line.points) == 1 else [],
        }
        for number, line in enumerate(lines)
    ]
    page = TEMPLATES.get_template("chart.html").render(
        {"lines": drawn, "x_label": x_label, "y_label": y_label, "width": WIDTH, "height": HEIGHT},
        rows=[(place(x_low, tick)[1], f"{tick:,.6g}") for tick in ticks],
        columns=[(place(x, y_low)[0], name) for x, name in marks],
        **{"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    )
    return Markup(page)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that take in `low` and `high`."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
