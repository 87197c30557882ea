"""The record of a section of the page: `Protocol`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spinscape.report.panels import Drawing, Parts

__all__ = ["Protocol", "drawn"]


@dataclass(frozen=True)
class Protocol:
    """One section of the page."""

    key: str
    """Its anchor, and its name in a run's list of what was left out."""
    title: str
    question: str
    why: str
    """What a reader without a physics degree needs in order to care and to follow."""
    method: str
    """A few sentences, true of every run that trained its networks itself."""
    drawings: tuple[tuple[tuple[str, ...], Callable[[Parts], list[Drawing]]], ...]
    """Functions that draw, each with the parts of which it needs at least one."""
    aliases: tuple[str, ...]
    """What findings may call this protocol."""
    given_why: str = ""
    """What stands for `why` where the networks were trained elsewhere; empty: the same."""
    given_method: str = ""
    """Likewise for `method`."""
    further: str = ""
    """What a study of a paper does beyond `explore`."""
    studies: tuple[str, ...] = ("explore", "liao2024")
    """Those whose page has this section."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names in the store, in the order in which they are drawn."""
        return tuple(name for needed, _ in self.drawings for name in needed)

    def stands_in(self, parts: Parts) -> bool:
        """Whether a run holds any of it."""
        return any(name in parts for name in self.parts)

    def draw(self, parts: Parts) -> list[Drawing]:
        """Draw whatever is there."""
        return [
            d
            for needed, draw in self.drawings
            if any(name in parts for name in needed)
            for d in draw(parts)
        ]

    def words(self, given: bool, study: str) -> tuple[str, str]:
        """Why and how, for networks that were given or trained here."""
        if given:
            return self.given_why or self.why, self.given_method or self.method
        beyond = f" {self.further}" if self.further and study != "explore" else ""
        return self.why, f"{self.method}{beyond}"


def drawn(
    draw: Callable[[Parts], list[Drawing]], *needed: str
) -> tuple[tuple[str, ...], Callable[[Parts], list[Drawing]]]:
    """A function that draws, after the names of the parts of which it needs at least one."""
    return needed, draw
