"""The record of a claim that a paper makes, and the verdict on it: `Claim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spinscape.findings import Finding

__all__ = ["Claim"]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper's abstract, in our words."""

    key: str
    text: str
    known: str
    """What is known of how the paper tested it."""
    ours: str
    """How it is tested here."""
    deciding: tuple[str, ...]
    """Questions of the findings on which the verdict rests."""
    beside: tuple[str, ...] = ()
    """Questions of further findings that a reader should see."""
    stems: tuple[str, ...] = ()
    """Beginnings of further such questions, which end with what a run chose: a temperature."""

    def found(self, findings: Sequence[Finding]) -> list[Finding]:
        """Findings that bear on the claim, the deciding ones first."""
        asked = (*self.deciding, *self.beside)
        named = sorted(
            (finding for finding in findings if finding.question in asked),
            key=lambda finding: asked.index(finding.question),
        )
        return named + [finding for finding in findings if self._begins(finding.question)]

    def _begins(self, question: str) -> bool:
        asked = (*self.deciding, *self.beside)
        return question not in asked and question.startswith(self.stems)

    def verdict(self, findings: Sequence[Finding]) -> str:
        """What `claims.RULE` says of the claim."""
        found = [finding for finding in findings if finding.question in self.deciding]
        answered = {finding.question for finding in found}
        verdicts = {finding.verdict for finding in found}
        if "not supported" in verdicts:
            return "not supported"
        if verdicts == {"supported"} and answered == set(self.deciding):
            return "supported"
        return "undecided"
