"""Pieces of HTML. Every string that comes from a run passes through `escape` here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from spinscape.report.panels import Drawing, Key, Panel, to_json

__all__ = ["code", "details", "drawing", "flat", "pairs", "paragraphs", "slug", "table"]


def slug(text: str) -> str:
    """Turn text into an identifier that is safe in an attribute."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")


def paragraphs(*texts: str, style: str = "") -> str:
    """One paragraph for each text that is not empty."""
    kind = f' class="{escape(style)}"' if style else ""
    return "\n".join(f"<p{kind}>{escape(text)}</p>" for text in texts if text)


def code(text: str) -> str:
    """Block of code that scrolls on its own when it is too wide."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def details(summary: str, inside: str, *, style: str = "") -> str:
    """Part that the reader opens; `inside` is HTML already."""
    kind = f' class="{escape(style)}"' if style else ""
    return f"<details{kind}><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """Table whose rows become cards on a narrow screen: each cell carries its heading."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(_row(columns, row) for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<table class="cards">{title}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _row(columns: Sequence[str], row: Sequence[str]) -> str:
    first = f'<th scope="row">{escape(row[0])}</th>'
    rest = "".join(
        f'<td data-label="{escape(column)}">{escape(cell)}</td>'
        for column, cell in zip(columns[1:], row[1:], strict=True)
    )
    return f"<tr>{first}{rest}</tr>"


def pairs(entries: Iterable[tuple[str, str]]) -> str:
    """List of terms and what they mean."""
    inside = "\n".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in entries
    )
    return f"<dl>\n{inside}\n</dl>"


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a configuration into pairs of dotted names and values."""
    entries: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            entries.extend(flat(value, f"{prefix}{name}."))
        elif isinstance(value, list | tuple):
            entries.append((f"{prefix}{name}", ", ".join(str(v) for v in value) or "–"))
        else:
            entries.append((f"{prefix}{name}", str(value) if value != "" else "–"))
    return entries


def drawing(figure: Drawing) -> str:
    """Figure of the page: its panels, caption, and the main numbers for those who cannot see it."""
    panels = "\n".join(_panel(panel) for panel in figure.panels)
    numbers = details("The numbers of this figure", table(figure.columns, figure.rows))
    columns = {1: 1, 3: 3}.get(len(figure.panels), 2)
    return (
        f'<figure id="figure-{slug(figure.key)}">\n'
        f'<div class="panels of-{columns}">\n{panels}\n</div>\n'
        f"<figcaption>{escape(figure.caption)}</figcaption>\n{numbers}\n</figure>"
    )


def _panel(panel: Panel) -> str:
    name = f"panel-{slug(panel.key)}"
    bare = panel.as_dict()
    bare["layout"] = {**bare["layout"], "showlegend": False, "height": panel.height}
    legend = "".join(_legend_entry(key) for key in panel.keys)
    keys = f'<div class="keys" role="group" aria-label="Show or hide">{legend}</div>'
    return (
        f'<div class="panel">\n<h4>{escape(panel.title)}</h4>\n'
        f'<div class="plot" id="{name}" role="img" aria-label="{escape(panel.alternative)}" '
        f'style="height:{panel.height}px"></div>\n'
        f'<script type="application/json" data-for="{name}">{to_json(bare)}</script>\n'
        f"{keys if legend else ''}\n</div>"
    )


def _legend_entry(key: Key) -> str:
    return (
        f'<button type="button" class="key" aria-pressed="true" '
        f'data-group="{escape(key.group)}">{_swatch(key)}{escape(key.name)}</button>'
    )


_DASHES = {
    "dash": "7 4",
    "dot": "2 3",
    "longdash": "10 4",
    "dashdot": "7 3 2 3",
    "longdashdot": "11 3 2 3",
    "solid": "",
}
_SHAPES = {
    "circle": '<circle cx="14" cy="7" r="4.5"/>',
    "circle-open": '<circle cx="14" cy="7" r="4" fill="none" stroke="{0}" stroke-width="1.5"/>',
    "square": '<rect x="9.5" y="2.5" width="9" height="9"/>',
    "diamond": '<path d="M14 1l6 6-6 6-6-6z"/>',
    "triangle-up": '<path d="M14 2l5.5 10h-11z"/>',
    "cross": '<path d="M12 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>',
    "star": '<path d="M14 1l1.8 4 4.2.4-3.2 2.8 1 4.3-3.8-2.3-3.8 2.3 1-4.3L8 5.4l4.2-.4z"/>',
    "band": '<rect x="2" y="1" width="24" height="12"/>',
    "bar": '<rect x="6" y="1" width="16" height="12"/>',
    "hatched bar": '<rect x="6" y="1" width="16" height="12"/>'
    '<path d="M6 9l8-8M9 13L21 1M16 13l6-6" stroke="#fff" stroke-width="1.5"/>',
    "crossed bar": '<rect x="6" y="1" width="16" height="12"/>'
    '<path d="M6 9l8-8M9 13L21 1M16 13l6-6M14 1l8 8M7 1l12 12M6 7l6 6" stroke="#fff"/>',
    "thin": '<path d="M1 7h26" stroke="{0}"/>',
}


def _swatch(key: Key) -> str:
    colour = escape(key.colour)
    if key.shape in _SHAPES:
        inside = _SHAPES[key.shape].format(colour)
    else:
        dashes = _DASHES.get(key.shape, "")
        inside = (
            f'<path d="M1 7h26" stroke="{colour}" stroke-width="3" stroke-dasharray="{dashes}"/>'
        )
    return (
        f'<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true" fill="{colour}">'
        f"{inside}</svg>"
    )
