"""A report as one HTML page: Markdown rendered, pictures drawn into it, nothing fetched from anywhere.

All text is escaped. Of Markdown it knows what the reports of this folder use: headings, paragraphs, lists, tables,
fenced code, bold, italics, code, links to http(s), and `![caption](NAME)` for the pictures that it is given.
"""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

COLORS = 8  # in STYLE, for light and for dark
SHORT = 32  # characters of a cell that is not broken into lines
STYLE = """
:root{color-scheme:light dark;--page:#fbfbf9;--text:#1c1e21;--soft:#5d646d;--line:#dfe1e4;--box:#fff;--mark:#f1f3f5;
--link:#0b5cad;--c0:#0b62b8;--c1:#c2410c;--c2:#15803d;--c3:#a21caf;--c4:#a16207;--c5:#0e7490;--c6:#be123c;--c7:#4d5560}
@media(prefers-color-scheme:dark){:root{--page:#131518;--text:#e7e9ec;--soft:#a3abb5;--line:#33383f;--box:#1b1e22;
--mark:#24282d;--link:#7ab8ff;--c0:#6cb2ff;--c1:#ff9a5c;--c2:#5fd38a;--c3:#e28cf0;--c4:#e3bd55;--c5:#5cd0e6;
--c6:#ff8598;--c7:#b4bcc6}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.5rem clamp(1rem,4vw,2.5rem) 4rem}
h1{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:0 0 .8rem;overflow-wrap:anywhere}h3{font-size:1.08rem;margin:1.8rem 0 .5rem}
h4,h5,h6{font-size:1rem;margin:1.3rem 0 .4rem}
p,li{max-width:46rem;overflow-wrap:anywhere}
a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1rem 0 0;font-size:.95rem}
section{border-top:1px solid var(--line);margin-top:2.2rem;padding-top:1.8rem}
.scroll{overflow-x:auto;margin:1rem 0;border:1px solid var(--line);border-radius:.5rem;background:var(--box)}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .75rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
th{font-weight:600;background:var(--mark);vertical-align:bottom}
td:first-child,th:first-child{min-width:8rem}
.r{text-align:right}.n{white-space:nowrap}
pre{overflow-x:auto;padding:.9rem 1rem;background:var(--mark);border-radius:.5rem;font-size:.85rem;line-height:1.45}
code{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.92em}
p code,li code,td code{background:var(--mark);border-radius:.25rem;padding:.05rem .3rem;overflow-wrap:anywhere}
pre code{background:none;padding:0;font-size:1em}
figure{margin:1.2rem 0;padding:1rem;max-width:46rem;background:var(--box);border:1px solid var(--line);
border-radius:.5rem}
figure svg{display:block;width:100%;height:auto;font-size:14.5px}
@media(max-width:600px){figure svg{font-size:20px}figure{padding:.8rem}}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.6rem;overflow-wrap:anywhere}
.keys{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:0 0 .6rem;padding:0;list-style:none;font-size:.9rem}
.keys i{display:inline-block;width:.8rem;height:.8rem;border-radius:.2rem;margin-right:.4rem;vertical-align:-.05rem}
#summary .scroll{border:0;background:none}
#summary thead{display:none}
#summary tbody{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr));gap:.8rem}
#summary tr{display:flex;flex-direction:column;background:var(--box);border:1px solid var(--line);
border-radius:.5rem;padding:.8rem 1rem}
#summary td{border:0;padding:0;white-space:normal;text-align:left;overflow-wrap:anywhere}
#summary td:first-child{color:var(--soft);font-size:.9rem}
#summary td:nth-child(2){font-size:1.3rem;font-weight:650;line-height:1.35}
#summary td:nth-child(3){color:var(--soft);font-size:.88rem}
@media print{.scroll{overflow:visible}nav{display:none}}
"""


@dataclass
class Line:
    """A line of a chart. `points` are (x, y); `bands`, where there are any, (low, high) of each."""

    label: str
    points: list[tuple[float, float]]
    bands: list[tuple[float, float]] = field(default_factory=list)
    dots: bool = False


def slug(title: str) -> str:
    """An id for a heading."""
    return re.sub(r"\W+", "-", title.lower()).strip("-") or "section"


def render_page(markdown: str, pictures: dict[str, str]) -> str:
    """The page. `pictures` are those of `draw_lines`, by the names under which the Markdown shows them."""
    blocks = list(_blocks(markdown, pictures))
    title = next((text for kind, text in blocks if kind == "h1"), "Report")
    links = "".join(f'<a href="#{slug(_plain(t))}">{_inline(t)}</a>' for kind, t in blocks if kind == "h2")
    body, is_open = [], False
    for kind, text in blocks:
        if kind == "h2":
            body.append(f'{"</section>" * is_open}<section id="{slug(_plain(text))}"><h2>{_inline(text)}</h2>')
            is_open = True
        elif kind == "h1":
            body.append(f"<h1>{_inline(text)}</h1><nav>{links}</nav>")
        else:
            body.append(text if kind == "html" else f"<{kind}>{_inline(text)}</{kind}>")
    body.append("</section>" * is_open)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(_plain(title))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _blocks(markdown: str, pictures: dict[str, str]) -> list[tuple[str, str]]:
    """(kind, text): a heading h1 to h6 or p with its Markdown, or "html" with what is rendered."""
    found: list[tuple[str, str]] = []
    lines = markdown.splitlines()
    at = 0

    def take(pattern: str) -> list[str]:
        nonlocal at
        start = at
        while at < len(lines) and re.match(pattern, lines[at]):
            at += 1
        return lines[start:at]

    while at < len(lines):
        line = lines[at]
        if fence := re.match(r"(`{3,})", line):
            at += 1
            start = at
            while at < len(lines) and not re.fullmatch(re.escape(fence[1]) + r"\s*", lines[at]):
                at += 1
            found.append(("html", f"<pre><code>{html.escape(chr(10).join(lines[start:at]))}</code></pre>"))
            at += 1
        elif heading := re.match(r"(#{1,6}) (.*)", line):
            found.append((f"h{len(heading[1])}", heading[2]))
            at += 1
        elif line.startswith("|") and at + 1 < len(lines) and re.fullmatch(r"[|\s:-]+", lines[at + 1]):
            found.append(("html", _table(take(r"\|"))))
        elif re.match(r"(-|\d+\.) ", line):
            tag = "ul" if line.startswith("-") else "ol"
            items: list[str] = []
            for row in take(r"(-|\d+\.) |  +\S"):
                start_of = re.match(r"(?:-|\d+\.) (.*)", row)
                if start_of:
                    items.append(start_of[1])
                else:
                    items[-1] += " " + row.strip()
            found.append(("html", f"<{tag}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</{tag}>"))
        elif picture := re.fullmatch(r"!\[(.*)\]\((.*?)\)", line):
            if picture[2] in pictures:
                caption = f"<figcaption>{_inline(picture[1])}</figcaption>"
                found.append(("html", f"<figure>{pictures[picture[2]]}{caption}</figure>"))
            at += 1
        elif not line.strip():
            at += 1
        else:
            start = at
            at += 1
            take(r"(?!`{3}|#{1,6} |\||- |\d+\. |!\[)\s*\S")
            found.append(("p", " ".join(lines[start:at])))
    return found


def _table(lines: Sequence[str]) -> str:
    """A table of Markdown, whose second line says which columns go to the right."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:].removesuffix("|"))] for line in lines]
    right = ["r" if cell.endswith(":") else "" for cell in rows[1]]

    def cells(row: Sequence[str], tag: str) -> str:
        found = []
        for number, cell in enumerate(row):
            side = right[number] if number < len(right) else ""
            whole = "n" if tag == "td" and number and len(cell) <= SHORT else ""
            found.append(f'<{tag} class="{side} {whole}">{_inline(cell)}</{tag}>')
        return "".join(found).replace(' class=" "', "")

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows[2:])
    head = f"<thead><tr>{cells(rows[0], 'th')}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


MARKS = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|(?P<tick>`+)(?P<code>.+?)(?P=tick)(?!`)"
    r"|\*\*(?P<bold>(?:\\.|[^*\\])+)\*\*"
    r"|\*(?P<italic>(?:\\.|[^*\\])+)\*"
    r"|\[(?P<text>(?:\\.|[^\]\\])*)\]\((?P<url>https?://[^\s)]+)\)"
)


def _inline(text: str) -> str:
    """Marks within a line, and everything else escaped."""
    parts, end = [], 0
    for found in MARKS.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        end = found.end()
        if found["escaped"]:
            parts.append(html.escape(found["escaped"]))
        elif found["code"]:
            parts.append(f"<code>{html.escape(found['code'].strip())}</code>")
        elif found["bold"]:
            parts.append(f"<strong>{_inline(found['bold'])}</strong>")
        elif found["italic"]:
            parts.append(f"<em>{_inline(found['italic'])}</em>")
        else:
            parts.append(f'<a href="{html.escape(found["url"])}">{_inline(found["text"])}</a>')
    return "".join([*parts, html.escape(text[end:])])


def _plain(text: str) -> str:
    """Without marks and escapes."""
    return html.unescape(re.sub(r"<[^>]*>", "", _inline(text)))


WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 66  # margins


def draw_lines(lines: Sequence[Line], x_label: str, y_label: str, names: Sequence[str] | None = None) -> str:
    """A chart as inline SVG in the page's colours, with its legend above it. `names` are those of x = 0, 1, ..."""
    values = [p for line in lines for p in line.points]
    highs = [v for line in lines for band in line.bands for v in band] + [y for _, y in values]
    x_low, x_high = min(x for x, _ in values), max(x for x, _ in values)
    ticks = _ticks(min(highs), max(highs))
    y_low, y_high = min(ticks[0], *highs), max(ticks[-1], *highs)
    x_span, y_span = (x_high - x_low) or 1.0, (y_high - y_low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / x_span * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y_low) / y_span * (HEIGHT - TOP - BOTTOM)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))

    parts = []
    for tick in ticks:
        y = place(x_low, tick)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{tick:,.6g}</text>')
    if names is None:
        marks = [(tick, f"{tick:,.6g}") for tick in _ticks(x_low, x_high) if x_low <= tick <= x_high]
    else:
        fit = int((WIDTH - LEFT - RIGHT) / (11 * max(map(len, names)) + 14))  # at the size of letters on a phone
        step = -(-len(names) // max(1, fit))
        marks = [(float(number), names[number]) for number in range(0, len(names), step)]
    for number, (x, name) in enumerate(marks):
        across = place(x, y_low)[0]
        side = "start" if number == 0 and across < LEFT + 20 else "end" if across > WIDTH - RIGHT - 20 else "middle"
        parts.append(
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 21}" text-anchor="{side}">{html.escape(name)}</text>'
        )
    for number, line in enumerate(lines):
        color = f"var(--c{number % COLORS})"
        if line.bands:
            xs = [x for x, _ in line.points]
            edge = list(zip(xs, (low for low, _ in line.bands), strict=True))
            edge += reversed(list(zip(xs, (high for _, high in line.bands), strict=True)))
            parts.append(f'<polygon points="{path(edge)}" fill="{color}" opacity=".18"/>')
        parts.append(f'<polyline points="{path(line.points)}" fill="none" stroke="{color}" stroke-width="2.2"/>')
        if line.dots or len(line.points) == 1:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{color}"/>'
                for x, y in (place(*point) for point in line.points)
            ]
    middle_x, middle_y = (WIDTH + LEFT - RIGHT) / 2, (HEIGHT + TOP - BOTTOM) / 2
    parts.append(f'<text x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle">{html.escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(15 {middle_y}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>'
    )
    keys = "".join(
        f'<li><i style="background:var(--c{number % COLORS})"></i>{html.escape(line.label)}</li>'
        for number, line in enumerate(lines)
    )
    label = html.escape(f"{y_label} over {x_label}: {', '.join(line.label for line in lines)}")
    return (
        f'<ul class="keys">{keys}</ul><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f'fill="var(--soft)">{"".join(parts)}</svg>'
    )


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About so many round numbers that take in `low` and `high`."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
