"""The scores of an experiment's items at the last checkpoint, as the report's pictures need them.

They are read from those samples of a results folder that results.json names; an eval that was
interrupted may have left others beside them. A report without samples still works: pictures of
items are left out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixctl.evals.rows import Row
from mixctl.evals.stats.arms import FloatArray, TwoArms, two_arms

Strings = npt.NDArray[np.str_]
MISSING = (
    "the scores of single items (samples/*.parquet) are missing or of an older mixctl: no ROC "
    "curves, no histograms of scores; `mixctl eval` makes them again"
)
_KEYS = {"experiment", "item", "arm", "stratum", "copies", "seen", "checkpoint", "step", "model"}


@dataclass(frozen=True)
class ItemScores:
    """Scores of one experiment; arrays have an entry an item, sorted by item.

    Attributes:
        arms: str (n,).
        strata: str (n,).
        is_holdout: bool (n,), items that are never placed.
        run: metric -> float64 (n,), NaN where an item has none.
        twin: the same, the mean of the twins of that step; None without a twin.
        n_twins: how many that are.
    """

    arms: Strings
    strata: Strings
    is_holdout: npt.NDArray[np.bool_]
    run: Mapping[str, FloatArray]
    twin: Mapping[str, FloatArray] | None
    n_twins: int

    def against_holdout(self, values: FloatArray, arm: str) -> TwoArms:
        """Returns the arm's values and the holdout's, as the tests see them."""
        inside = (self.arms == arm) | self.is_holdout
        return two_arms(
            values[inside],
            self.arms[inside] == arm,
            self.strata[inside],
            np.flatnonzero(inside),
        )


class SampleFiles:
    """The samples of a results folder, by model and step; each file is read at most once."""

    def __init__(self, out: Path, step: int | None, names: Sequence[str]) -> None:
        """Reads the files of a step that are among `names`."""
        named = "unknown" if step is None else f"{step:08d}"
        self._tables = {
            model: list(
                _tables(out / "samples" / n for n in names if n.startswith(f"{model}-{named}-"))
            )
            for model in ("run", "twin")
        }

    @property
    def any(self) -> bool:
        """Returns whether there are samples of the run."""
        return bool(self._tables["run"])

    def scores(self, primary: Row) -> ItemScores | None:
        """Returns the scores of the experiment of a primary row, or None where there are none."""
        runs = [_of(t, primary.experiment) for t in self._tables["run"]]
        runs = [t for t in runs if len(t) and t["checkpoint"][0].as_py() == primary.checkpoint]
        if not runs:
            return None
        run = runs[0]
        items = run["item"].to_pylist()
        twins = [_of(table, primary.experiment) for table in self._tables["twin"]]
        twins = [table for table in twins if table["item"].to_pylist() == items]
        return ItemScores(
            arms=np.array(run["arm"].to_pylist(), dtype=np.str_),
            strata=np.array(run["stratum"].to_pylist(), dtype=np.str_),
            is_holdout=np.asarray(run["copies"].to_numpy() == 0, dtype=np.bool_),
            run=_values(run),
            twin=_mean([_values(table) for table in twins]),
            n_twins=len(twins),
        )


def _tables(paths: Iterable[Path]) -> Iterator[pa.Table]:
    for path in paths:
        try:
            table = pq.read_table(path)
            table.validate(full=True)  # a flipped bit may leave no UTF-8
        except (OSError, pa.ArrowException):
            continue
        if _KEYS <= set(table.column_names):
            yield table


def _of(table: pa.Table, experiment: str) -> pa.Table:
    return table.filter(pc.equal(table["experiment"], experiment))


def _values(table: pa.Table) -> dict[str, FloatArray]:
    """Returns the metrics that some item has."""
    names = [n for n in table.column_names if pa.types.is_floating(table.schema.field(n).type)]
    return {
        name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)
        for name in names
        if table[name].null_count < len(table)
    }


def _mean(twins: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray] | None:
    if not twins:
        return None
    names = set.intersection(*(set(values) for values in twins))
    return {name: np.mean([values[name] for values in twins], axis=0) for name in sorted(names)}
