"""The record of what a protocol found: `Finding`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from numbers import Real
from typing import Any

__all__ = ["VERDICTS", "Finding"]

VERDICTS = ("supported", "not supported", "undecided")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a protocol found: a statement, its number, its null, and the verdict by a rule.

    Numbers that do not exist are None, never NaN. A "supported" needs a value, and an
    interval or a p.

    Parameters
    ----------
    protocol : str
        The name of the protocol, as in the store.
    question, statement : str
        The question in plain words, and the answer in one sentence.
    value : float or None
        The headline number.
    low, high, level : float or None
        Its interval and confidence level: all three or none.
    null : str
        What the null is; empty if there is none.
    null_value : float or None
        The same number under the null.
    p : float or None
        p-value against the null.
    rule : str
        The rule of the verdict, stated before the number was known.
    verdict : "supported", "not supported" or "undecided"
        What the rule says.

    Raises
    ------
    ValueError
        A text that is missing, a number out of its range or not finite, or a verdict
        that the numbers cannot carry.
    TypeError
        A number that is not one.
    """

    protocol: str
    question: str
    statement: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    null: str = ""
    null_value: float | None = None
    p: float | None = None
    rule: str
    verdict: str

    def __post_init__(self) -> None:
        for name in ("protocol", "question", "statement", "rule", "null"):
            _check_text(name, getattr(self, name), required=name != "null")
        for name in ("value", "low", "high", "level", "null_value", "p"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        _check_interval(self.low, self.high, self.level)
        if self.p is not None and not 0 < self.p <= 1:
            raise ValueError(f"p must lie above 0 and at most at 1, got {self.p}")
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {VERDICTS}, got {self.verdict!r}")
        unfounded = self.value is None or (self.low is None and self.p is None)
        if self.verdict == "supported" and unfounded:
            raise ValueError("verdict 'supported' needs a value, and an interval or a p")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of strings, floats and None."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Finding:
        """Make the finding that `to_dict` took apart; ValueError on missing or unknown keys."""
        known = {field.name for field in fields(cls)}
        if set(record) != known:
            raise ValueError(
                f"not the record of a finding: missing {sorted(known - set(record))}, "
                f"unknown {sorted(set(record) - known)}"
            )
        return cls(**record)


def _check_text(name: str, text: object, *, required: bool) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}")
    if required and not text.strip():
        raise ValueError(f"{name} must not be empty: every finding states its {name}")


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name} must be a number or None, got {type(plain).__name__}")
    if not isfinite(plain):
        raise ValueError(f"{name} must be finite, got {plain}; None says that it does not exist")
    return float(plain)


def _check_interval(low: float | None, high: float | None, level: float | None) -> None:
    given = [number is not None for number in (low, high, level)]
    if any(given) and not all(given):
        raise ValueError(f"low, high, level go together, got {low}, {high}, {level}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"low must not exceed high, got {low} > {high}")
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
