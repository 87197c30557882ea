"""Findings as HTML: the table at the top, and one card each where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spinscape.findings import Finding
from spinscape.report import markup
from spinscape.report.claims import Claim
from spinscape.report.wording import interval, number

__all__ = ["badge", "card", "claimed", "summary", "tally"]

_MARKS = {"supported": "✓", "not supported": "✕", "undecided": "?"}


def badge(verdict: str) -> str:
    """Verdict as a word with a mark and an outline, so that colour is only a help."""
    kind = verdict.replace(" ", "-") if verdict in _MARKS else "undecided"
    mark = _MARKS.get(verdict, "?")
    return (
        f'<span class="verdict {kind}"><span aria-hidden="true">{mark}</span> '
        f"{escape(verdict)}</span>"
    )


def tally(findings: Sequence[Finding]) -> str:
    """How many findings got which verdict, as a sentence."""
    if not findings:
        return "This run holds no findings yet."
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in _MARKS}
    words = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    noun = "finding" if len(findings) == 1 else "findings"
    return f"{len(findings)} {noun}: {', '.join(words)}."


def summary(findings: Sequence[Finding], anchors: dict[str, tuple[str, str]]) -> str:
    """Table of all findings; `anchors` gives each protocol's anchor and title."""
    rows = "\n".join(_summary_row(finding, anchors) for finding in findings)
    heads = ("Protocol", "Finding", "Value and interval", "Under the null", "Verdict")
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<table class="cards findings"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table>"
    )


def claimed(claims: Sequence[Claim], findings: Sequence[Finding]) -> str:
    """One card a claim: what it says, what was found of it, and how the methods differ."""
    return "\n".join(
        _claim(claim, claim.found(findings), claim.verdict(findings)) for claim in claims
    )


def _claim(claim: Claim, found: Sequence[Finding], verdict: str) -> str:
    deciding = [finding for finding in found if finding.question in claim.deciding]
    beside = [finding for finding in found if finding.question not in claim.deciding]
    more = ""
    if beside:
        noun = "finding" if len(beside) == 1 else "findings"
        more = markup.details(f"Beside it: {len(beside)} {noun}", _evidence(beside))
    return (
        f'<article class="finding">\n<h3>{escape(claim.text)} {badge(verdict)}</h3>\n'
        f"<p>The verdict rests on:</p>\n{_evidence(deciding)}\n"
        f"<p><b>Known of the paper:</b> {escape(claim.known)} "
        f"<b>Ours:</b> {escape(claim.ours)}</p>\n{more}</article>"
    )


def _evidence(findings: Sequence[Finding]) -> str:
    """Findings as a list: question, verdict, statement, value, null, and the rule."""
    items = "\n".join(
        f"<li><p><b>{escape(finding.question)}</b> {badge(finding.verdict)}</p>\n"
        f"{markup.paragraphs(finding.statement)}\n{_rows(_measured(finding))}\n"
        f"{markup.details('Rule, fixed beforehand', markup.paragraphs(finding.rule))}</li>"
        for finding in findings
    )
    return f'<ul class="evidence">\n{items}\n</ul>'


def _summary_row(finding: Finding, anchors: dict[str, tuple[str, str]]) -> str:
    anchor, title = anchors.get(finding.protocol, ("other", finding.protocol))
    return (
        f'<tr><th scope="row"><a href="#{escape(anchor)}">{escape(title)}</a></th>'
        f'<td data-label="Finding">{escape(finding.statement)}</td>'
        f'<td data-label="Value" class="figures">{_value(finding)}</td>'
        f'<td data-label="Null" class="figures">{_optional(finding.null_value)}</td>'
        f'<td data-label="Verdict">{badge(finding.verdict)}</td></tr>'
    )


def _optional(value: float | None) -> str:
    return "–" if value is None else escape(number(value))


def _value(finding: Finding) -> str:
    text = f"<strong>{_optional(finding.value)}</strong>"
    spread = _interval(finding)
    return f"{text} <span>{escape(spread)}</span>" if spread else text


def _interval(finding: Finding) -> str:
    if finding.low is None or finding.high is None or finding.level is None:
        return ""
    return interval(finding.low, finding.high, finding.level)


def card(finding: Finding) -> str:
    """One finding with everything that its verdict rests on."""
    rows = [*_measured(finding), ("Rule, fixed beforehand", escape(finding.rule))]
    return (
        f'<article class="finding">\n<p class="question">{escape(finding.question)}</p>\n'
        f'<p class="statement">{escape(finding.statement)}</p>\n<p>{badge(finding.verdict)}</p>\n'
        f"{_strip(finding)}\n{_rows(rows)}\n</article>"
    )


def _measured(finding: Finding) -> list[tuple[str, str]]:
    """Value, null and p-value, those that there are, as HTML."""
    rows = [("Value", _value(finding))]
    if finding.null:
        rows.append(("Null", escape(finding.null)))
    if finding.null_value is not None:
        rows.append(("Value under it", escape(number(finding.null_value))))
    if finding.p is not None:
        rows.append(("p-value", escape(number(finding.p, 2))))
    return rows


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    entries = "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in rows)
    return f"<dl>{entries}</dl>"


def _strip(finding: Finding) -> str:
    """Interval and null on one line, to scale; the numbers stand beside it as text."""
    numbers = [finding.value, finding.low, finding.high, finding.null_value]
    known = [value for value in numbers if value is not None]
    if finding.value is None or len(known) < 2 or min(known) == max(known):
        return ""
    low, high = min(known), max(known)

    def at(value: float) -> float:
        return 5 + 90 * (value - low) / (high - low)

    marks = ['<line class="scale" x1="0" x2="100%" y1="12" y2="12"/>']
    if finding.low is not None and finding.high is not None:
        marks.append(
            f'<line class="range" x1="{at(finding.low):.2f}%" x2="{at(finding.high):.2f}%" '
            'y1="12" y2="12"/>'
        )
    if finding.null_value is not None:
        x = at(finding.null_value)
        marks.append(f'<line class="null" x1="{x:.2f}%" x2="{x:.2f}%" y1="2" y2="22"/>')
        anchor = "start" if x < 15 else "end" if x > 85 else "middle"
        marks.append(f'<text x="{x:.2f}%" y="34" text-anchor="{anchor}">null</text>')
    marks.append(f'<circle class="value" cx="{at(finding.value):.2f}%" cy="12" r="5"/>')
    return f'<svg class="strip" aria-hidden="true" width="100%" height="38">{"".join(marks)}</svg>'
