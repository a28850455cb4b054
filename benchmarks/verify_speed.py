"""Times `mixctl verify`: sampled, of a paper-size build; `--full`, beside `cat` of the same files.

    .venv/bin/python benchmarks/verify_speed.py [--folder DIR] [--megabytes 1000] [--times 6]
        [--json FILE]

The paper-size build has 51.2 million sequences of 4,097 tokens for 8 x 8 ranks and 5 million
placements of 50,000 items. Its chunks are files with holes, all tokens 0, so it takes no room on
the disk; manifest, digests and index files are those of any other build. `--full` reads two real
builds with their twins: of so many megabytes of text, and of the same text read so many times, with
as many times the placements. `cat` is given the same chunk files: out of the page cache for both,
and, where this process may empty it (as root), from the disk for both, which is how a build larger
than memory is read.

Wall time and processor time of all processes, start included. What of it is start, imports and the
loader's processes and all that is not the bytes, is said in two ways: what a sampled `verify` of
the same build takes, and what the larger build takes more than the smaller one, for its further
bytes. Each is the least of three runs, `cat` and `verify` in turn, since the start alone varies by
more than a gigabyte takes. A build that is there already is used again; the builds are removed at
the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
_RUNS = 3
_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    """Prints what verify takes, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--times", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.folder.resolve()
    builds = [_built(folder, given.megabytes, times) for times in (1, given.times)]
    results = {**_full(builds), **_sampled(folder / "paper-size")}
    results["load average"] = os.getloadavg()[0]
    results = {name: round(value, 3) for name, value in results.items()}
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


def _built(folder: Path, megabytes: int, times: int) -> Path:
    """Returns a build with its twin of a corpus that is read so many times."""
    corpus, build = write_corpus(folder, megabytes), folder / f"built-{times}"
    sections = experiments(corpus.tokens * times)
    mix = write_mix(folder / f"mix-{times}", corpus, sections)
    for path, section, changes in (
        (mix, "corpus", {"repeat": times > 1}),
        (mix.parent / "trainer.yaml", "train", {"max_tokens": _max_tokens(mix) * times}),
    ):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config[section] |= changes
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    measure([*_MIXCTL, "build", str(mix), "--out", str(build), "--control", "--workers", "2"])
    return build


def _max_tokens(mix: Path) -> int:
    trainer = yaml.safe_load((mix.parent / "trainer.yaml").read_text(encoding="utf-8"))
    return int(trainer["train"]["max_tokens"])


@dataclass(frozen=True)
class _Read:
    """What `cat` and `verify --full` take for the chunk files of a build."""

    n_bytes: int
    cat: Measured
    full: Measured


def _full(builds: Sequence[Path]) -> dict[str, float]:
    """Returns what `verify --full` and `cat` take for each build, cached and from the disk."""
    results: dict[str, float] = {}
    start = [min(_verify(build) for _ in range(_RUNS)).seconds for build in builds]
    ways: dict[str, Callable[[], None]] = {"cached": lambda: None}
    if os.access(_CACHES, os.W_OK):
        ways["from disk"] = _empty_cache
    for way, prepare in ways.items():
        reads = [_read(build, prepare) for build in builds]
        for read, sampled in zip(reads, start, strict=True):
            results |= _ratios(f"{way}, {read.n_bytes / 1e9:.1f} GB", read, sampled)
        more = reads[1].n_bytes - reads[0].n_bytes
        full, cat = (
            more / (getattr(reads[1], name).seconds - getattr(reads[0], name).seconds) / 1e6
            for name in ("full", "cat")
        )
        results |= {
            f"{way}, each further byte: verify --full, MB/s": full,
            f"{way}, each further byte: cat, MB/s": cat,
            f"{way}, each further byte: verify --full over cat": full / cat,
        }
    for build in builds:
        shutil.rmtree(build)
    return results


def _read(build: Path, prepare: Callable[[], None]) -> _Read:
    chunks = sorted(build.rglob("*.bin"))
    command = ["cat", *map(str, chunks)]
    if prepare is not _empty_cache:
        measure(command)  # into the page cache
    cats, fulls = [], []
    for _ in range(_RUNS):
        prepare()
        cats.append(measure(command))
        prepare()
        fulls.append(_verify(build, "--full"))
    return _Read(sum(path.stat().st_size for path in chunks), min(cats), min(fulls))


def _ratios(what: str, read: _Read, start: float) -> dict[str, float]:
    """Returns speeds and ratios for one build, with its start and without.

    A small build takes no longer than its start: then there is nothing to say without it.
    """
    alone = read.full.seconds - start
    without = (
        {}
        if alone <= 0
        else {
            f"{what}: verify --full without its start, MB/s": read.n_bytes / alone / 1e6,
            f"{what}: verify --full over cat, without its start": read.cat.seconds / alone,
        }
    )
    return {
        f"{what}: cat, MB/s": read.n_bytes / read.cat.seconds / 1e6,
        f"{what}: verify --full, s": read.full.seconds,
        f"{what}: its processor time, s": read.full.processor_seconds,
        f"{what}: its peak memory without mapped files, MB": read.full.peak_own_bytes / 1e6,
        f"{what}: a sampled verify (the start), s": start,
        f"{what}: verify --full over cat": read.cat.seconds / read.full.seconds,
        **without,
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
