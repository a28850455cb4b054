"""Gaussian marks: which sequences of the run get which noise on their input embeddings.

A mark changes no byte of the shards; it is a row of the manifest with mode `mark`, and the seed of
its noise stands in the item's meta. The noise of a marked sequence is given by its seed, the row of
the sequence in its mark and the width of the model (`mixctl.shards.meta.GaussianMeta` has the
rule), so whoever holds the manifest makes the same numbers: the trainer's data module on any rank,
and the scorer years later.

    marks = read_marks(build)
    marks.noise(np.array([40, 41]), (256, 64))     # float32 (2, 256, 64); None: neither is marked

Price: 32 bytes a marked sequence, and about 10 ns a number of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from mixctl.shards.draws import I64, U64
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_items, read_placements
from mixctl.shards.meta import GaussianMeta

Noise = npt.NDArray[np.float32]
MARK = "mark"
"""the mode of a placement that changes no byte"""


@dataclass(frozen=True)
class Marks:
    """The marked sequences of a run, in order; arrays of shape (n,).

    Attributes:
        sequence: int64, of the training run, each once.
        seed: uint64, of the mark's noise.
        row: int64, the sequence's place in its mark.
        sigma: float64, the standard deviation of the noise.
    """

    sequence: I64
    seed: U64
    row: I64
    sigma: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """Returns the number of marked sequences."""
        return len(self.sequence)

    def noise(self, sequence: I64, shape: tuple[int, int]) -> Noise | None:
        """Returns the noise of each sequence, zeros where it has no mark; None where none has.

        Args:
            sequence: int64 (m,), of the training run.
            shape: input tokens of a sequence, and the width of the embeddings.

        Returns:
            float32 (m, *shape), sigma included.
        """
        if not len(self):
            return None
        place = np.searchsorted(self.sequence, sequence).clip(max=len(self) - 1)
        marked = np.flatnonzero(self.sequence[place] == sequence)
        if not len(marked):
            return None
        found = np.zeros((len(sequence), *shape), dtype=np.float32)
        for at in marked:
            mark = place[at]
            drawn = noise_of(int(self.seed[mark]), int(self.row[mark]), shape)
            found[at] = np.float32(self.sigma[mark]) * drawn
        return found


def noise_of(seed: int, row: int, shape: tuple[int, int]) -> Noise:
    """Returns the noise of a row of a mark at sigma 1, by the rule of `GaussianMeta`: float32."""
    key = np.array([seed, row], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.standard_normal(shape, dtype="float32")


def read_marks(build: Path, global_batch: int) -> Marks:
    """Returns the marks of a build.

    Args:
        build: the build folder.
        global_batch: sequences of a step.

    Raises:
        InputError: when the manifest is missing or broken, or marks a sequence twice.
    """
    placements = read_placements(build)
    placed = placements.filter(pc.equal(placements["mode"], MARK))
    keys = list(zip(placed["experiment"].to_pylist(), placed["item"].to_pylist(), strict=True))
    metas = _metas(build, set(keys))
    sequences = placed["sequence"].to_pylist()
    marks = marks_of([metas[key] for key in keys], sequences, global_batch)
    if twice := marks.sequence[1:][np.diff(marks.sequence) == 0].tolist():
        raise InputError(f"{build}: the manifest marks sequence {twice[0]} twice")
    return marks


def marks_of(metas: Sequence[GaussianMeta], sequences: Sequence[int], global_batch: int) -> Marks:
    """Returns the marks of these sequences, in order of the sequence.

    A mark of a whole batch counts its rows as the step does, one of a single sequence has row 0.
    """
    sequence = np.array(sequences, dtype=np.int64)
    in_batch = np.array([meta.unit == "batch" for meta in metas], dtype=np.bool_)
    order = np.argsort(sequence, kind="stable")
    return Marks(
        sequence=sequence[order],
        seed=np.array([meta.noise_seed for meta in metas], dtype=np.uint64)[order],
        row=np.where(in_batch, sequence % global_batch, 0)[order],
        sigma=np.array([meta.sigma for meta in metas], dtype=np.float64)[order],
    )


def _metas(build: Path, keys: set[tuple[str, str]]) -> dict[tuple[str, str], GaussianMeta]:
    """Returns the meta of each marked item."""
    items = read_items(build)
    columns = (items[name].to_pylist() for name in ("experiment", "item", "meta"))
    found = {(e, i): meta for e, i, meta in zip(*columns, strict=True) if (e, i) in keys}
    if missing := sorted(keys - set(found)):
        raise InputError(f"{build}: marks of {missing[0][1]}, which is not in items.parquet")
    return {key: GaussianMeta.model_validate_json(meta) for key, meta in found.items()}
