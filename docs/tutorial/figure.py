"""Draws accuracy against copies, in the run and in the twin, with 95% intervals.

python figure.py RESULTS figure.png      # or .pdf, .svg
"""

import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib import pyplot

EXPERIMENT, METRIC = "leak", "accuracy"
CHANCE = 0.25
LOOK = {"run": ("#1a5799", "o", "run"), "twin": ("#8b6914", "s", "control twin")}


def levels(results, model):
    """Returns (copies, estimate, low, high) of each arm at the last step, by copies."""
    table = pq.read_table(Path(results) / "results.parquet")
    wanted = (
        (pc.field("experiment") == EXPERIMENT)
        & (pc.field("metric") == METRIC)
        & (pc.field("model") == model)
        & (pc.field("contrast") == "level")
        & pc.field("stratum").is_null()
    )
    rows = table.filter(wanted).to_pylist()
    last = max(row["step"] for row in rows)
    rows = [row for row in rows if row["step"] == last]
    planned = {row["arm"]: row["arm"].lstrip("x") for row in rows}
    copies = {arm: 0 if arm == "holdout" else int(name) for arm, name in planned.items()}
    found = [(copies[r["arm"]], r["estimate"], r["ci_low"], r["ci_high"]) for r in rows]
    return sorted(found)


def main(results, path):
    """Draws the figure."""
    figure, axes = pyplot.subplots(figsize=(4.2, 2.8), layout="constrained")
    axes.axhline(CHANCE, color="#888888", lw=0.8, ls=":")
    for shift, (model, (colour, marker, label)) in zip((-0.06, 0.06), LOOK.items(), strict=True):
        rows = levels(results, model)
        place = [number + shift for number in range(len(rows))]
        middle = [row[1] for row in rows]
        ends = [[row[1] - row[2] for row in rows], [row[3] - row[1] for row in rows]]
        style = {"color": colour, "marker": marker, "ms": 4.5, "lw": 1.4, "capsize": 2.5}
        axes.errorbar(place, middle, ends, label=label, **style)
        axes.set_xticks(range(len(rows)), [str(row[0]) for row in rows])
    axes.set_xlabel("copies placed in 614,400 tokens")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    axes.annotate("chance", (len(rows) - 1, CHANCE), (0, 3), textcoords="offset points", ha="right")
    figure.savefig(path, dpi=200)


if __name__ == "__main__":
    main(*sys.argv[1:])
