"""Times the planning of a million and of ten million placements, beside an interval tree.

    .venv/bin/python benchmarks/plan_speed.py [--json FILE]

Items of 100 tokens, a hundred copies each, go to a run of 51.2 million sequences of 4,097 tokens:
every copy gets a stream of its own, a sequence and an offset, and no two touch. The peer draws a
random place, asks a sorted list of the intervals placed so far (bisect, which is faster than a tree
in Python), and draws again where it touches one; it is timed on 100,000 copies. Each case runs in a
process of its own; times are of the processor and of the wall.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mixctl.pipeline.placement import Occupied, Requests, place
from mixctl.shards.draws import bits, streams

N_SEQUENCES, WIDTH, EXTENT, COPIES = 51_200_000, 4097, 102, 100
CASES = {"1 million": 1_000_000, "10 million": 10_000_000}
PEER = 100_000


def main() -> None:
    """Prints the times, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(_peer() if chosen.case == "peer" else _planned(CASES[chosen.case])))
        return
    results = {case: _in_a_process(case) for case in (*CASES, "peer")}
    print(json.dumps(results, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _in_a_process(case: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(made.stdout)
    return found


def _planned(n: int) -> dict[str, float]:
    clock, wall = time.process_time(), time.perf_counter()
    item_keys = streams([f"item-{i}" for i in range(n // COPIES)], 17, "placement", "bench")
    key = bits(np.repeat(item_keys, COPIES), np.tile(np.arange(COPIES), n // COPIES))
    first, stop = np.zeros(n, np.int64), np.full(n, N_SEQUENCES)
    requests = Requests(key, first, stop, np.full(n, EXTENT))
    sequence, offset, _ = place(requests, Occupied.nothing(), WIDTH)
    results = {
        "processor, s": time.process_time() - clock,
        "wall, s": time.perf_counter() - wall,
        "placements a second": n / (time.process_time() - clock),
    }
    line = np.sort(sequence * (WIDTH + 1) + offset)
    if (np.diff(line) <= EXTENT).any():
        raise SystemExit("two placements touch")
    return results | {"peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _peer() -> dict[str, float]:
    chance, begins = random.Random(0), list[int]()
    clock, wall = time.process_time(), time.perf_counter()
    for _ in range(PEER):
        while True:
            sequence = chance.randrange(N_SEQUENCES)
            begin = sequence * (WIDTH + 1) + chance.randrange(WIDTH - EXTENT + 1)
            at = bisect.bisect_left(begins, begin)
            left = at == 0 or begins[at - 1] + EXTENT < begin
            if left and (at == len(begins) or begin + EXTENT < begins[at]):
                begins.insert(at, begin)
                break
    used = time.process_time() - clock
    return {
        "processor, s": used,
        "wall, s": time.perf_counter() - wall,
        "placements a second": PEER / used,
    }


if __name__ == "__main__":
    main()
