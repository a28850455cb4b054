"""A finished build as a source: what it holds, and what of it can still be changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.injections.encode import Encoder, load_encoder
from mixctl.pipeline.mixfile import Experiment, Mix, MixConfig
from mixctl.pipeline.purge import Forbidden
from mixctl.pipeline.trainer import TrainerConfig
from mixctl.pipeline.yamlfile import parse
from mixctl.shards.chunks import Tokens, chunk_name, open_chunk
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_items, read_placements, read_replacements
from mixctl.shards.order import TrainingOrder
from mixctl.shards.reading import read_sequences
from mixctl.shards.record import RECORD_NAME, BuildRecord, read_record


@dataclass(frozen=True)
class Known:
    """An item of a build, as its row in items.parquet says."""

    arm: str
    copies: int
    tokens: Tokens | None
    meta: str


@dataclass(frozen=True)
class FinishedBuild:
    """A finished build with its manifest."""

    folder: Path
    record: BuildRecord
    items: pa.Table
    placements: pa.Table
    replacements: pa.Table

    @cached_property
    def order(self) -> TrainingOrder:
        """Returns the training order."""
        geometry = self.record.geometry
        return TrainingOrder(geometry.topology(), geometry.layout())

    @cached_property
    def held(self) -> I64:
        """Returns the sequences that hold a placement or a mark or were replaced: int64, sorted."""
        return held_sequences(
            self.placements["sequence"].to_numpy(),
            self.replacements["sequence"].to_numpy(),
            self.record.geometry.sequences,
        )

    def known_items(self, experiment: str) -> dict[str, Known]:
        """Returns the items of an experiment by their names."""
        rows = self.items.filter(pa.compute.equal(self.items["experiment"], experiment))
        columns = (rows[name].to_pylist() for name in ("item", "arm", "copies", "meta"))
        tokens = rows["tokens"]
        return {
            item: Known(arm, copies, tokens[n].values and tokens[n].values.to_numpy(), meta)
            for n, (item, arm, copies, meta) in enumerate(zip(*columns, strict=True))
        }

    @property
    def forbidden(self) -> Forbidden:
        """Returns the strings that must occur nowhere in the run."""
        return [
            (name, item, known.tokens)
            for name in self.record.absent
            for item, known in self.known_items(name).items()
            if known.tokens is not None
        ]

    def encoder(self) -> Encoder:
        """Returns the encoder of the build's own tokenizer.

        Raises:
            InputError: when the files in tokenizer/ are not those of the build.
        """
        folder, record = self.folder / "tokenizer", self.record.tokenizer
        encoder = load_encoder(folder, eod=record.eod, bos=record.bos_id is not None)
        if encoder.record() != record:
            raise InputError(f"{folder}: not the tokenizer that {RECORD_NAME} names")
        return encoder

    def mix(self, experiments: tuple[Experiment, ...], path: Path) -> Mix:
        """Returns a mix of these experiments and otherwise what this build was made of.

        Args:
            experiments: of the mix.
            path: of their file; relative paths start beside it.

        Raises:
            InputError: when mix.json was written by a mixctl that this one does not understand.
        """
        told = {k: v for k, v in self.record.config.items() if k != "trainer_config"}
        raw, place = self.record.config["trainer_config"], f"{self.folder / RECORD_NAME}: config"
        config, problems = parse(MixConfig, {**told, "experiments": []}, place)
        trainer, more = parse(TrainerConfig, raw, f"{place}.trainer_config")
        if config is None or trainer is None:
            raise InputError(problems + more)
        return Mix(
            path=path,
            config=config,
            experiments=experiments,
            trainer_path=self.folder / "litgpt.yaml",
            trainer=trainer,
            trainer_raw=raw,
            topology=self.record.geometry.topology(),
        )

    def chunk(self, chunk: int) -> Tokens:
        """Returns the blocks of a chunk of train/ as a read-only map."""
        geometry = self.record.geometry
        path = self.folder / "train" / chunk_name(chunk)
        return open_chunk(path, geometry.sequence_tokens, geometry.dtype)


def open_build(folder: Path) -> FinishedBuild:
    """Returns the build in the folder.

    Raises:
        InputError: when it holds no finished build.
    """
    record = read_record(folder)
    tables = (read(folder) for read in (read_items, read_placements, read_replacements))
    return FinishedBuild(folder, record, *tables)


def held_sequences(placed: I64, replaced: I64, n_sequences: int) -> I64:
    """Returns the sequences of the run in which nothing else may be placed: int64, sorted.

    Args:
        placed: the sequence of each placement, marks included.
        replaced: the sequence of each replacement; those from `n_sequences` on fill train/ up.
        n_sequences: of the run.
    """
    return np.union1d(placed, replaced[replaced < n_sequences]).astype(np.int64)


class BuildStream:
    """The tokens of free sequences as the build holds them: base tokens, nothing else."""

    n_spare = 0
    """spare base data is gone with the token files"""

    def __init__(self, build: FinishedBuild) -> None:
        """Reads chunk files when it is asked."""
        self._build = build

    def base_sequence(self, sequence: I64) -> I64:
        """Returns the sequences themselves."""
        return sequence

    def training(self, sequence: I64) -> Tokens:
        """Returns the tokens of these sequences: shape (n, sequence_tokens)."""
        return read_sequences(self._build.folder, self._build.record.geometry, sequence)

    def document_ends(self, sequence: I64) -> tuple[I64, I64]:
        """Returns (row, offset), int64: the end-of-document tokens in these sequences, in order."""
        row, offset = np.nonzero(self.training(sequence) == self._build.record.tokenizer.eod_id)
        return row.astype(np.int64), offset.astype(np.int64)
