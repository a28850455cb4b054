"""Times `mixctl relayout` from one device to four, beside `cp` of the same files, both synced.

    .venv/bin/python benchmarks/relayout_speed.py [--folder DIR] [--megabytes 1000] [--json FILE]

A build of so many megabytes of text and its twin; two workers. Relayout checks every byte of the
old build before it writes one, digests what it writes, and syncs each file. The start of the
command is in its time; what a command takes that finds nothing to do says how much that is. Each is
the median of four runs, in turn; in each round another is first, and what was made is removed and
synced before the next, as `cp` is slow beside what others have just written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from corpora import experiments, write_corpus, write_mix
from processes import Measured, measure

_RUNS = 4
_MIXCTL = (sys.executable, "-m", "mixctl.pipeline.cli")


def main() -> None:
    """Prints seconds and ratios, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = _measured(given.folder.resolve(), given.megabytes)
    print(json.dumps(results, indent=1))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _measured(folder: Path, megabytes: int) -> dict[str, float]:
    corpus, build, out = write_corpus(folder, megabytes), folder / "built", folder / "laid-out"
    mix = write_mix(folder / "mix", corpus, experiments(corpus.tokens))
    for left in (build, out, folder / "copied"):
        shutil.rmtree(left, ignore_errors=True)
    measure([*_MIXCTL, "build", str(mix), "--out", str(build), "--control", "--workers", "2"])
    trainer = _for_four_devices(mix.parent / "trainer.yaml")
    command = [*_MIXCTL, "relayout", str(build), "--trainer", str(trainer), "--out", str(out)]
    copy = f"cp -r {build} {folder}/copied && find {folder}/copied -name '*.bin' | xargs sync"
    relayouts, starts, copies = [], [], []
    for turn in range(2 * _RUNS):
        os.sync()
        if turn % 4 in (0, 3):
            relayouts.append(measure([*command, "--workers", "2"]))
            starts.append(measure([*command, "--workers", "2"]))
            shutil.rmtree(out)
        else:
            copies.append(measure(["sh", "-c", copy]))
            shutil.rmtree(folder / "copied")
    took, again, copied = (_median(runs, "seconds") for runs in (relayouts, starts, copies))
    size = sum(path.stat().st_size for path in build.rglob("*.bin"))
    shutil.rmtree(build)
    found = {
        "shards, MB": size / 1e6,
        "relayout, s": took,
        "relayout, processor time, s": _median(relayouts, "processor_seconds"),
        "relayout where nothing is to be done, s": again,
        "its processor time, s": _median(starts, "processor_seconds"),
        "cp and sync, s": copied,
        "relayout without its start over cp, bytes a second": copied / (took - again),
        "the same, start included": copied / took,
        "load average": os.getloadavg()[0],
    }
    return {name: round(value, 2) for name, value in found.items()}


def _median(runs: Sequence[Measured], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


def _for_four_devices(trainer: Path) -> Path:
    config = yaml.safe_load(trainer.read_text(encoding="utf-8"))
    config["devices"] = 4
    config["train"]["micro_batch_size"] = config["train"]["global_batch_size"] // 4
    other = trainer.with_name("four-devices.yaml")
    other.write_text(yaml.safe_dump(config), encoding="utf-8")
    return other


if __name__ == "__main__":
    main()
