"""Corpus to sealed shards: mixctl against what a user would write today, side by side.

    make bench-build                    a corpus of 300 MB, the peers timed on slices of it
    python benchmarks/build_speed.py --megabytes 1000 --whole-peers

mixctl builds everything: the ten experiments of the reference run planted (ten_experiments.py), the
control twin, digests, manifest, seal. For what experiments cost, builds with the ten, with three
that have seven times as many items for so many tokens, and without any are made in turn, at this
size and at a larger one. Told is the median over rounds of one over the other in the same round:
the speed of a machine drifts by more than what is measured. The peers (tokenize_peers.py) write the
tokens once and nothing else.
Same text, same tokenizer (GPT-NeoX), two worker processes each; every run is a program of its own,
its start included. The peers' rate does not depend on the size, so they are timed on two slices,
and their time at full size is the line through both; `--whole-peers` times them at full size
instead.

On a machine with other work, wall time says little: the ratio of processor time is printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from corpora import BenchCorpus, experiments, write_corpus, write_mix, write_slice, write_tokenizer
from processes import Measured, measure
from ten_experiments import ten_experiments, write_items

from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA

WORKERS = 2
ROUNDS = (15, 9)
"""at each size, builds with experiments and without in turn: what they cost is small"""
MANY_EVERY = 3
"""rounds: a build with many items"""
SLICES = (10, 40)
NEEDED = 10.0
_TEN, _MANY, _PLAIN = "mixctl", "mixctl, many items", "mixctl, no experiments"


@dataclass(frozen=True)
class Run:
    """One program over so much text."""

    program: str
    megabytes: int
    round: int
    seconds: float
    processor_seconds: float
    peak_bytes: int
    peak_own_bytes: int


def main() -> None:
    """Runs everything and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--larger", type=int, default=1000, help="for what experiments cost")
    parser.add_argument("--whole-peers", action="store_true")
    parser.add_argument("--results", type=Path, help="folder of the JSON and the plot")
    given = parser.parse_args()
    sizes = [given.megabytes, given.larger]
    runs = run_all(given.folder.resolve(), sizes, given.whole_peers)
    report(runs, sizes, (given.results or given.folder) / "build_speed")


def run_all(folder: Path, sizes: list[int], whole_peers: bool) -> list[Run]:
    """Returns mixctl at several sizes, and the peers at theirs."""
    megabytes = sizes[0]
    corpora = {n: write_corpus(folder, n) for n in (megabytes // 10, megabytes // 3, *sizes)}
    _mixctl(folder, min(corpora), corpora[min(corpora)])  # fills the caches of files and modules
    runs = [_mixctl(folder, n, corpora[n]) for n in (megabytes // 10, megabytes // 3)]
    for size, rounds in zip(sizes, ROUNDS, strict=True):
        for number in range(rounds):
            programs = [_TEN, _PLAIN] if number % 2 else [_PLAIN, _TEN]
            programs += [] if number % MANY_EVERY else [_MANY]
            runs += [_mixctl(folder, size, corpora[size], one, number) for one in programs]
    for size in (megabytes,) if whole_peers else SLICES:
        sliced = write_slice(corpora[megabytes], folder / f"slice-{size}", size, WORKERS)
        for peer in ("litdata", "datatrove"):
            runs.append(_peer(folder, peer, size, sliced))
        shutil.rmtree(sliced)
    return runs


def _mixctl(
    folder: Path, megabytes: int, corpus: BenchCorpus, program: str = _TEN, number: int = 0
) -> Run:
    out, place = folder / "built", folder / "mix"
    if program == _TEN:
        sections = ten_experiments(corpus.tokens)
        mix = write_mix(write_items(place, corpus), corpus, sections, data=GAUSSIAN_DATA)
    else:
        mix = write_mix(place, corpus, experiments(corpus.tokens) if program == _MANY else ())
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "build", str(mix), "--out", str(out)]
    command += ["--control", "--workers", str(WORKERS)]
    return _run(program, megabytes, command, out, number)


def _peer(folder: Path, peer: str, megabytes: int, sliced: Path) -> Run:
    out = folder / f"built-{peer}"
    script = str(Path(__file__).with_name("tokenize_peers.py"))
    tokenizer = write_tokenizer(folder)
    command = [sys.executable, script, peer, str(sliced), str(tokenizer), str(out)]
    return _run(peer, megabytes, command, out)


def _run(program: str, megabytes: int, command: list[str], out: Path, number: int = 0) -> Run:
    """Returns what a program took; what it wrote is removed."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    measured: Measured = measure(command)
    shutil.rmtree(out, ignore_errors=True)
    run = Run(program, megabytes, number, *measured)
    print(
        f"{program:22} {megabytes:6} MB {run.seconds:8.1f} s {run.processor_seconds:8.1f} s of "
        f"processor {run.peak_bytes / 2**20:8.0f} MiB   load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return run


def at_size(runs: list[Run], program: str, megabytes: int, what: str) -> float:
    """Returns the seconds of a program at a size: median, or on the line through two sizes."""
    points = [(run.megabytes, getattr(run, what)) for run in runs if run.program == program]
    if measured := [seconds for size, seconds in points if size == megabytes]:
        return statistics.median(measured)
    (x1, y1), (x2, y2) = points
    return float(y1 + (megabytes - x1) * (y2 - y1) / (x2 - x1))


def with_over_without(runs: list[Run], size: int, program: str, what: str) -> dict[str, float]:
    """Returns what the experiments cost: quartiles over the rounds of with over without."""
    planted, plain = (
        {r.round: getattr(r, what) for r in runs if (r.program, r.megabytes) == (name, size)}
        for name in (program, _PLAIN)
    )
    ratios = [seconds / plain[number] for number, seconds in planted.items()]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "quarter": low, "three quarters": high}


def report(runs: list[Run], sizes: list[int], path: Path) -> None:
    """Prints the ratios, writes the JSON result and the plot."""
    ratios: dict[str, dict[str, float]] = {}
    for what in ("seconds", "processor_seconds"):
        ours = at_size(runs, _TEN, sizes[0], what)
        peers = {peer: at_size(runs, peer, sizes[0], what) for peer in ("litdata", "datatrove")}
        ratios[what] = {peer: seconds / ours for peer, seconds in peers.items()}
        shown = ", ".join(f"{ratio:.1f}x {peer}" for peer, ratio in ratios[what].items())
        print(f"{sizes[0]} MB, {what.replace('_', ' ')}: mixctl is {shown}; needed: {NEEDED:.0f}x")
        for program, size in product((_TEN, _MANY), sizes):
            name = f"{program} over no experiments, {size} MB, {what}"
            found = ratios[name] = with_over_without(runs, size, program, what)
            between = f"{found['quarter']:.3f} to {found['three quarters']:.3f}"
            print(f"{name}: {found['median']:.3f}, the middle half {between}")
    machine = {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()}
    result = {"machine": machine, "runs": [asdict(run) for run in runs], "ratios": ratios}
    result["when"] = time.strftime("%Y-%m-%d")
    path.with_suffix(".json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    _plot(runs, path.with_suffix(".png"))


def _processor() -> str:
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":")[1].strip() for line in found.splitlines() if "Model name" in line]
    return names[0] if names else platform.processor()


def _plot(runs: list[Run], path: Path) -> None:
    """Draws time by the clock and of the processor, and peak memory, against size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = {
        "seconds": lambda run: run.seconds,
        "seconds of processor": lambda run: run.processor_seconds,
        "peak memory, GiB": lambda run: run.peak_bytes / 2**30,
    }
    figure, axes = plt.subplots(1, len(drawn), figsize=(12, 3.5), layout="constrained")
    for program in dict.fromkeys(run.program for run in runs):
        mine = sorted((r for r in runs if r.program == program), key=lambda r: r.megabytes)
        sizes = [run.megabytes for run in mine]
        for axis, value in zip(axes, drawn.values(), strict=True):
            axis.plot(sizes, [value(run) for run in mine], "o-", label=program)
    for axis, name in zip(axes, drawn, strict=True):
        axis.set(xlabel="MB of text", ylabel=name, xlim=(0, None), ylim=(0, None))
    axes[0].legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
