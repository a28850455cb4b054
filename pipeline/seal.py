"""Sealing: index files, manifest, trainer configs, and last of all mix.json."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from mixctl.injections.encode import TOKENIZER_FILES
from mixctl.pipeline.base_stream import BaseStream
from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL, MixSource, read_receipts
from mixctl.pipeline.plan import Plan, PlannedExperiment
from mixctl.pipeline.purge import prove_absent, reasons
from mixctl.pipeline.resolve import Resolved
from mixctl.pipeline.stages import Searched
from mixctl.pipeline.tables import blocks_table, items_table, placements_table, replacements_table
from mixctl.pipeline.trainer import litgpt_config
from mixctl.shards.chunks import INDEX_NAME, index_text
from mixctl.shards.files import digest_file, write_bytes, write_text
from mixctl.shards.layout import Layout
from mixctl.shards.manifest import BLOCKS, payload_digest, write_table, write_tables
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
    written = [*_indexes(mixed), "manifest/blocks.parquet", *_manifest(work, late, stream)]
    written += [*_trainer_configs(plan, mixed), *_tokenizer(plan, mixed)]
    files |= {name: _file_record(mixed.out / name) for name in written}
    record = BuildRecord(
        config={**plan.mix.config.model_dump(mode="json"), "trainer_config": plan.mix.trainer_raw},
        geometry=_geometry(mixed),
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


def _indexes(mixed: MixSource) -> list[str]:
    """Writes index.json of each part; returns their names."""
    parts = {TRAIN: mixed.layout, VAL: mixed.val_layout}
    if mixed.control:
        parts[CONTROL] = mixed.layout
    return [_index(mixed, part, layout) for part, layout in parts.items()]


def _index(mixed: MixSource, part: str, layout: Layout) -> str:
    name = f"{part}/{INDEX_NAME}"
    text = index_text(
        layout.n_chunks, layout.blocks_per_chunk, mixed.topology.sequence_tokens, mixed.base.dtype
    )
    write_text(mixed.out / name, text)
    return name


def _manifest(work: Sealed, late: dict[int, str], stream: BaseStream) -> list[str]:
    plan, mixed, resolved = work.plan, work.mixed, work.resolved
    order = TrainingOrder(mixed.topology, mixed.layout)
    tables = {
        "manifest/items.parquet": items_table(plan.experiments, resolved, stream),
        "manifest/placements.parquet": placements_table(
            plan.experiments, resolved, order, mixed.base.dtype, late
        ),
        "manifest/replacements.parquet": _replacements(work, stream),
        "manifest/decontamination.parquet": work.searched.matches,
    }
    for name, table in tables.items():
        write_table(table, mixed.out / name)
    return list(tables)


def _replacements(work: Sealed, stream: BaseStream) -> pa.Table:
    replaced = work.resolved.replacements
    digests: list[str] = []
    for begin in range(0, len(replaced.sequence), _GATHERED):
        source = replaced.source[begin : begin + _GATHERED]
        digests += [payload_digest(row) for row in stream.training(source)]
    return replacements_table(replaced, reasons(work.plan), digests)


def _trainer_configs(plan: Plan, mixed: MixSource) -> list[str]:
    names = {"litgpt.yaml": TRAIN} | ({"litgpt-control.yaml": CONTROL} if mixed.control else {})
    for name, part in names.items():
        config = litgpt_config(
            plan.mix.trainer_raw, plan.mix.trainer, mixed.topology, mixed.out, part
        )
        write_text(mixed.out / name, yaml.safe_dump(config, sort_keys=False))
    return list(names)


def _tokenizer(plan: Plan, mixed: MixSource) -> list[str]:
    """Copies the tokenizer, so that whoever holds the build can decode it; returns the names."""
    folder = Path(plan.mix.resolve(plan.mix.config.tokenizer))
    for name in TOKENIZER_FILES:
        write_bytes(mixed.out / "tokenizer" / name, (folder / name).read_bytes())
    return [f"tokenizer/{name}" for name in TOKENIZER_FILES]


def _file_record(path: Path) -> FileRecord:
    return FileRecord(bytes=path.stat().st_size, digest=digest_file(path))


def _geometry(mixed: MixSource) -> Geometry:
    topology, layout, val = mixed.topology, mixed.layout, mixed.val_layout
    return Geometry(
        max_seq_length=topology.max_seq_length,
        sequence_tokens=topology.sequence_tokens,
        micro_batch=topology.micro_batch,
        global_batch=topology.global_batch,
        devices=topology.devices,
        nodes=topology.nodes,
        workers=topology.workers,
        data_seed=topology.data_seed,
        max_tokens=topology.max_tokens,
        steps=topology.steps,
        sequences=topology.sequences,
        chunks=layout.n_chunks,
        chunks_per_worker=layout.chunks_per_worker,
        blocks_per_chunk=layout.blocks_per_chunk,
        val_sequences=mixed.base.n_validation,
        val_chunks=val.n_chunks,
        val_chunks_per_worker=val.chunks_per_worker,
        val_blocks_per_chunk=val.blocks_per_chunk,
        dtype="uint16" if mixed.base.dtype == "uint16" else "uint32",
        litdata=topology.litdata,
    )


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
