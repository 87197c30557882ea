"""How numbers, intervals and names of quantities are written for a reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

import numpy as np
from numpy.typing import ArrayLike
from xarray import DataArray

__all__ = ["axis_label", "interval", "number", "percent", "plain", "quantity", "spread"]

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_DIMENSIONLESS = {"", "1", "none", "dimensionless"}


def number(value: float, digits: int = 3) -> str:
    """Write a value with so many significant digits; a missing one is a dash.

    >>> number(0.0412869), number(1234567.0), number(0.0000321), number(float("nan"))
    ('0.0413', '1.23 × 10⁶', '3.21 × 10⁻⁵', '–')
    """
    value = float(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if -4 < exponent < 6:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
        if exponent >= 4:
            text = f"{value:,.0f}"
    else:
        mantissa = f"{value / 10**exponent:.{digits - 1}f}"
        text = f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def plain(value: float) -> str:
    """Write a setting as it was given, without zeros behind it."""
    return f"{float(value):.6g}".replace("-", "−")


def percent(value: float) -> str:
    """Write a fraction as a percentage with one decimal."""
    value = float(value)
    return f"{100 * value:.1f} %".replace("-", "−") if math.isfinite(value) else "–"


def spread(values: ArrayLike, write: Callable[[float], str] = number) -> tuple[str, str]:
    """Write the median of values and the range of their middle 80 %, without those missing.

    >>> spread([1.0, 2.0, 3.0, float("nan")])
    ('2.00', '1.20 to 2.80')
    """
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return "–", "–"
    low, middle, high = np.quantile(numbers, [0.1, 0.5, 0.9])
    return write(middle), f"{write(low)} to {write(high)}"


def interval(low: float, high: float, level: float) -> str:
    """Write a confidence interval, or nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)} to {number(high)} ({100 * level:.3g} %)"


def quantity(variable: DataArray, fallback: str = "") -> str:
    """Name of a variable with its unit, as its attributes give it."""
    name = str(variable.attrs.get("long_name") or fallback or variable.name or "")
    units = str(variable.attrs.get("units", "")).strip()
    name = name[:1].upper() + name[1:]
    return name if units.lower() in _DIMENSIONLESS else f"{name} ({units})"


def axis_label(variable: DataArray, fallback: str = "") -> str:
    """Name of a variable with its unit, safe inside a plotly text (which reads markup)."""
    return escape(quantity(variable, fallback), quote=False)
