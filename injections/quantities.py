"""Quantities as people write them: tokens (30000, "1.5M", "30B") and shares ("0.1%"). Exact."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_tokens(value: int | str) -> int:
    """Returns a number of tokens: 30000000000, "30B", "1.5M".

    Raises:
        ValueError: when it is neither a whole number nor a number with K, M, B or T.
    """
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMBT]?)\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not a number of tokens such as 30000, '1.5M' or '30B'")
    whole, _, fraction = match[1].partition(".")
    digits, unit = int(whole + fraction), _UNITS[match[2]]
    scaled, rest = divmod(digits * unit, 10 ** len(fraction))
    if rest:
        raise ValueError(f"{value!r} is not a whole number of tokens")
    return int(scaled)


def parse_share(value: str) -> Fraction:
    """Returns a percentage as a fraction of one: "0.1%" is 1/1000.

    Raises:
        ValueError: when it is not a percentage, or lies outside 0% to 100%.
    """
    text = value.strip()
    try:
        percent = Fraction(text.removesuffix("%").strip()) if text.endswith("%") else None
    except (ValueError, ZeroDivisionError):
        percent = None
    if percent is None:
        raise ValueError(f"{value!r} is not a percentage such as '25%' or '0.1%'")
    if not 0 <= percent <= 100:
        raise ValueError(f"{value!r} lies outside 0% to 100%")
    return percent / 100
