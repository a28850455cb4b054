"""Builds the data of dependence runs: a small LitData set a run, checked through the stock loader.

    OUT/runs/only-quiz/train/            the run's sequences, base data with quiz's payloads over it
    OUT/runs/only-quiz/val/              a link to the build's val/
    OUT/runs/only-quiz/placements.parquet  where every payload is, as in a manifest
    OUT/runs/only-quiz/base.parquet      which base sequence of the build each sequence is
    OUT/runs/only-quiz/litgpt.yaml       resumes start/ and saves at the run's last step
    OUT/start/                           the checkpoint, its loader put back to the beginning
    OUT/train-one.sh train-all.sh slurm.sh
    OUT/cpdt.json                        the record, written last

Payloads lie over base data as `overwrite` places them, whatever mode the build used: an
end-of-document token on both sides; one of a sequence's length takes a whole one. The paths in
litgpt.yaml are absolute, so OUT stays where it is.

Price: a chunk of a run in memory; a random read of the build a base sequence.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from filelock import FileLock, Timeout

from mixctl.pipeline.copies import MODES, OVERWRITE, SEQUENCE
from mixctl.pipeline.cpdt_draws import Places, base_draw, places
from mixctl.pipeline.cpdt_payloads import BaseReader, read_payloads
from mixctl.pipeline.cpdt_prepare import Prepared, Run
from mixctl.pipeline.cpdt_scripts import write_scripts
from mixctl.pipeline.cpdt_start import START, run_config, write_start
from mixctl.pipeline.mixing import TRAIN, VAL
from mixctl.pipeline.patch import PayloadPool, write_payloads, write_separators
from mixctl.pipeline.placement import SEPARATORS, NoRoomError
from mixctl.pipeline.sealing import file_record
from mixctl.pipeline.trainer import litgpt_problems
from mixctl.shards.chunks import (
    INDEX_NAME,
    Tokens,
    chunk_name,
    chunk_names,
    index_text,
    token_byte,
    write_chunk,
)
from mixctl.shards.dependence_record import (
    RECORD_NAME,
    DependenceRecord,
    RunRecord,
    read_dependence,
    run_folder,
    write_dependence,
)
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_file, replacing, write_text
from mixctl.shards.manifest import PLACEMENTS, payload_digest, write_table
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import RECORD_NAME as BUILD_RECORD
from mixctl.shards.record import FileRecord
from mixctl.shards.verify_loader import check_loader

LOCK = ".cpdt.lock"
BASE = pa.schema([("sequence", pa.int64()), ("source_sequence", pa.int64())])
_PACKAGES = ("mixctl", "litgpt", "litdata", "torch", "numpy")


def build_runs(
    prepared: Prepared, out: Path, tell: Callable[[str], None] = lambda line: None
) -> DependenceRecord:
    """Returns the record of the runs in `out`, built.

    Args:
        prepared: what is asked for.
        out: the folder of the set: new, or one that an interrupted call left.
        tell: is told each thing done.

    Raises:
        InputError: when the folder holds something else, or payloads do not fit.
        VerificationError: when the stock loader does not read what was written.
    """
    out = out.resolve()
    with _own(out):
        if (out / RECORD_NAME).exists():
            return _finished(prepared, out)
        for left in ("runs", START):
            shutil.rmtree(out / left, ignore_errors=True)
        _check_config(prepared, out)
        runs = []
        for number, run in enumerate(prepared.runs):
            runs.append(_write_run(prepared, run, number, out))
            tell(f"{run.name}: {runs[-1].placements:,} payloads, {runs[-1].tokens:,} tokens")
        write_start(prepared.checkpoint, out)
        record = _record(prepared, runs, out)
        write_scripts(record, prepared.geometry, out)
        write_dependence(out, record)
        return record


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Keeps others out of the folder, and us out of a folder that is not ours."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file")
    if out.exists() and any(out.iterdir()) and not (out / LOCK).exists():
        raise InputError(f"--out: {out} is not empty and holds no dependence runs: choose another")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise InputError(f"--out: {out}: another mixctl cpdt is at work in this folder") from None
    except PermissionError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror})") from None


def _finished(prepared: Prepared, out: Path) -> DependenceRecord:
    """Returns the record of a set that is there already.

    Raises:
        InputError: when it is another one.
    """
    record = read_dependence(out)
    wanted = _asked(prepared)
    if differing := sorted(name for name in wanted if getattr(record, name) != wanted[name]):
        raise InputError(
            f"--out: {out} already holds runs of another {', '.join(differing)}: choose a new "
            "folder, or remove it"
        )
    return record


def _asked(prepared: Prepared) -> dict[str, object]:
    """Returns what tells a set of runs from others."""
    request = prepared.request
    return {
        "build": str(request.build),
        "build_digest": digest_file(request.build / BUILD_RECORD),
        "checkpoint": str(request.checkpoint),
        "step": prepared.step,
        "steps": request.steps,
        "share": float(request.share),
        "seed": request.seed,
        "metrics": dict(prepared.metrics),
        "items": dict(prepared.items),
    }


def _check_config(prepared: Prepared, out: Path) -> None:
    folder = run_folder(out, prepared.runs[0].name)
    made = run_config(prepared.trainer, prepared.record.geometry, prepared.end, folder, out / START)
    if problems := litgpt_problems(made, prepared.request.checkpoint):
        raise InputError(problems)


def _record(prepared: Prepared, runs: list[RunRecord], out: Path) -> DependenceRecord:
    return DependenceRecord(
        **_asked(prepared),
        checkpoint_digest=digest_file(prepared.checkpoint.state_path),
        split=prepared.split,
        base_pool=len(prepared.pool),
        base_shared=prepared.base_shared,
        untested=dict(prepared.untested),
        runs=runs,
        start_digest=digest_file(out / START / prepared.checkpoint.state_path.name),
        versions={name: version(name) for name in _PACKAGES},
    )


def _write_run(prepared: Prepared, run: Run, number: int, out: Path) -> RunRecord:
    """Returns the record of a run, after writing and reading back its data."""
    request, folder = prepared.request, run_folder(out, run.name)
    n_runs, geometry = len(prepared.runs), prepared.geometry
    drawn = base_draw(len(prepared.pool), prepared.needed, number, n_runs, request.seed)
    source = prepared.pool[drawn]
    n_base = geometry.sequences + 1
    table, tokens = _payloads(prepared, run, source[n_base:])
    length = np.array([len(ids) for ids in tokens], dtype=np.int64)
    try:
        where = places(length, geometry.sequences, geometry.sequence_tokens, request.seed, run.name)
    except NoRoomError as error:
        raise InputError(f"run {run.name}: {error}: lower --share, or take more --steps") from None
    files = _write_train(prepared, source, where, tokens, folder)
    (folder / VAL).symlink_to(request.build / VAL)
    write_table(_placements(prepared, table, where), folder / "placements.parquet")
    _write_base(prepared, source[:n_base], folder / "base.parquet")
    config = run_config(
        prepared.trainer, prepared.record.geometry, prepared.end, folder, out / START
    )
    write_text(folder / "litgpt.yaml", yaml.safe_dump(config, sort_keys=False))
    _check_read(prepared, folder)
    return RunRecord(
        name=run.name,
        role=run.role,
        experiments=list(run.experiments),
        like=run.like,
        tokens=int(length.sum()),
        placements=len(length),
        files=files,
    )


def _payloads(prepared: Prepared, run: Run, spare: I64) -> tuple[pa.Table, list[np.ndarray]]:
    """Returns the payloads of a run: their rows in the build's manifest, and their tokens."""
    tables = [PLACEMENTS.empty_table()]
    for name in run.experiments if run.like is None else (run.like,):
        rows = prepared.payloads[name].table.select(PLACEMENTS.names)
        tables.append(rows.take(pa.array(prepared.dealt(run, name))))
    table = pa.concat_tables(tables)
    if run.like is None:
        return table, read_payloads(prepared.request.build, prepared.record.geometry, table)
    source = spare[: len(table)]
    blocks = BaseReader(prepared.request.build, prepared.record).read(source)
    lengths, eod = table["length"].to_pylist(), prepared.record.tokenizer.eod_id
    tokens = [base_text(row, n, eod) for row, n in zip(blocks, lengths, strict=True)]
    return _as_base_text(table, source, tokens), tokens


def base_text(block: Tokens, length: int, eod: int) -> np.ndarray:
    """Returns the first tokens of a document of a base sequence; else of the sequence itself.

    Args:
        block: the sequence.
        length: how many tokens are wanted.
        eod: the end-of-document token.
    """
    begins = np.flatnonzero(block[: len(block) - length] == eod) + 1
    first = int(begins[0]) if len(begins) else 0
    return np.array(block[first : first + length])


def _as_base_text(table: pa.Table, source: I64, tokens: list[np.ndarray]) -> pa.Table:
    """Returns the rows with what says whose data it is replaced: base text is no experiment's."""
    n = len(table)
    changes = {
        "experiment": [""] * n,
        "item": [str(number) for number in source.tolist()],
        "arm": [""] * n,
        "variant": [0] * n,
        "part": [0] * n,
        "digest": [payload_digest(ids) for ids in tokens],
        "source_sequence": source,
    }
    columns = [
        pa.array(changes[field.name], field.type) if field.name in changes else table[field.name]
        for field in PLACEMENTS
    ]
    return pa.table(columns, schema=PLACEMENTS)


def _write_train(
    prepared: Prepared, source: I64, where: Places, tokens: list[np.ndarray], folder: Path
) -> dict[str, FileRecord]:
    """Returns the records of the files of train/, after writing them chunk by chunk."""
    geometry = prepared.geometry
    order = TrainingOrder(prepared.topology, geometry.layout())
    reader = BaseReader(prepared.request.build, prepared.record)
    chunk, block = order.slots(where.sequence)
    files: dict[str, FileRecord] = {}
    for number in range(geometry.chunks):
        blocks = reader.read(source[order.contents_of(number)])
        inside = np.flatnonzero(chunk == number)
        _overwrite(blocks, block[inside], where, inside, tokens, prepared.record.tokenizer.eod_id)
        name = f"{TRAIN}/{chunk_name(number)}"
        written = write_chunk(folder / name, blocks, digest_blocks=False)
        files[name] = FileRecord(bytes=written.bytes, digest=written.digest)
    shape = (geometry.chunks, geometry.blocks_per_chunk)
    name = f"{TRAIN}/{INDEX_NAME}"
    write_text(folder / name, index_text(*shape, geometry.sequence_tokens, geometry.dtype))
    return files | {name: file_record(folder / name)}


def _overwrite(
    blocks: Tokens, row: I64, where: Places, inside: I64, tokens: list[np.ndarray], eod: int
) -> None:
    """Writes the payloads of a chunk over its blocks, separators around those that need them."""
    if not len(inside):
        return
    own = [tokens[n] for n in inside.tolist()]
    length = np.array([len(ids) for ids in own], dtype=np.int64)
    offset, parted = where.offset[inside], ~where.whole[inside]
    write_separators(blocks, row[parted], offset[parted], length[parted], eod)
    pool = PayloadPool(np.concatenate(own).astype(np.uint32))
    write_payloads(blocks, row, offset, np.cumsum(length) - length, length, pool)


def _placements(prepared: Prepared, table: pa.Table, where: Places) -> pa.Table:
    """Returns the rows of the manifest with the places that their payloads have in the run.

    Steps and sequences are counted as in the build: they go on behind the checkpoint.
    """
    geometry = prepared.geometry
    order = TrainingOrder(prepared.topology, geometry.layout())
    chunk, block = order.slots(where.sequence)
    step, _ = order.steps(where.sequence)
    length = np.asarray(table["length"].to_numpy(), dtype=np.int64)
    parted = ~where.whole
    byte = token_byte(block, where.offset, geometry.sequence_tokens, geometry.dtype)
    made = {
        "copy": _copy_numbers(table),
        "step": prepared.step + step,
        "sequence": prepared.step * geometry.global_batch + where.sequence,
        "chunk": chunk_names(chunk),
        "block": block,
        "offset": where.offset,
        "byte": byte,
        "loss_tokens": length - where.whole,
        "changed_offset": where.offset - parted,
        "changed_length": length + SEPARATORS * parted,
        "mode": [MODES[SEQUENCE if one else OVERWRITE] for one in where.whole.tolist()],
    }
    columns = [
        pa.array(made[field.name], field.type) if field.name in made else table[field.name]
        for field in PLACEMENTS
    ]
    return pa.table(columns, schema=PLACEMENTS)


def _copy_numbers(table: pa.Table) -> list[int]:
    """Returns which time each payload comes, from 0."""
    seen: dict[tuple[str, str, str], int] = {}
    numbers = []
    rows = zip(*(table[name].to_pylist() for name in ("experiment", "item", "digest")), strict=True)
    for key in rows:
        numbers.append(seen.get(key, 0))
        seen[key] = numbers[-1] + 1
    return numbers


def _write_base(prepared: Prepared, source: I64, path: Path) -> None:
    """Writes which base sequence of the build each sequence of the run is; the spare one last."""
    first = prepared.step * prepared.geometry.global_batch
    columns = [pa.array(first + np.arange(len(source))), pa.array(source)]
    with replacing(path) as partial:
        pq.write_table(pa.table(columns, schema=BASE), partial, compression="zstd")


def _check_read(prepared: Prepared, folder: Path) -> None:
    """Compares what the stock loader reads with the training order, all of it."""
    alone = {"geometry": prepared.geometry, "control": False}
    findings, _ = check_loader(folder, prepared.record.model_copy(update=alone), full=True)
    if findings:
        raise VerificationError(findings)
