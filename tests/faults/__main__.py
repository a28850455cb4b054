"""`make faults`: some 250 faults over build, relayout, amend, eval and report; prints its counts.

    python -m tests.faults                      all
    python -m tests.faults eval --each 3        three of each kind in one scene
    python -m tests.faults eval --kind full --at 17

Ends with 1 when a fault left something lost, or something half-finished that is taken for finished.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.damage import damage
from tests.faults.inject import KINDS, Fault
from tests.faults.scenes import SCENES
from tests.faults.strike import places, strike

EACH = {"build": 9, "relayout": 7, "amend": 7, "eval": 5, "report": 3}
"""faults of each kind in a scene"""


def main() -> int:
    """Returns 1 when a fault was not survived."""
    names = [scene.name for scene in SCENES]
    options = argparse.ArgumentParser(prog="python -m tests.faults")
    options.add_argument("scenes", nargs="*", help=", ".join([*names, "damage"]))
    options.add_argument("--each", type=int)
    options.add_argument("--kind", choices=KINDS)
    options.add_argument("--at", type=int)
    asked = options.parse_args()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for scene_class in SCENES:
        if asked.scenes and scene_class.name not in asked.scenes:
            continue
        begin, n_before, name = time.monotonic(), counts.total(), scene_class.name
        with tempfile.TemporaryDirectory("-faults") as folder:
            scene = scene_class(Path(folder) / "root")
            for kind in [asked.kind] if asked.kind else KINDS:
                for at in [asked.at] if asked.at else places(scene, asked.each or EACH[name]):
                    problem = strike(scene, Fault(kind, at))
                    counts[kind] += 1
                    if problem is not None:
                        wrong.append(f"{name} --kind {kind} --at {at}: {problem}")
        n_faults, seconds = counts.total() - n_before, time.monotonic() - begin
        print(f"{name}: {n_faults} faults at {scene.n_writes} writes, {seconds:.0f} s", flush=True)
    if not asked.scenes or "damage" in asked.scenes:
        with tempfile.TemporaryDirectory("-faults") as folder:
            found, problems = damage(Path(folder))
        counts += found
        wrong += problems
    print(
        f"{counts.total()} faults, {len(wrong)} not survived: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    )
    print("\n\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
