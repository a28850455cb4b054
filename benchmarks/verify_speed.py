"""Times `mixctl verify`: sampled, of a paper-size build; `--full`, beside `cat` of the same files.

    .venv/bin/python benchmarks/verify_speed.py [--folder DIR] [--megabytes 1000] [--json FILE]

The paper-size build has 51.2 million sequences of 4,097 tokens for 8 x 8 ranks and 5 million
placements of 50,000 items. Its chunks are files with holes, all tokens 0, so it takes no room on
the disk; manifest, digests and index files are those of any other build. `--full` reads a real
build of so many megabytes of text with its twin; `cat` is given the same chunk files: out of the
page cache for both, and, where this process may empty it (as root), from the disk for both, which
is how a build larger than memory is read. Wall time and processor time of all processes, their
start included; a sampled `verify` says what of it is start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from corpora import experiments, write_corpus, write_mix
from processes import Measured, measure

from mixctl.pipeline.sealing import file_record, write_indexes
from mixctl.shards.chunks import (
    HEADER_BYTES,
    block_digests,
    chunk_name,
    chunk_names,
    header,
    token_byte,
)
from mixctl.shards.files import digest_bytes
from mixctl.shards.layout import Layout, train_layout, val_layout
from mixctl.shards.manifest import (
    BLOCKS,
    ITEMS,
    PLACEMENTS,
    REPLACEMENTS,
    payload_digest,
    write_table,
    write_tables,
)
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import (
    BuildRecord,
    FileRecord,
    Geometry,
    TokenizerRecord,
    Totals,
    write_record,
)
from mixctl.shards.topology import Topology

N_SEQUENCES, BATCH, MAX_LENGTH, CHUNK_BYTES = 51_200_000, 1024, 4096, 64 << 20
N_ITEMS, COPIES, LENGTH = 50_000, 100, 64
VALIDATION = 4096
_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    """Prints what verify takes, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.folder.resolve()
    results = {**_sampled(folder / "paper-size"), **_full(folder, given.megabytes)}
    print(json.dumps(results, indent=1))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _sampled(build: Path) -> dict[str, float]:
    shutil.rmtree(build, ignore_errors=True)
    write_paper_size(build)
    took = _verify(build)
    shutil.rmtree(build)
    return {
        "sampled, 51.2M sequences and 5M placements, s": took.seconds,
        "its processor time, s": took.processor_seconds,
        "its peak memory, MB": took.peak_bytes / 1e6,
    }


def _full(folder: Path, megabytes: int) -> dict[str, float]:
    corpus, build = write_corpus(folder, megabytes), folder / "built"
    mix = write_mix(folder / "mix", corpus, experiments(corpus.tokens))
    shutil.rmtree(build, ignore_errors=True)
    measure([*_MIXCTL, "build", str(mix), "--out", str(build), "--control", "--workers", "2"])
    chunks = sorted(build.rglob("*.bin"))
    size = sum(path.stat().st_size for path in chunks)
    sampled = _verify(build)
    results = {"shards, MB": size / 1e6, "sampled verify of the same build, s": sampled.seconds}
    results |= _beside_cat(build, chunks, sampled.seconds, "cached", lambda: None)
    if os.access(_CACHES, os.W_OK):
        results |= _beside_cat(build, chunks, sampled.seconds, "from disk", _empty_cache)
    shutil.rmtree(build)
    return results | {"load average": os.getloadavg()[0]}


def _beside_cat(
    build: Path, chunks: list[Path], start: float, what: str, prepare: Callable[[], None]
) -> dict[str, float]:
    """Returns what `verify --full` and `cat` take for the same files, after `prepare`."""
    size = sum(path.stat().st_size for path in chunks)
    prepare()
    read = measure(["cat", *map(str, chunks)])
    prepare()
    full = _verify(build, "--full")
    return {
        f"{what}: cat, MB/s": size / read.seconds / 1e6,
        f"{what}: verify --full, MB/s": size / full.seconds / 1e6,
        f"{what}: the same without its start, MB/s": size / (full.seconds - start) / 1e6,
        f"{what}: verify --full, processor time, s": full.processor_seconds,
        f"{what}: verify --full over cat": read.seconds / full.seconds,
        f"{what}: the same without its start": read.seconds / (full.seconds - start),
    }


def _empty_cache() -> None:
    os.sync()
    _CACHES.write_text("3\n", encoding="utf-8")


_MIXCTL = (sys.executable, "-m", "mixctl.pipeline.cli")


def _verify(build: Path, *options: str) -> Measured:
    return measure([*_MIXCTL, "verify", str(build), *options])


def write_paper_size(build: Path) -> None:
    """Writes a build of zeros that verifies, its chunks as files with holes."""
    run = Topology(8, 8, 4, 4, BATCH, MAX_LENGTH, N_SEQUENCES * MAX_LENGTH, 42)
    layout = train_layout(run, 2, CHUNK_BYTES)
    val = val_layout(run, VALIDATION, 2, CHUNK_BYTES)
    geometry = Geometry.of(run, layout, val, VALIDATION, "uint16")
    files = _write_chunks(build / "train", layout) | _write_chunks(build / "val", val)
    write_tables(BLOCKS, _blocks(layout), build / "manifest/blocks.parquet")
    order = TrainingOrder(run, layout)
    write_table(_items(), build / "manifest/items.parquet")
    write_table(_placements(order), build / "manifest/placements.parquet")
    write_table(REPLACEMENTS.empty_table(), build / "manifest/replacements.parquet")
    _write_trainer(build, geometry)
    tables = [f"manifest/{one}.parquet" for one in ("blocks", "items", "placements")]
    written = [*tables, "manifest/replacements.parquet", "litgpt.yaml"]
    written += write_indexes(build, geometry, control=False)
    files |= {name: file_record(build / name) for name in written}
    zeros = Totals(
        items=N_ITEMS, placements=N_ITEMS * COPIES, tokens=N_ITEMS * COPIES * LENGTH, share=0.0
    )
    record = BuildRecord(
        config={"chunk_bytes": CHUNK_BYTES, "trainer_config": {}, "experiments": []},
        geometry=geometry,
        tokenizer=TokenizerRecord(digest="", vocab_size=50_000, eod="", eod_id=0, bos_id=None),
        control=False,
        corpus={},
        digests={},
        versions={},
        files=files,
        totals={"zeros": zeros},
    )
    write_record(build, record)


def _write_chunks(folder: Path, layout: Layout) -> dict[str, FileRecord]:
    """Returns the records of chunk files that are a header and a hole; sampling reads no digest."""
    folder.mkdir(parents=True)
    n_bytes = layout.blocks_per_chunk * (MAX_LENGTH + 1) * 2
    record = FileRecord(bytes=HEADER_BYTES + n_bytes, digest=digest_bytes(b""))
    for chunk in range(layout.n_chunks):
        with (folder / chunk_name(chunk)).open("wb") as file:
            file.write(header(n_bytes))
            file.truncate(HEADER_BYTES + n_bytes)
    names = chunk_names(np.arange(layout.n_chunks))
    return {f"{folder.name}/{name}": record for name in names}


def _blocks(layout: Layout) -> Iterator[pa.Table]:
    (digest,) = block_digests(np.zeros((1, MAX_LENGTH + 1), dtype="<u2"))
    n = layout.blocks_per_chunk
    block, digests = pa.array(np.arange(n), pa.int32()), pa.array([digest]).take([0] * n)
    for chunk in range(layout.n_chunks):
        name = pa.array([chunk_name(chunk)]).take([0] * n)
        yield pa.table([name, block, digests], schema=BLOCKS)


def _item_names() -> list[str]:
    return [f"item-{n:06d}" for n in range(N_ITEMS)]


def _items() -> pa.Table:
    same = {"experiment": "zeros", "kind": "documents", "arm": "x", "stratum": "all", "meta": "{}"}
    tokens = [np.zeros(LENGTH, dtype=np.uint32)] * N_ITEMS
    columns = {
        **{name: [value] * N_ITEMS for name, value in same.items()},
        "item": _item_names(),
        "cluster": _item_names(),
        "copies": [COPIES] * N_ITEMS,
        "tokens": tokens,
        "text": [None] * N_ITEMS,
    }
    return pa.table([columns[name] for name in ITEMS.names], schema=ITEMS)


def _placements(order: TrainingOrder) -> pa.Table:
    """Returns placements of all items, one a sequence, at offsets that fit."""
    n, rng = N_ITEMS * COPIES, np.random.default_rng(0)
    sequence = rng.permutation(N_SEQUENCES)[:n]
    offset = rng.integers(1, MAX_LENGTH - LENGTH, n)
    chunk, block = order.slots(sequence)
    item = np.repeat(np.arange(N_ITEMS), COPIES)
    texts = {
        "experiment": ["zeros"],
        "arm": ["x"],
        "digest": [payload_digest(np.zeros(LENGTH, dtype=np.uint32))],
        "mode": ["overwrite"],
        "item": _item_names(),
        "chunk": chunk_names(np.arange(order.layout.n_chunks)),
    }
    rows = {"item": item, "chunk": chunk}
    numbers = {
        "copy": np.tile(np.arange(COPIES), N_ITEMS),
        "step": sequence // BATCH + 1,
        "sequence": sequence,
        "block": block,
        "offset": offset,
        "length": LENGTH,
        "byte": token_byte(block, offset, MAX_LENGTH + 1, "uint16"),
        "loss_tokens": LENGTH,
        "changed_offset": offset - 1,
        "changed_length": LENGTH + 2,
    }
    columns = []
    for field in PLACEMENTS:
        if field.name in texts:
            which = rows.get(field.name, np.zeros(n, dtype=np.int64))
            columns.append(pa.array(texts[field.name]).take(pa.array(which)))
        elif field.name == "source_sequence":
            columns.append(pa.nulls(n, field.type))
        else:
            value = np.broadcast_to(numbers.get(field.name, 0), n)
            columns.append(pa.array(value, field.type))
    return pa.table(columns, schema=PLACEMENTS)


def _write_trainer(build: Path, geometry: Geometry) -> None:
    data = {
        "data_path": str(build),
        "split_names": ["train", "val"],
        "seed": geometry.data_seed,
        "num_workers": geometry.workers,
    }
    train = {
        "micro_batch_size": geometry.micro_batch,
        "global_batch_size": geometry.global_batch,
        "max_tokens": geometry.max_tokens,
        "max_seq_length": geometry.max_seq_length,
    }
    config = {
        "devices": geometry.devices,
        "num_nodes": geometry.nodes,
        "data": {"class_path": "LitData", "init_args": data},
        "train": train,
    }
    (build / "litgpt.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


if __name__ == "__main__":
    main()
