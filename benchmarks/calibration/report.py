"""The table as markdown and JSON: lines of one sort are put together, the worst one is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.calibration.runs import ItemPaired
from benchmarks.calibration.table import LEVELS, Covered, NullLine, Verdict

_TESTS = """\
| null | kind | contrast | test | rows | p-values a row | P(p<=0.01) | P(p<=0.05) | P(p<=0.2) | \
at 0.05, of what can be had |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
_INTERVALS = """\
| interval | values | rows | intervals a row | coverage: lowest, median | no interval |
| --- | --- | --- | --- | --- | --- |"""
_KNOWN = """\
| interval | population | intervals | coverage | promised | no interval |
| --- | --- | --- | --- | --- | --- |"""
_WRONG = """\
| metric | pairs of clean runs | abs(z) above 1.96 | median abs(z) | largest |
| --- | --- | --- | --- | --- |"""


@dataclass(frozen=True)
class Found:
    """Everything that a run of the suite found."""

    tests: Sequence[NullLine]
    dealt: Sequence[Covered]
    known: Sequence[Covered]
    wrong: Sequence[ItemPaired]
    verdicts: Sequence[Verdict]


def as_json(found: Found) -> str:
    """Returns all lines, one by one."""
    parts: dict[str, Any] = {
        name: [asdict(line) for line in getattr(found, name)]
        for name in ("tests", "dealt", "known", "wrong", "verdicts")
    }
    return json.dumps(parts, indent=1, default=float) + "\n"  # some counts are numpy's


def as_markdown(found: Found) -> str:
    """Returns the tables."""
    parts = ["## Tests under a true null", _TESTS, *_test_rows(found.tests)]
    parts += ["", "## Intervals where arms were dealt anew", _INTERVALS, *_dealt_rows(found.dealt)]
    parts += ["", "## Intervals where the truth is known", _KNOWN, *_known_rows(found.known)]
    parts += ["", "## Two clean runs, item by item: the wrong test", _WRONG]
    parts += [
        f"| {w.name} | {w.n_pairs} | {w.beyond} | {w.median:.1f} | {w.largest:.1f} |"
        for w in found.wrong
    ]
    parts += ["", "## Out of line", *_verdict_rows(found.verdicts)]
    return "\n".join(parts) + "\n"


def _test_rows(tests: Sequence[NullLine]) -> Iterator[str]:
    groups: dict[tuple[str, str, str, str], list[NullLine]] = {}
    for line in tests:
        key = (line.source, line.kind, line.contrast, _sort(line))
        groups.setdefault(key, []).append(line)
    for key, lines in sorted(groups.items()):
        shares = np.array([line.shares for line in lines])
        cells = [_span(shares[:, at]) for at in range(len(LEVELS))]
        kept = [line.shares[1] / line.attainable[1] for line in lines if line.attainable[1]]
        last = f"{_span(np.array(kept), 2)} ({len(kept)} rows)" if kept else "nothing"
        n = sorted({line.n for line in lines})
        sizes = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
        yield f"| {' | '.join(key)} | {len(lines)} | {sizes} | {' | '.join(cells)} | {last} |"


def _sort(line: NullLine) -> str:
    """Returns the sort of test: by ranks, of a difference, or the scorer's own."""
    if line.source != "arms dealt anew":
        return line.name.split(" ", 1)[-1].split(" (")[0].split(",")[-1].strip()
    return "ranks" if " auc" in line.name else "difference"


def _span(values: np.ndarray[Any, np.dtype[np.float64]], digits: int = 3) -> str:
    low, high = (f"{value:.{digits}f}" for value in (float(values.min()), float(values.max())))
    return low if low == high else f"{low} to {high}"


def _dealt_rows(lines: Sequence[Covered]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Covered]] = {}
    for line in lines:
        groups.setdefault((line.method, line.name.split(" ", 1)[0]), []).append(line)
    for key, of_group in sorted(groups.items()):
        shares = [line.share for line in of_group]
        n = [line.n for line in of_group]
        sizes = f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
        coverage = f"{min(shares):.3f}, {float(np.median(shares)):.3f}"
        missing = sum(line.missing for line in of_group)
        yield f"| {' | '.join(key)} | {len(of_group)} | {sizes} | {coverage} | {missing} |"


def _known_rows(lines: Sequence[Covered]) -> Iterator[str]:
    for line in lines:
        yield (
            f"| {line.method} | {line.name} | {line.n} | {line.share:.3f} | {line.least} "
            f"| {line.missing} |"
        )


def _verdict_rows(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return ["Nothing."]
    return [f"- {v.what}: {v.seen} (p after Holm {v.holm_p:.2g})" for v in verdicts]
