"""Memory of a whole build, with experiments and twin, for 1 GB of text and for 10 GB.

The experiments are the same in both: some 2% of the smaller run. Another build of the larger corpus
has ten times as many items (125,000, most of them made word problems), for what an item takes.

    .venv/bin/python benchmarks/build_memory.py [--folder DIR] [--json FILE]

Two workers; all processes of the build together, pages that they share counted once. The peak is
told with and without the pages of mapped files. Needs 40 GB of disk, 10 of them for the corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from corpora import BenchCorpus, experiments, write_corpus, write_mix
from processes import Measured, measure

MEGABYTES = (1_000, 10_000)
NEEDED = 1.2
"""times the memory for 1 GB"""


def main() -> None:
    """Prints the peaks and their ratio, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.folder.resolve()
    corpora = [write_corpus(folder, n) for n in MEGABYTES]
    small, large = (_built(folder, corpus, corpora[0].tokens) for corpus in corpora)
    more = _built(folder, corpora[1], corpora[1].tokens)
    results = {
        "1 GB, peak, MB": small.peak_bytes / 1e6,
        "10 GB, peak, MB": large.peak_bytes / 1e6,
        "1 GB, peak without mapped files, MB": small.peak_own_bytes / 1e6,
        "10 GB, peak without mapped files, MB": large.peak_own_bytes / 1e6,
        "ratio": large.peak_bytes / small.peak_bytes,
        "ratio without mapped files": large.peak_own_bytes / small.peak_own_bytes,
        "ratio needed at most": NEEDED,
        "10 GB and ten times the items, peak, MB": more.peak_bytes / 1e6,
        "10 GB and ten times the items, peak without mapped files, MB": more.peak_own_bytes / 1e6,
        "1 GB, seconds": small.seconds,
        "10 GB, seconds": large.seconds,
        "1 GB, seconds of processor": small.processor_seconds,
        "10 GB, seconds of processor": large.processor_seconds,
        "load average": os.getloadavg()[0],
    }
    results = {name: round(value, 2) for name, value in results.items()}
    print(json.dumps(results, indent=1))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _built(folder: Path, corpus: BenchCorpus, planted_for: int) -> Measured:
    """Returns what a build takes with the experiments for a run of so many tokens."""
    out = folder / "built"
    mix = write_mix(folder / "mix", corpus, experiments(planted_for))
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "build", str(mix), "--out", str(out)]
    took = measure([*command, "--control", "--workers", "2"])
    shutil.rmtree(out)
    return took


if __name__ == "__main__":
    main()
