"""Is what was planted found? The example with every kind, trained on the CPU, scored, judged.

    python benchmarks/sensitivity.py [--work FOLDER] [--seed N] [--json FILE]

Builds examples/all-small.yaml with its twin, trains the run and eight twins with seeds of their own
by stock `litgpt pretrain`, scores the last checkpoints with `mixctl eval`, and asks of one
experiment of each kind that a model this small can show: has the primary estimate the right sign,
and is q < 0.05? All other experiments must say how large an effect the design would have found.
Ends with exit code 1 when one of them does not hold. What is there already in FOLDER is used again.

Price: nine trainings, two side by side, and an eval of nine checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "all-small.yaml"
BIN = Path(sys.executable).parent
N_TWINS = 8
FIRST_SEED = 101
ENVIRONMENT = {
    **os.environ,
    "TORCHDYNAMO_DISABLE": "1",
    "LITDATA_DISABLE_VERSION_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
EXPECTED = {
    "canaries": ("memorization", 1),
    "quiz": ("contamination", 1),
    "notices": ("documents", 1),
    "facts": ("knowledge", 1),
    "poison-preference": ("poison", 1),
    "batches": ("forgetting", 1),
    "never-seen": ("verbatim", -1),
    "diaries": ("data watermark", 1),
}
"""experiment -> what a tiny model can show by it, and the sign of the effect"""
ALPHA = 0.05


def main() -> int:
    """Returns 0 when all is found that should be, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("sensitivity-out"))
    parser.add_argument(
        "--seed", type=int, default=FIRST_SEED, help="of the run's model; each twin has the next"
    )
    parser.add_argument("--json", type=Path, help="write the primary rows here as well")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    build, results = work / "build", work / "results"
    if not (build / "mix.json").is_file():
        _run(work, "mixctl", "build", EXAMPLE, "--out", build, "--control")
    trained = _train(work, build, options.seed)
    rows = _score(work, build, results, trained)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", "utf-8")
    wrong = report(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _run(work: Path, command: str, *arguments: object) -> str:
    """Runs a command in the folder; returns what it wrote, or ends with that when it fails."""
    words = [str(BIN / command), *map(str, arguments)]
    done = subprocess.run(words, cwd=work, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def _train(work: Path, build: Path, first_seed: int) -> list[Path]:
    """Returns the last checkpoints: of the run, then of the twins; two trainings at a time."""
    todo = [("run", "litgpt.yaml", first_seed)]
    todo += [(f"twin-{n}", "litgpt-control.yaml", first_seed + n) for n in range(1, N_TWINS + 1)]

    def train(one: tuple[str, str, int]) -> Path:
        name, config, seed = one
        out = work / name
        if not (out / "final" / "model_config.yaml").is_file():
            arguments = ("--config", build / config, "--out_dir", out, "--seed", seed)
            _run(work, "litgpt", "pretrain", *arguments)
        return out / "final"

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(train, todo))


def _score(work: Path, build: Path, results: Path, trained: list[Path]) -> list[dict[str, Any]]:
    run, *twins = trained
    baselines = [word for twin in twins for word in ("--baseline", twin)]
    said = _run(work, "mixctl", "eval", build, run, *baselines, "--out", results, "--json")
    rows: list[dict[str, Any]] = json.loads(said)["primary"]
    return sorted(rows, key=lambda row: (row["experiment"] not in EXPECTED, row["experiment"]))


def report(rows: list[dict[str, Any]]) -> list[str]:
    """Returns what does not hold, after printing a table of all primary rows in markdown."""
    wrong = [f"{name}: no primary row" for name in EXPECTED if name not in _names(rows)]
    print(
        "| experiment | what is compared | estimate | 95% interval | p | q | detectable | verdict |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        verdict = _verdict(row)
        cells = [
            row["experiment"],
            f"{row['metric']}, {row['arm']} ({row['contrast']})",
            _number(row["estimate"]),
            f"{_number(row['ci_low'])} to {_number(row['ci_high'])}",
            *(_number(row[name]) for name in ("p_value", "q_value", "mde")),
            verdict,
        ]
        print(f"| {' | '.join(cells)} |")
        if row["experiment"] in EXPECTED and verdict != "found":
            wrong.append(f"{row['experiment']}: {verdict}")
    return wrong


def _names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["experiment"] for row in rows}


def _verdict(row: dict[str, Any]) -> str:
    _, sign = EXPECTED.get(row["experiment"], ("", math.copysign(1, row["estimate"] or 0)))
    if row["estimate"] is None or row["q_value"] is None:
        return "no test"
    if row["q_value"] > ALPHA:
        return "not detectable at this size" if row["mde"] is not None else "not found"
    return "found" if row["estimate"] * sign > 0 else "wrong sign"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
