"""Times the mix stage on ready tokens, beside `cp` of its output and litdata's `optimize`.

    .venv/bin/python benchmarks/mix_speed.py [--megabytes 1000] [--workers 2] [--folder DIR]
                                             [--json FILE]

Random tokens in documents of 500 on average are mixed without any placement, then with 100,000 of
100 tokens; `cp` copies the finished train/ and syncs it, as every chunk is synced when it is
written; in turn, six times each, each of them first in two rounds, and the medians are compared.
`optimize` gets the same tokens on the same number of processes: as LitGPT's prepare scripts hand
them to it, an int32 tensor a document, which is what its tokenizer returns; as uint16, half the
bytes; and as uint16 rows of 2,049 tokens, ready for training, which is the least work that it can
be given. Those read them from files in its workers; as `inputs`, an array a sequence, every one
goes through a queue, so far fewer are given, twice, and what more of them take is its rate. All in
one run on one disk; what else the machine does is printed as its load, and what the mix stage alone
takes of one processor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixctl.pipeline.base_stream import BaseSource, lay
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.mixing import MixChunks, MixSource, n_mix_tasks
from mixctl.pipeline.overlay import Overlay, save_overlay
from mixctl.pipeline.patch import PayloadPool
from mixctl.pipeline.resolve import Replacements
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.pipeline.workers import start_workers
from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology

ROUNDS = 6
GIVEN_ROWS = (5_000, 20_000)
N_FILES, MEAN, WIDTH, BATCH, PLACEMENTS, LENGTH = 4, 500, 2049, 1024, 100_000, 100


def main() -> None:
    """Prints bytes a second and ratios, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; the default is temporary")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        results = _measure(Path(folder), chosen.megabytes, chosen.workers)
    print(json.dumps(results, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _measure(folder: Path, megabytes: int, workers: int) -> dict[str, float]:
    tokens = folder / "tokens"
    _write_tokens(tokens, megabytes * 500_000)
    base, lay_seconds = _laid(tokens, megabytes)
    start_workers("local", workers)
    # by the time of a mix a build's workers have imported all
    _mixed(folder / "first", base, workers, PLACEMENTS)
    train, made = folder / "first" / "train", folder / "made"
    size = sum(path.stat().st_size for path in train.iterdir())
    runs = [
        partial(_mixed, made, base, workers, 0),
        partial(_mixed, made, base, workers, PLACEMENTS),
        lambda: _seconds(partial(_copy, train, made)),
    ]
    plain, placed, copied = _medians(runs, made)
    shutil.rmtree(folder / "first")
    _optimize(tokens, 1, folder / "litdata-first", workers, _rows)  # fills the caches of modules
    optimize = {
        what: megabytes
        / 2
        / _seconds(partial(_optimize, tokens, N_FILES, folder / what, workers, read))
        for what, read in (("int32 documents", _int32), ("documents", _documents), ("rows", _rows))
    }
    first, more = (
        _seconds(partial(_optimize_given, tokens, n, folder / "given", workers)) for n in GIVEN_ROWS
    )
    given = (GIVEN_ROWS[1] - GIVEN_ROWS[0]) * WIDTH / 1e6 / (more - first)
    optimize["arrays as inputs"] = given
    alone = _processor_seconds(lambda: _mixed(folder / "alone", base, 1, PLACEMENTS))
    rates = {
        "mix, no placements, MB/s": size / plain / 1e6,
        "mix, 100,000 placements, MB/s": size / placed / 1e6,
        "cp and sync, MB/s": size / copied / 1e6,
        "mix, 100,000 placements, MB for a second of processor": size / alone / 1e6,
        "mix, 100,000 placements, million tokens/s": size / placed / 2e6,
        **{f"litdata optimize, {what}, million tokens/s": rate for what, rate in optimize.items()},
    }
    ratios = {
        "mix over cp": copied / placed,
        **{
            f"mix over optimize from {what}": size / placed / 2e6 / rate
            for what, rate in optimize.items()
        },
        "with over without placements, time": placed / plain,
    }
    load = {"order of the documents, s": lay_seconds, "load average": os.getloadavg()[0]}
    return {name: round(value, 2) for name, value in {**rates, **ratios, **load}.items()}


def _medians(runs: list[Callable[[], float]], made: Path) -> list[float]:
    """Returns the median of the seconds that each gives; in each round another is the first.

    What one has made is removed before the next: `cp`, which was the last of every round, beside
    what the others had made, was at a third of its speed on one of our machines.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(ROUNDS * len(runs)):
        number = (turn + turn // len(runs)) % len(runs)
        seconds[number].append(runs[number]())
        shutil.rmtree(made)
    return [statistics.median(column) for column in seconds]


def _write_tokens(folder: Path, n_tokens: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for task in range(N_FILES):
        lengths = rng.exponential(MEAN, n_tokens // N_FILES // MEAN).astype(np.int64) + 2
        tokens = rng.integers(1, 50_000, int(lengths.sum()), dtype=np.uint16)
        tokens[np.cumsum(lengths) - 1] = 0
        tokens.tofile(tokens_path(folder, task))
        np.save(lengths_path(folder, task), lengths)


def _laid(tokens: Path, megabytes: int) -> tuple[BaseSource, float]:
    steps = megabytes * 500_000 * 97 // 100 // WIDTH // BATCH
    base = BaseSource(tokens, N_FILES, "uint16", WIDTH, 17, 512, steps * BATCH, repeat=False)
    return base, _seconds(lambda: lay(base))


def _mixed(out: Path, base: BaseSource, workers: int, n_placements: int) -> float:
    """Returns the seconds of the mix stage, the start of its workers included."""
    run = Topology(1, 1, 2, 8, BATCH, WIDTH - 1, base.n_needed * (WIDTH - 1), 7)
    layout, val = train_layout(run, 2, 64 << 20), val_layout(run, 512, 2, 64 << 20)
    overlay = _overlay(base.n_needed, min(n_placements, base.n_needed))
    save_overlay(overlay, TrainingOrder(run, layout), out / "stage/overlay")
    source = MixSource(
        base, out / "stage/overlay", run, layout, val, 0, out, out / "stage/receipts", False
    )
    step, n_tasks = MixChunks(source), n_mix_tasks(layout, val)
    executor = ExecutorConfig(workers=workers)
    return _seconds(lambda: run_stage("mix", [step], out / "stage", n_tasks, executor))


def _overlay(n_sequences: int, n: int) -> Overlay:
    rng = np.random.default_rng(1)
    return Overlay(
        sequence=rng.permutation(n_sequences)[:n],
        offset=rng.integers(1, WIDTH - LENGTH - 1, n),
        begin=rng.integers(0, 100_000, n),
        length=np.full(n, LENGTH),
        source=np.full(n, -1),
        mode=np.zeros(n, dtype=np.int8),
        pool=PayloadPool(rng.integers(1, 50_000, 100_000 + LENGTH, dtype=np.uint32)),
        replacements=Replacements.nothing(),
    )


def _copy(train: Path, out: Path) -> None:
    subprocess.run(["cp", "-r", str(train), str(out)], check=True)
    subprocess.run(["sync", *map(str, out.iterdir())], check=True)


def _optimize(
    tokens: Path, n_files: int, out: Path, workers: int, read: Callable[..., Iterator[Any]]
) -> None:
    from litdata import TokensLoader, optimize

    optimize(
        fn=partial(read, tokens),
        inputs=list(range(n_files)),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=workers,
        item_loader=TokensLoader(),
    )
    shutil.rmtree(out)


def _optimize_given(tokens: Path, n_rows: int, out: Path, workers: int) -> None:
    from litdata import TokensLoader, optimize

    line = np.fromfile(tokens_path(tokens, 0), dtype="<u2", count=n_rows * WIDTH)
    optimize(
        fn=_tensor,
        inputs=list(line.reshape(n_rows, WIDTH)),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=workers,
        item_loader=TokensLoader(),
    )
    shutil.rmtree(out)


def _rows(tokens: Path, task: int) -> Iterator[Any]:
    line = np.memmap(tokens_path(tokens, task), dtype="<u2", mode="r")
    for begin in range(0, len(line) - WIDTH, WIDTH):
        yield _tensor(line[begin : begin + WIDTH])


def _documents(tokens: Path, task: int) -> Iterator[Any]:
    line = np.memmap(tokens_path(tokens, task), dtype="<u2", mode="r")
    ends = np.cumsum(np.load(lengths_path(tokens, task))).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        yield _tensor(line[begin:end])


def _int32(tokens: Path, task: int) -> Iterator[Any]:
    for tensor in _documents(tokens, task):
        yield tensor.int()


def _tensor(tokens: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(tokens))


def _processor_seconds(call: Callable[[], object]) -> float:
    """Returns the processor time of a call in this process."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
