"""Times the training order of a paper-size run: 51.2 million sequences on 8 x 8 ranks.

    .venv/bin/python benchmarks/order_speed.py [--json FILE]

Every training position is asked for its slot, and every slot for its position, once in the order of
training and once in random order, a million at a time; the tables are made first, and timed alone.
Then a manifest of 5 million placements is written, opened, and one item's exposures are listed.
Times are of the processor, which another process on the machine does not change much, and of the
wall.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.shards.layout import train_layout
from mixctl.shards.manifest import PLACEMENTS, read_placements, write_table
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology

N_SEQUENCES, BATCH, LENGTH = 51_200_000, 1024, 4096
PART = 1_000_000
N_ITEMS, COPIES = 50_000, 100


def main() -> None:
    """Prints the times, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results = {**_order(), **_manifest()}
    results["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(results, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _order() -> dict[str, float]:
    run = Topology(8, 8, 4, 4, BATCH, LENGTH, N_SEQUENCES * LENGTH, 42)
    order = TrainingOrder(run, train_layout(run, 2, 64 << 20))
    results = {"tables, s": _timed(lambda: order.sequences(*order.slots(np.arange(2))))[0]}
    asked = {
        "in order": np.arange(N_SEQUENCES),
        "at random": np.random.default_rng(0).permutation(N_SEQUENCES),
    }
    for name, sequences in asked.items():
        there = back = 0.0
        for at in range(0, N_SEQUENCES, PART):
            part = sequences[at : at + PART]
            seconds, (chunk, block) = _timed(lambda part=part: order.slots(part))
            there += seconds
            seconds, found = _timed(lambda c=chunk, b=block: order.sequences(c, b))
            back += seconds
            if not np.array_equal(found, part):
                raise SystemExit("a slot does not lead back to its training position")
        results[f"slot of a position, {name}, microseconds"] = there / N_SEQUENCES * 1e6
        results[f"position of a slot, {name}, microseconds"] = back / N_SEQUENCES * 1e6
    return results


def _manifest() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        write_table(_placements(), build / "manifest/placements.parquet")
        wall, everything = _timed(lambda: read_placements(build).num_rows, time.perf_counter)
        one, rows = _timed(
            lambda: read_placements(build, experiment="exp-1", item="item-012345"),
            time.perf_counter,
        )
    if (everything, rows.num_rows) != (N_ITEMS * COPIES, COPIES):
        raise SystemExit("the manifest does not hold what was written")
    return {"5M placements, all read, s": wall, "5M placements, one item listed, s": one}


def _placements() -> pa.Table:
    n = N_ITEMS * COPIES
    item = np.repeat(np.arange(N_ITEMS), COPIES)
    names = pa.array([f"item-{i:06d}" for i in range(N_ITEMS)])
    integers = np.random.default_rng(1).integers(0, N_SEQUENCES, n)
    columns = []
    for field in PLACEMENTS:
        if field.name == "experiment":
            column = pa.array(["exp-1"] * (n // 2) + ["exp-2"] * (n - n // 2))
        elif field.name == "item":
            column = names.take(pa.array(item))
        elif field.name == "digest":
            column = pa.array(integers.astype("U16")).cast(pa.string())
        elif field.type == pa.string():
            column = pa.array(["overwrite"] * n)
        else:
            column = pa.array(integers % 2**30, field.type)
        columns.append(column)
    return pa.table(columns, schema=PLACEMENTS)


def _timed(
    call: Callable[[], object], clock: Callable[[], float] = time.process_time
) -> tuple[float, object]:
    begin = clock()
    result = call()
    return clock() - begin, result


if __name__ == "__main__":
    main()
