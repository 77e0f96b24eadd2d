"""The shell of every report: one HTML file that needs nothing else, readable in light, dark, narrow and in print.

Everything that comes from a run passes through :func:`text`; nothing else may escape or forget to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from gigafactory.report.figures import DARK, LIGHT, stylesheet

_CONTROLS = {code: "·" for code in [*range(32), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class Tile:
    """A headline number: what it is, the value, and a line below it."""

    label: str
    value: str
    note: str = ""


def text(raw: object) -> str:
    """Anything from outside as HTML text: escaped, control characters as dots, unpaired surrogates replaced."""
    clean = str(raw).translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
    return escape(clean, quote=True)


def page(title: str, *, badge: str, lead: str, body: Sequence[str], footer: str) -> str:
    """The whole document. title, badge, lead and footer are plain text; ``body`` holds finished HTML."""
    css = resources.files("gigafactory.report").joinpath("page.css").read_text(encoding="utf-8")
    style = f":root{{{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}{stylesheet()}{css}"
    mark = f'<span class="badge">{text(badge)}</span>' if badge else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{text(title)}{mark}</h1><p>{text(lead)}</p></header>\n"
        + "\n".join(part for part in body if part)
        + f"\n<footer>{text(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, inner: str, note: str = "") -> str:
    """A headed part of the page; ``inner`` is finished HTML. Empty when there is nothing inside."""
    return (
        f"<section><h2>{text(heading)}</h2>{f'<p>{text(note)}</p>' if note else ''}{inner}</section>" if inner else ""
    )


def tiles(items: Sequence[Tile]) -> str:
    """Headline numbers side by side."""
    cells = (
        f'<dl class="tile"><dt>{text(item.label)}</dt><dd>{text(item.value)}</dd><dd>{text(item.note)}</dd></dl>'
        for item in items
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def figure(caption: str, note: str, draw: Callable[[int], str]) -> str:
    """A chart drawn twice, for wide and for narrow windows, so that its text is never shrunk: draw(width) -> SVG."""
    wide = draw(560).replace('class="chart"', 'class="chart wide"', 1)
    narrow = draw(340).replace('class="chart"', 'class="chart narrow"', 1)
    below = f"<p>{text(note)}</p>" if note else ""
    return f"<figure><figcaption><h3>{text(caption)}</h3>{below}</figcaption>{wide}{narrow}</figure>"


def grid(figures: Sequence[str]) -> str:
    """Charts two abreast where there is room."""
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], numbers: Collection[int] = ()) -> str:
    """A table of plain values; the first cell of a row is its heading when there are no column headers.

    numbers: columns whose cells stay on one line.
    """
    if not rows:
        return ""
    head = f"<thead><tr>{''.join(f'<th>{text(cell)}</th>' for cell in headers)}</tr></thead>" if headers else ""
    lines = []
    for row in rows:
        classes = (' class="number"' if column in numbers else "" for column in range(len(row)))
        cells = [f"<td{kind}>{text(cell)}</td>" for kind, cell in zip(classes, row, strict=True)]
        if not headers:
            cells[0] = f'<th scope="row">{text(row[0])}</th>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def folded(summary: str, inner: str) -> str:
    """Finished HTML behind a line that opens it."""
    return f"<details><summary>{text(summary)}</summary>{inner}</details>"


def toml(source: str) -> str:
    """A factory file with its tables and comments set off."""
    lines = []
    for line in source.splitlines():
        kind = "h" if line.startswith("[") else "c" if line.lstrip().startswith("#") else ""
        lines.append(f'<span class="{kind}">{text(line)}</span>' if kind else text(line))
    return f"<pre>{chr(10).join(lines)}</pre>"
