"""Sealing: index files, manifest, trainer configs, and last of all mix.json."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.injections.encode import TOKENIZER_FILES
from mixctl.pipeline.base_stream import BaseStream
from mixctl.pipeline.card import with_card
from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL, MixSource, read_receipts
from mixctl.pipeline.plan import Plan, PlannedExperiment
from mixctl.pipeline.purge import prove_absent, reasons
from mixctl.pipeline.resolve import Resolved
from mixctl.pipeline.sealing import file_record, write_indexes, write_trainer_configs
from mixctl.pipeline.stages import Searched
from mixctl.pipeline.tables import (
    ITEMS_SCHEMA,
    blocks_table,
    items_tables,
    placements_tables,
    replacements_table,
)
from mixctl.shards.files import write_bytes
from mixctl.shards.manifest import BLOCKS, PLACEMENTS, REPLACEMENTS, payload_digest, write_tables
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import BuildRecord, FileRecord, Geometry, Totals, write_record

_GATHERED = 4096
"""base sequences read at a time"""
_PACKAGES = ("mixctl", "litgpt", "litdata", "datatrove", "tokenizers", "numpy", "pyarrow")


@dataclass(frozen=True)
class Sealed:
    """What sealing works from."""

    plan: Plan
    resolved: Resolved
    searched: Searched
    mixed: MixSource
    digests: dict[str, str]
    engine: str


def seal(work: Sealed, stream: BaseStream) -> BuildRecord:
    """Returns the build record, after writing all that it lists, and it last of all.

    Raises:
        VerificationError: when a block holds a forbidden string; nothing is sealed then.
    """
    plan, mixed = work.plan, work.mixed
    files, late = _chunks(mixed)
    base, mix = mixed.base, plan.mix
    geometry = Geometry.of(
        mixed.topology, mixed.layout, mixed.val_layout, base.n_validation, base.dtype
    )
    written = write_indexes(mixed.out, geometry, mixed.control)
    written += ["manifest/blocks.parquet", *_manifest(work, late, stream)]
    written += write_trainer_configs(
        mixed.out, mix.trainer_raw, mix.trainer, geometry, mixed.control
    )
    written += _tokenizer(plan, mixed)
    files |= {name: file_record(mixed.out / name) for name in written}
    record = BuildRecord(
        config={**mix.config.model_dump(mode="json"), "trainer_config": mix.trainer_raw},
        geometry=geometry,
        tokenizer=plan.encoder.record(),
        engine=work.engine,
        control=mixed.control,
        corpus={
            "documents": stream.n_documents,
            "tokens": stream.n_tokens,
            "training_sequences": stream.n_sequences,
        },
        digests=work.digests,
        versions=_versions(),
        files=files,
        totals={e.config.name: _totals(e, work) for e in plan.experiments},
        absent=[e.config.name for e in plan.experiments if e.experiment.kind.absent],
        decontamination=work.searched.counts,
    )
    record = with_card(mixed.out, record)
    write_record(mixed.out, record)
    return record


def _chunks(mixed: MixSource) -> tuple[dict[str, FileRecord], dict[int, str]]:
    """Returns the records of all chunk files, and the late digests; writes blocks.parquet.

    Receipts are read one by one: together, their digests grow with the corpus.

    Raises:
        VerificationError: when a block holds a forbidden string.
    """
    files: dict[str, FileRecord] = {}
    late: dict[int, str] = {}
    forbidden: dict[str, int] = {}

    def train_blocks() -> Iterator[pa.Table]:
        for receipt in read_receipts(mixed.receipts, TRAIN, mixed.layout.n_chunks):
            files[receipt.name] = FileRecord(bytes=receipt.bytes, digest=receipt.digest)
            late.update(receipt.payloads)
            forbidden[receipt.name] = receipt.forbidden
            yield blocks_table(receipt)

    write_tables(BLOCKS, train_blocks(), mixed.out / "manifest/blocks.parquet")
    prove_absent(forbidden)
    parts = {VAL: mixed.val_layout} | ({CONTROL: mixed.layout} if mixed.control else {})
    for part, layout in parts.items():
        for receipt in read_receipts(mixed.receipts, part, layout.n_chunks):
            files[receipt.name] = FileRecord(bytes=receipt.bytes, digest=receipt.digest)
    return files, late


def _manifest(work: Sealed, late: dict[int, str], stream: BaseStream) -> list[str]:
    plan, mixed, resolved = work.plan, work.mixed, work.resolved
    order = TrainingOrder(mixed.topology, mixed.layout)
    dtype, matches = mixed.base.dtype, work.searched.matches
    placed = placements_tables(plan.experiments, resolved, order, dtype, late)
    tables: dict[str, tuple[pa.Schema, Iterable[pa.Table]]] = {
        "items": (ITEMS_SCHEMA, items_tables(plan.experiments, resolved, stream)),
        "placements": (PLACEMENTS, placed),
        "replacements": (REPLACEMENTS, [_replacements(work, stream)]),
        "decontamination": (matches.schema, [matches]),
    }
    names = [f"manifest/{name}.parquet" for name in tables]
    with ThreadPoolExecutor(2) as writers:  # one table is written while the next one is made
        written = [
            writers.submit(write_tables, *table, mixed.out / name)
            for name, table in zip(names, tables.values(), strict=True)
        ]
    for one in written:
        one.result()
    return names


def _replacements(work: Sealed, stream: BaseStream) -> pa.Table:
    replaced = work.resolved.replacements
    digests: list[str] = []
    for begin in range(0, len(replaced.sequence), _GATHERED):
        source = replaced.source[begin : begin + _GATHERED]
        digests += [payload_digest(row) for row in stream.training(source)]
    return replacements_table(replaced, reasons(work.plan), digests)


def _tokenizer(plan: Plan, mixed: MixSource) -> list[str]:
    """Copies the tokenizer, so that whoever holds the build can decode it; returns the names."""
    folder = Path(plan.mix.resolve(plan.mix.config.tokenizer))
    for name in TOKENIZER_FILES:
        write_bytes(mixed.out / "tokenizer" / name, (folder / name).read_bytes())
    return [f"tokenizer/{name}" for name in TOKENIZER_FILES]


def _totals(experiment: PlannedExperiment, work: Sealed) -> Totals:
    """Returns what an experiment took; base sequences that it had replaced count as its own."""
    plan, replaced = work.plan, work.resolved.replacements
    why = np.array(reasons(plan), dtype=object)[replaced.string]
    in_run = replaced.sequence < plan.topology.sequences
    n_replaced = int((in_run & (why == f"purge:{experiment.config.name}")).sum())
    changed = experiment.n_tokens + n_replaced * plan.topology.sequence_tokens
    return Totals(
        items=len(experiment.assigned.items),
        placements=len(experiment.copies),
        tokens=experiment.n_tokens,
        share=changed / plan.run_tokens,
        replaced_sequences=n_replaced,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
