"""Numbers as a reader wants them: three significant digits, small p-values as powers of ten.

0.00149 -> 0.00149    0.02 -> 0.0200    1234.5 -> 1234    1e-5 -> 1.00e-05
"""

from __future__ import annotations

MISSING = "–"


def number(value: float | None, signed: bool = False) -> str:
    """Returns a number with three significant digits and all before the point, or a dash."""
    if value is None:
        return MISSING
    if value == 0:
        return "0.000"
    sign = "+" if signed and value > 0 else ""
    exponent = int(f"{value:.2e}".partition("e")[2])
    if not -3 <= exponent < 5:
        return f"{sign}{value:.2e}".replace("-", "−", int(value < 0))
    return f"{sign}{value:.{max(2 - exponent, 0)}f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Returns the two ends in brackets, or a dash."""
    return MISSING if low is None or high is None else f"[{number(low)}, {number(high)}]"


def probability(value: float | None) -> str:
    """Returns a p- or q-value: two digits, as a power of ten below 0.001."""
    if value is None:
        return MISSING
    return f"{value:.1e}" if value < 1e-3 else f"{value:.2g}"


def dose(value: float) -> str:
    """Returns a dose without a needless fraction."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
