"""Relayout: a finished build laid out again for another topology, without tokenizing.

Other devices, nodes, workers, micro-batches, another data seed: each puts the same sequences at
other places on disk. What a sequence holds depends on none of them, so the new build is made of the
blocks of the old one and is byte-identical to a build made for the other trainer from the start.

    mixctl relayout out/run1 --trainer two-gpus.yaml --out out/run2

    train/, control/train/, val/     gathered (`relayout_chunks.py`)
    placements, blocks .parquet      chunk, block, byte; the rows of blocks in the new order
    the rest of manifest/, tokenizer/  copied
    mix.json                         last; `digests.relayout` names the build it was made of

Whatever shapes the data itself (global batch, sequence length, steps) must be the same, and so must
litdata's version. Killed at any moment, a second call continues.

Price: see `relayout_chunks.py`; the tables of the manifest are held in memory, one at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixctl.pipeline.card import with_card
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.folder import check_folder, finished_build, own_folder, remove_stale
from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA
from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL, read_receipts
from mixctl.pipeline.prepare import mix_digest, settings_digest
from mixctl.pipeline.relayout_chunks import (
    CheckChunks,
    RelayChunks,
    Relayout,
    n_check_tasks,
    n_relayout_tasks,
    source_slots,
    training_order,
)
from mixctl.pipeline.sealing import file_record, write_indexes, write_trainer_configs
from mixctl.pipeline.stages import STAGE_VERSION
from mixctl.pipeline.trainer import (
    TrainerConfig,
    litgpt_config,
    litgpt_problems,
    model_vocabulary,
    read_topology,
    read_trainer,
)
from mixctl.shards.chunks import chunk_names, token_byte
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_bytes, remove_partials, write_bytes
from mixctl.shards.journal import WORK
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.manifest import (
    BLOCKS,
    PLACEMENTS,
    read_blocks,
    read_placements,
    write_table,
)
from mixctl.shards.marks import MARK
from mixctl.shards.record import (
    RECORD_NAME,
    BuildRecord,
    FileRecord,
    Geometry,
    read_record,
    write_record,
)
from mixctl.shards.topology import Topology
from mixctl.shards.verify_files import check_files

_MADE_ANEW = ("manifest/placements.parquet", "manifest/blocks.parquet")


@dataclass(frozen=True)
class _Trainer:
    """The other trainer config: its name as given, content, checked content."""

    name: str
    raw: dict[str, Any]
    config: TrainerConfig


def relayout(source: Path, trainer: Path, out: Path, workers: int = 1) -> BuildRecord:
    """Returns the record of the new build in `out`.

    Args:
        source: the folder of a finished build.
        trainer: the LitGPT config that will train on the new build.
        out: the folder of the new build; must not hold anything but an unfinished relayout.
        workers: threads at a time.

    Raises:
        InputError: with every reason why the build cannot be laid out so; nothing is written then.
        VerificationError: when a file of the old build is not what its record says.
    """
    record = _record_of(source, trainer)
    other, new = _checked(source, record, trainer)
    source, out = source.resolve(), out.resolve()
    _check_apart(source, out)
    check_folder(out)
    with own_folder(out):
        parts = [STAGE_VERSION, record.self_digest, other.name, other.raw, new.model_dump()]
        key = digest_bytes(json.dumps(parts, sort_keys=True, default=str).encode())
        if (out / RECORD_NAME).exists():
            return finished_build(out, key)
        stage = out / WORK / f"relayout-{key}"
        if not stage.exists():
            remove_stale(out)
        receipts = stage / "receipts"
        work = Relayout(source, record.geometry, new, record.control, out, receipts, workers)
        _run(work, record, stage)
        return _seal(work, record, other, key)


def _record_of(source: Path, trainer: Path) -> BuildRecord:
    """Returns the build's record; without one, what is wrong with the trainer is said as well."""
    try:
        return read_record(source)
    except InputError as error:
        problems = error.problems
    try:
        read_trainer(trainer)
    except InputError as error:
        problems = [*problems, *error.problems]
    raise InputError(problems)


def _checked(source: Path, record: BuildRecord, path: Path) -> tuple[_Trainer, Geometry]:
    """Returns the other trainer config and the geometry it asks for.

    Raises:
        InputError: with every problem.
    """
    config, raw = read_trainer(path)
    topology = read_topology(config, path)
    problems = _differences(source, record, topology, path)
    problems += litgpt_problems(litgpt_config(raw, config, topology, source, TRAIN), path)
    known = model_vocabulary(config)
    if known is not None and known < record.tokenizer.vocab_size:
        problems.append(
            f"{path}: the model embeds {known} token ids, the tokenizer of {source} has "
            f"{record.tokenizer.vocab_size}"
        )
    problems += _marks_without_noise(source, config, path)
    geometry: Geometry | None = None
    try:
        geometry = _geometry(record, topology)
    except InputError as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
    if problems or geometry is None:
        raise InputError(problems)
    return _Trainer(str(path), raw, config), geometry


def _marks_without_noise(source: Path, config: TrainerConfig, path: Path) -> list[str]:
    """Returns why the trainer would pass over the Gaussian marks of the build without a word."""
    modes = read_placements(source)["mode"]
    n_marks = pa.compute.sum(pa.compute.equal(modes, MARK)).as_py()
    if not n_marks or config.adds_noise:
        return []
    return [
        f"{path}: data: class_path is LitData, which adds no noise, and {source} marks {n_marks} "
        f"sequences: write class_path: {GAUSSIAN_DATA}"
    ]


def _differences(source: Path, record: BuildRecord, topology: Topology, path: Path) -> list[str]:
    """Returns what a relayout cannot change and the trainer config has otherwise."""
    old = record.geometry
    fixed = (
        ("train.global_batch_size", old.global_batch, topology.global_batch),
        ("train.max_seq_length", old.max_seq_length, topology.max_seq_length),
        ("the number of steps (from train.max_tokens)", old.steps, topology.steps),
        ("the installed litdata", old.litdata, topology.litdata),
    )
    return [
        f"{path}: {name} is {found}, {source} was built for {expected}: a relayout moves "
        f"sequences, it cannot change what they hold; build the mix anew"
        for name, expected, found in fixed
        if found != expected
    ]


def _geometry(record: BuildRecord, topology: Topology) -> Geometry:
    old, size = record.geometry, int(record.config["chunk_bytes"])
    token_bytes = np.dtype(old.dtype).itemsize
    train = train_layout(topology, token_bytes, size)
    val = val_layout(topology, old.val_sequences, token_bytes, size)
    return Geometry.of(topology, train, val, old.val_sequences, old.dtype)


def _check_apart(source: Path, out: Path) -> None:
    """Refuses a folder that is the old build, lies in it, or holds it."""
    if out == source or source in out.parents or out in source.parents:
        raise InputError(f"--out: {out} and the build {source} share a folder: choose another")


def _run(work: Relayout, record: BuildRecord, stage: Path) -> None:
    """Runs the two stages; nothing is gathered from a build with a damaged file."""
    stage.mkdir(parents=True, exist_ok=True)
    remove_partials(work.out)
    findings, _ = check_files(work.source, record, full=False)
    if findings:
        raise VerificationError(findings)
    here = ExecutorConfig(workers=1)  # threads share the work of a task: nothing is to be started
    check = CheckChunks(work.source, record, work.workers)
    run_stage("check", [check], stage / "check", n_check_tasks(record), here)
    n_tasks = n_relayout_tasks(work.new, work.control)
    run_stage("relayout", [RelayChunks(work)], stage, n_tasks, here)


def _seal(work: Relayout, record: BuildRecord, trainer: _Trainer, key: str) -> BuildRecord:
    """Returns the build record, after writing all that it lists, and it last of all."""
    n_chunks = {TRAIN: work.new.chunks, VAL: work.new.val_chunks}
    n_chunks |= {CONTROL: work.new.chunks} if work.control else {}
    receipts = [r for part, n in n_chunks.items() for r in read_receipts(work.receipts, part, n)]
    written = write_indexes(work.out, work.new, work.control)
    written += [*_tables(work), *_copies(work, record)]
    written += write_trainer_configs(work.out, trainer.raw, trainer.config, work.new, work.control)
    files = {r.name: FileRecord(bytes=r.bytes, digest=r.digest) for r in receipts}
    files |= {name: file_record(work.out / name) for name in written}
    mix = {k: v for k, v in record.config.items() if k != "trainer_config"}
    mix["trainer"] = trainer.name
    digests = {"config": mix_digest(mix), "trainer": settings_digest(trainer.raw)}
    digests |= {"build": key, "relayout": record.self_digest}
    made = record.model_copy(
        update={
            "config": {**mix, "trainer_config": trainer.raw},
            "geometry": work.new,
            "digests": {**record.digests, **digests},
            "files": files,
        }
    )
    made = with_card(work.out, made)
    write_record(work.out, made)
    return made


def _tables(work: Relayout) -> list[str]:
    """Writes the tables whose rows say where something lies; returns their names."""
    placements, blocks = _MADE_ANEW
    write_table(_placements(work), work.out / placements)
    write_table(_blocks(work), work.out / blocks)
    return list(_MADE_ANEW)


def _placements(work: Relayout) -> pa.Table:
    """Returns placements.parquet with the new slots."""
    table, new = read_placements(work.source), work.new
    sequence = np.asarray(table["sequence"].to_numpy(), dtype=np.int64)
    chunk, block = training_order(new).slots(sequence)
    byte = token_byte(block, table["offset"].to_numpy(), new.sequence_tokens, new.dtype)
    for name, values in (("chunk", chunk_names(chunk)), ("block", block), ("byte", byte)):
        field = PLACEMENTS.field(name)
        place = table.column_names.index(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def _blocks(work: Relayout) -> pa.Table:
    """Returns blocks.parquet: the digests of the old build, in the order of the new slots."""
    new, old = work.new, work.old
    chunk, block = np.divmod(np.arange(new.layout().n_blocks), new.blocks_per_chunk)
    old_chunk, old_block = source_slots(old, new, TRAIN, chunk, block)
    digest = read_blocks(work.source)["digest"].combine_chunks()
    columns = [
        _names(chunk),
        pa.array(block, pa.int32()),
        digest.take(pa.array(old_chunk * old.blocks_per_chunk + old_block)),
    ]
    return pa.table(columns, schema=BLOCKS)


def _names(chunk: I64) -> pa.Array:
    """Returns the file name of each chunk, made once a chunk."""
    names = pa.array(chunk_names(np.arange(chunk[-1] + 1)), pa.string())
    return names.take(pa.array(chunk))


def _copies(work: Relayout, record: BuildRecord) -> list[str]:
    """Copies what does not depend on the topology; returns the names."""
    names = [n for n in record.files if n.startswith(("manifest/", "tokenizer/"))]
    names = [n for n in names if n not in _MADE_ANEW]
    for name in names:
        write_bytes(work.out / name, (work.source / name).read_bytes())
    return names
