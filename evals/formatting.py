"""Numbers as a reader wants them: three significant digits, small p-values as powers of ten."""

from __future__ import annotations

MISSING = "–"


def number(value: float | None, signed: bool = False) -> str:
    """Returns a number with three significant digits, or a dash."""
    if value is None:
        return MISSING
    sign = "+" if signed and value > 0 else ""
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e5):
        return f"{sign}{value:.2e}".replace("-", "−", int(value < 0))
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{sign}{value:.{digits}f}".replace("-", "−")


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
