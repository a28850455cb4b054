"""Prints what `mixctl plan` of the reference mix takes: wall and processor time, and memory.

Run by `make bench-plan`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIX = Path(__file__).parents[1] / "examples/train-once-answer-all.yaml"


def main() -> None:
    """Plans the mix once, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mixctl.pipeline.cli", "plan", str(MIX), "--json"]
        begin = time.monotonic()
        subprocess.run(
            [*command, "--picture", f"{folder}/plan.png"], check=True, stdout=subprocess.DEVNULL
        )
        wall = time.monotonic() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{wall:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor", end=", ")
    print(f"{used.ru_maxrss / 2**20:.2f} GiB; the limits are 180 s and 4 GB on 2 cores")


if __name__ == "__main__":
    main()
