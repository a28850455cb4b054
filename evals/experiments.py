"""The manifest as an eval sees it: experiments, their items, and what was seen by which step.

A copy is seen at step S when all its parts were placed at steps <= S. That is all the bookkeeping
that dose-response, acquisition and forgetting curves need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixctl.evals.base_data import ShardItem, base_data
from mixctl.evals.rows import Row
from mixctl.evals.scored import Scored
from mixctl.evals.scorers.base import Item
from mixctl.evals.tokenizer import decoder
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_items, read_placements
from mixctl.shards.record import BuildRecord

Strings = npt.NDArray[np.str_]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_TIMELINE_BINS = 40


@dataclass(frozen=True)
class Experiment:
    """An experiment of the manifest; arrays have one entry an item, sorted by item.

    Attributes:
        name: the experiment.
        kind: its kind.
        items: what the scorer sees.
        arms: str (n,).
        strata: str (n,).
        clusters: str (n,).
        copies: int64 (n,), copies that were asked for.
        copy_items: int64 (c,), the item (by place) of each copy.
        copy_steps: int64 (c,), the step by which all of that copy was placed.
        given: bool (n,), items whose arm was named by their row, not drawn.
    """

    name: str
    kind: str
    items: list[Item]
    arms: Strings
    strata: Strings
    clusters: Strings
    copies: IntArray
    copy_items: IntArray
    copy_steps: IntArray
    given: BoolArray

    @property
    def is_holdout(self) -> BoolArray:
        """Returns bool (n,): items that were never placed."""
        return np.asarray(self.copies == 0, dtype=np.bool_)

    @property
    def dosed_arms(self) -> list[str]:
        """Returns the arms with copies, lowest dose first."""
        return [arm for arm in self.all_arms if not self.is_holdout[self.arms == arm].all()]

    @property
    def all_arms(self) -> list[str]:
        """Returns all arms, lowest dose first."""
        names = [str(arm) for arm in np.unique(self.arms)]
        return sorted(names, key=lambda arm: (float(self.copies[self.arms == arm].mean()), arm))

    def seen(self, step: int | None) -> IntArray:
        """Returns the copies of each item placed up to a step (None: all), int64 (n,)."""
        counted = self.copy_items if step is None else self.copy_items[self.copy_steps <= step]
        return np.bincount(counted, minlength=len(self.items)).astype(np.int64)

    def dose(self, arm: str, step: int | None) -> float:
        """Returns the mean copies that the arm's items have seen up to a step."""
        return float(self.seen(step)[self.arms == arm].mean())

    def top_arm(self, step: int | None) -> str | None:
        """Returns the arm with the highest dose seen; of equals the larger, then by name."""
        arms = self.dosed_arms

        def rank(arm: str) -> tuple[float, float, int]:
            inside = self.arms == arm
            return (self.dose(arm, step), float(self.copies[inside].mean()), int(inside.sum()))

        return max(sorted(arms, reverse=True), key=rank) if arms else None

    def row(self, arm: str, metric: str, scored: Scored, contrast: str = "level") -> Row:
        """Returns the row of an arm under a checkpoint, still without a number."""
        return Row(
            experiment=self.name,
            kind=self.kind,
            arm=arm,
            dose=self.dose(arm, scored.step),
            stratum=None,
            metric=metric,
            model=scored.model,
            checkpoint=scored.checkpoint,
            step=scored.step,
            contrast=contrast,
        )


def unplaced(
    name: str, kind: str, items: list[Item], arms: Strings, clusters: Strings
) -> Experiment:
    """Returns an experiment of items that nothing was done with."""
    none = np.zeros(0, dtype=np.int64)
    return Experiment(
        name=name,
        kind=kind,
        items=items,
        arms=arms,
        strata=np.array(["all"] * len(items)),
        clusters=clusters,
        copies=np.zeros(len(items), dtype=np.int64),
        copy_items=none,
        copy_steps=none,
        given=np.zeros(len(items), dtype=np.bool_),
    )


def read_experiments(build: Path, record: BuildRecord) -> list[Experiment]:
    """Returns the experiments of a build, sorted by name.

    Raises:
        InputError: when the manifest is missing or broken, placements name unknown items, or the
            shards do not hold the base data that was placed.
    """
    items, placements = read_items(build), read_placements(build)
    columns = {name: items[name].to_pylist() for name in items.column_names if name != "tokens"}
    make = _item_maker(build, record, items, placements)
    names = np.array(columns["experiment"], dtype=np.str_)
    copies = _copies(placements)
    experiments = []
    problems: list[str] = []
    for name in sorted(set(columns["experiment"])):
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(np.array([columns["item"][i] for i in rows]), kind="stable")]
        made = [make(int(i)) for i in rows]
        experiments.append(_experiment(name, rows, columns, made, copies.get(name, {}), problems))
    problems += [
        f"{build}: placements of experiment {n}, which has no items"
        for n in copies
        if n not in columns["experiment"]
    ]
    if problems:
        raise InputError(problems)
    return experiments


def _item_maker(
    build: Path, record: BuildRecord, items: pa.Table, placements: pa.Table
) -> Callable[[int], Item]:
    """Returns the function from a row of items.parquet to the item that scorers see."""
    names = ("experiment", "item", "meta")
    experiments, own_names, metas = (items[name].to_pylist() for name in names)
    keys = list(zip(experiments, own_names, strict=True))
    missing = items["tokens"].is_null().to_pylist()
    in_shards = {key for key, null in zip(keys, missing, strict=True) if null}
    reads = base_data(build, record.geometry, placements, in_shards)
    width, decode = record.geometry.sequence_tokens, decoder(build, record)

    def make(row: int) -> Item:
        key, meta = keys[row], str(metas[row] or "{}")
        if key in reads:
            return ShardItem(key, reads[key], meta, width, decode)
        return Item(*key, _int64(items["tokens"][row].values), meta, width, decode)

    return make


def _int64(values: pa.Array | None) -> IntArray:
    """Returns the tokens of a row; none for base data that was never placed."""
    if values is None:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)


def _copies(placements: pa.Table) -> dict[str, dict[str, list[int]]]:
    """Returns experiment -> item -> the step of the last part of each copy."""
    last = placements.select(["experiment", "item", "copy", "step"])
    last = last.group_by(["experiment", "item", "copy"]).aggregate([("step", "max")])
    found: dict[str, dict[str, list[int]]] = {}
    keys = zip(last["experiment"].to_pylist(), last["item"].to_pylist(), strict=True)
    for (experiment, item), step in zip(keys, last["step_max"].to_pylist(), strict=True):
        found.setdefault(experiment, {}).setdefault(item, []).append(step)
    return found


def _experiment(
    name: str,
    rows: IntArray,
    columns: Mapping[str, list[object]],
    items: list[Item],
    copies: Mapping[str, list[int]],
    problems: list[str],
) -> Experiment:
    place = {item.name: at for at, item in enumerate(items)}
    problems += [
        f"experiment {name}: placements of item {item}, which is not in items.parquet"
        for item in copies
        if item not in place
    ]
    steps = [(place[item], step) for item in copies if item in place for step in copies[item]]
    pairs = np.array(steps, dtype=np.int64).reshape(-1, 2)

    def text(column: str) -> Strings:
        return np.array([str(columns[column][i] or "") for i in rows], dtype=np.str_)

    return Experiment(
        name=name,
        kind=str(columns["kind"][rows[0]]),
        items=items,
        arms=text("arm"),
        strata=text("stratum"),
        clusters=_filled(text("cluster"), items),
        copies=np.array([columns["copies"][i] for i in rows], dtype=np.int64),
        copy_items=pairs[:, 0],
        copy_steps=pairs[:, 1],
        given=_given(rows, columns),
    )


def _given(rows: IntArray, columns: Mapping[str, list[object]]) -> BoolArray:
    """Returns which items were not randomised; all were where the manifest does not say."""
    drawn = columns.get("randomised")
    return np.array([drawn is not None and drawn[i] is False for i in rows], dtype=np.bool_)


def _filled(clusters: Strings, items: list[Item]) -> Strings:
    """Returns the clusters; an item without one is its own."""
    return np.array(
        [c or f"\x1f{item.name}" for c, item in zip(clusters, items, strict=True)], dtype=np.str_
    )


def timeline(experiment: Experiment, steps: int) -> dict[str, list[int]]:
    """Returns, for each dosed arm, how many copies fall into each of 40 equal parts of the run."""
    parts = (experiment.copy_steps - 1) * _TIMELINE_BINS // max(steps, 1)
    arm_of_copy = experiment.arms[experiment.copy_items]
    return {
        arm: np.bincount(parts[arm_of_copy == arm], minlength=_TIMELINE_BINS).tolist()
        for arm in experiment.dosed_arms
    }
