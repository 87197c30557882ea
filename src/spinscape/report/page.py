"""Draw the page of a run: one HTML file, readable offline, that holds everything it needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import plotly.offline

from spinscape.findings import Finding
from spinscape.report import claims, markup, verdicts
from spinscape.report.masthead import header, heading, is_given
from spinscape.report.panels import Drawing, Parts
from spinscape.report.protocols import caveats_of, glossary_of, protocols_of
from spinscape.report.sections import Protocol
from spinscape.store import Run

__all__ = ["html", "write"]


def write(run: Run) -> Path:
    """Draw `run.path / "page.html"`, whole or not at all.

    Parameters
    ----------
    run : Run
        A run, opened for reading is enough. Parts that it does not hold are named on the page
        as left out.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OSError
        The directory cannot be written.
    KeyError
        A stored part lacks a variable that its figure needs.
    """
    target = Path(run.path) / "page.html"
    text = html(run).encode()
    descriptor, beside = tempfile.mkstemp(prefix=".page-", suffix=".html", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return target


def html(run: Run) -> str:
    """Compose the page of a run as one string."""
    protocols = protocols_of(run.study)
    stored = set(run.part_names())
    wanted = [name for protocol in protocols for name in protocol.parts if name in stored]
    parts = {name: run.dataset(name) for name in wanted}
    findings = list(run.findings)
    paper = claims.claims_of(run.study)
    return Template(_resource("page.html")).substitute(
        version=escape(version("spinscape")),
        title=escape(f"{heading(run.config, run.study)} – spinscape"),
        style=_resource("page.css"),
        header=header(run.config, parts, protocols, run.study),
        contents=_contents(protocols, paper),
        main="\n".join(
            [
                _claims(run.study, paper, findings),
                _summary(findings, protocols),
                *(_section(p, place, parts, findings, run) for place, p in enumerate(protocols)),
                _others(findings, protocols),
                _left_out(protocols, parts, _reasons(run.config)),
                _caveats(run.study),
                _words(run.study),
                _configuration(run.config),
            ]
        ),
        footer=_footer(),
        plotly=_plotly(),
        script=_resource("page.js"),
    )


@cache
def _resource(name: str) -> str:
    return files("spinscape.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    return plotly.offline.get_plotlyjs().replace("</script", "<\\/script")


def _contents(protocols: Sequence[Protocol], paper: Sequence[claims.Claim]) -> str:
    entries = [("claims", "Claims of the paper")] if paper else []
    entries += [("findings", "Findings"), *((p.key, p.title) for p in protocols)]
    entries += [("left-out", "Left out"), ("caveats", "Caveats"), ("words", "Words")]
    entries += [("configuration", "Configuration")]
    items = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in entries)
    return f"<ul>{items}</ul>"


def _block(key: str, title: str, inside: str, *, eyebrow: str = "") -> str:
    above = markup.paragraphs(eyebrow, style="eyebrow")
    return f'<section id="{key}">\n{above}<h2>{escape(title)}</h2>\n{inside}\n</section>'


def _claims(study: str, paper: Sequence[claims.Claim], findings: Sequence[Finding]) -> str:
    if not paper:
        return ""
    inside = markup.paragraphs(claims.RULE, style="lead") + verdicts.claimed(paper, findings)
    return _block("claims", "Claims of the paper", inside)


def _summary(findings: Sequence[Finding], protocols: Sequence[Protocol]) -> str:
    anchors = {alias: (p.key, p.title) for p in protocols for alias in (p.key, *p.aliases)}
    inside = markup.paragraphs(verdicts.tally(findings), style="lead")
    if findings:
        inside += verdicts.summary(findings, anchors)
    return _block("findings", "Findings at a glance", inside)


def _section(
    protocol: Protocol,
    place: int,
    parts: Parts,
    findings: Sequence[Finding],
    run: Run,
) -> str:
    eyebrow = f"Protocol {place}" if place else "Before the protocols"
    question = markup.paragraphs(protocol.question, style="lead")
    why, method = protocol.words(is_given(run.config), run.study)
    if not protocol.stands_in(parts):
        notice = markup.paragraphs(_absence(protocol, _reasons(run.config)), style="notice")
        inside = f"{question}{markup.paragraphs(why)}{notice}"
        return _block(protocol.key, protocol.title, inside, eyebrow=eyebrow)
    own = [f for f in findings if f.protocol in (protocol.key, *protocol.aliases)]
    pieces = [
        question,
        markup.paragraphs(why),
        *(markup.drawing(drawing) for drawing in _drawings(protocol, parts)),
        '<div class="beside">',
        _found(own),
        "<div>\n<h3>How it was measured</h3>",
        markup.paragraphs(method),
        _where(protocol, parts),
        "</div>\n</div>",
    ]
    return _block(protocol.key, protocol.title, "\n".join(pieces), eyebrow=eyebrow)


def _found(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    cards = "\n".join(verdicts.card(finding) for finding in findings)
    return f"<div>\n<h3>What was found</h3>\n{cards}\n</div>"


def _drawings(protocol: Protocol, parts: Parts) -> list[Drawing]:
    return protocol.draw({name: parts[name] for name in protocol.parts if name in parts})


def _where(protocol: Protocol, parts: Parts) -> str:
    stored = [name for name in protocol.parts if name in parts]
    names = ", ".join(f"<code>data.zarr/{escape(name)}</code>" for name in stored)
    lines = ["import xarray as xr", ""]
    for name in stored:
        variable = markup.slug(name).replace("-", "_")
        lines.append(f'{variable} = xr.open_zarr("data.zarr", group="{name}", consolidated=False)')
    lines.append(f"print({variable})")
    return (
        f"<h3>Where the data is</h3>\n<p>In the folder of this page: {names}.</p>\n"
        + markup.details("How to open it in Python", markup.code("\n".join(lines)))
    )


def _reasons(config: Mapping[str, Any]) -> dict[str, str]:
    """Read why protocols were left out, whether the run gives reasons or names only."""
    left_out = config.get("left_out", {})
    if isinstance(left_out, Mapping):
        return {str(name): str(reason) for name, reason in left_out.items()}
    return {str(name): "" for name in left_out}


def _absence(protocol: Protocol, reasons: Mapping[str, str]) -> str:
    name = _name_of(protocol, reasons)
    return f"This run does not hold it. {_because(reasons.get(name, ''))}".strip()


def _name_of(protocol: Protocol, reasons: Mapping[str, str]) -> str:
    """Name under which the reasons tell why a protocol was left out."""
    return next((k for k in (protocol.key, *protocol.aliases) if reasons.get(k)), protocol.key)


def _because(reason: str) -> str:
    return f"Reason: {reason.rstrip('.')}." if reason else ""


def _others(findings: Sequence[Finding], protocols: Sequence[Protocol]) -> str:
    known = {alias for p in protocols for alias in (p.key, *p.aliases)}
    rest = [verdicts.card(f) for f in findings if f.protocol not in known]
    return _block("other", "Other findings", "\n".join(rest)) if rest else ""


def _left_out(protocols: Sequence[Protocol], parts: Parts, reasons: Mapping[str, str]) -> str:
    missing = [p for p in protocols if not p.stands_in(parts)]
    entries = [(p.title, _absence(p, reasons)) for p in missing]
    told = {_name_of(p, reasons) for p in missing}
    entries += [
        (name.replace("_", " ").capitalize(), f"Left out. {_because(reason)}".strip())
        for name, reason in reasons.items()
        if name not in told
    ]
    if entries:
        inside = markup.pairs(entries)
    else:
        inside = markup.paragraphs("Nothing: all protocols were run.")
    return _block("left-out", "What was left out", inside)


def _caveats(study: str) -> str:
    items = "\n".join(f"<li>{escape(text)}</li>" for text in caveats_of(study))
    return _block("caveats", "What this page cannot show", f'<ul class="caveats">{items}</ul>')


def _words(study: str) -> str:
    return _block("words", "Words used here", markup.pairs(glossary_of(study)))


def _configuration(config: Mapping[str, Any]) -> str:
    words = "Everything that decides the numbers above; the same is in run.toml beside this page."
    if config.get("model"):
        words += " The network is one of your own: settings of width play no part."
    if is_given(config):
        words += " Nothing was trained: settings of training play no part either."
    inside = markup.paragraphs(words)
    listed = markup.pairs(markup.flat(config))
    return _block(
        "configuration",
        "Configuration",
        inside + markup.details("Show all", listed, style="settings"),
    )


def _footer() -> str:
    return markup.paragraphs(
        f"Drawn by spinscape {version('spinscape')}. This page is one file: it loads nothing from "
        "the network and can be kept, sent and printed."
    )
