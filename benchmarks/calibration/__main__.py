"""Calibrates every test and interval; run by `make calibration`.

    python -m benchmarks.calibration --real build/real/SmolLM2-135M-Instruct

Writes calibration.md and calibration.json to the folder and prints the former. Exit code 1 when
something is out of line. Models, builds and scores are kept in the folder; a second run starts at
the re-randomisation.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.calibration.cases import Case, Model, scored_cases
from benchmarks.calibration.mix import ROOT, STEPS, build, write_mix
from benchmarks.calibration.models import clean_trainings, untrained
from benchmarks.calibration.populations import known
from benchmarks.calibration.report import Found, as_json, as_markdown
from benchmarks.calibration.rerandomise import rerandomise
from benchmarks.calibration.runs import normal_law, run_level
from benchmarks.calibration.secrets import marked_anew, redrawn
from benchmarks.calibration.table import Covered, NullLine, verdicts
from mixctl.evals.checkpoint import Checkpoint, read_checkpoint
from mixctl.shards.record import read_record

CLEAN_RUNS = 11
SHORT = ("canaries", "members", "quiz", "spare")
"""experiments that are scored under every clean run"""
REAL = (
    "articles",
    "canaries",
    "diaries",
    "facts",
    "green",
    "noise",
    "poison-denial",
    "poison-extraction",
    "poison-preference",
    "quiz",
    "spare",
    "statements",
)
"""experiments that are scored under the real model: all kinds that have a test of arms"""
MARKED_DRAWS = 500


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    folder: Path
    real: Path | None
    seeds: int
    samples: int
    processes: int


def main() -> int:
    """Runs everything; returns the exit code."""
    options = _options()
    say = _clock()
    torch.set_num_threads(options.processes)
    tests: list[NullLine] = []
    dealt: list[Covered] = []
    small = _small(options, say)
    groups = [("small models", small), *_real(options, say)]
    for name, cases in groups:
        more_tests, more_dealt = rerandomise(
            cases, options.seeds, options.processes, _progress(f"arms dealt anew, {name}", say)
        )
        tests += more_tests
        dealt += more_dealt
    tests += _secrets(options, small, say)
    wrong_tests, wrong = run_level(_clean(options, say))
    tests += [*wrong_tests, *normal_law(options.seeds)]
    say("known populations")
    populations = list(known(options.samples))
    bad = verdicts(tests, [*dealt, *populations])
    found = Found(tests, dealt, populations, wrong, bad)
    (options.folder / "calibration.json").write_text(as_json(found))
    (options.folder / "calibration.md").write_text(as_markdown(found))
    print(as_markdown(found))
    say(f"{len(tests)} tests, {len(dealt) + len(populations)} intervals, {len(bad)} out of line")
    return 1 if bad else 0


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/calibration")
    parser.add_argument("--real", type=Path, help="a LitGPT folder of SmolLM2-135M; else without")
    parser.add_argument("--seeds", type=int, default=2000, help="times that arms are dealt")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each population")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    return Options(given.folder, given.real, given.seeds, given.samples, given.processes)


def _clock() -> Callable[[str], None]:
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    return say


def _progress(what: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == total or done % 200 == 0:
            say(f"{what}: {done} of {total}")

    return progress


def _small(options: Options, say: Callable[[str], None]) -> list[Case]:
    """Returns the cases of the small tokenizer: an untrained model and two clean runs.

    The thousand canaries, which cost most, are dealt under the untrained model alone.
    """
    made, runs = _build(options), _trained(options, say)
    models = [
        Model("untrained", "run", untrained(made, options.folder / "untrained"), 0),
        Model("clean 1", "run", runs[0], STEPS),
        Model("clean 2", "twin", runs[1], STEPS),
    ]
    cases = scored_cases(made, models, options.folder / "scores", say)
    return [
        replace(case, runs=case.runs[:1], twins=[]) if case.experiment.name == "members" else case
        for case in cases
    ]


def _build(options: Options) -> Path:
    mix = write_mix(options.folder / "mix", ROOT / "examples/tokenizer")
    return build(mix, options.folder / "build")


def _trained(options: Options, say: Callable[[str], None]) -> list[Checkpoint]:
    return clean_trainings(_build(options), options.folder / "clean", CLEAN_RUNS, say)


def _clean(options: Options, say: Callable[[str], None]) -> list[Case]:
    """Returns short experiments scored under every clean run, in the role of twins."""
    runs = _trained(options, say)
    models = [Model(f"clean {n + 1}", "twin", run, n) for n, run in enumerate(runs)]
    return scored_cases(_build(options), models, options.folder / "scores-clean", say, SHORT)


def _real(options: Options, say: Callable[[str], None]) -> list[tuple[str, list[Case]]]:
    """Returns the cases of the real model's tokenizer: that model, and an untrained one for did."""
    if options.real is None:
        return []
    folder = options.folder / "real"
    model = {"vocab_size": 49152, "padded_vocab_size": 49152}
    mix = write_mix(folder / "mix", options.real, model)
    made = build(mix, folder / "build")
    models = [
        Model("SmolLM2-135M", "run", read_checkpoint(options.real, STEPS), STEPS),
        Model("untrained", "twin", untrained(made, folder / "untrained"), STEPS),
    ]
    return [("SmolLM2-135M", scored_cases(made, models, folder / "scores", say, REAL))]


def _secrets(options: Options, cases: list[Case], say: Callable[[str], None]) -> list[NullLine]:
    made = _build(options)
    prefix = [read_record(made).tokenizer.eod_id]
    first = Model("untrained", "run", untrained(made, options.folder / "untrained"), 0)
    second = Model("clean 1", "run", _trained(options, say)[0], STEPS)
    lines = [
        line
        for model in (first, second)
        for line in redrawn(cases, model, prefix, options.seeds, say)
    ]
    green = next(case for case in cases if case.experiment.name == "green")
    say("secrets drawn anew: documents marked anew")
    return [*lines, *marked_anew(green, second, prefix, min(options.seeds, MARKED_DRAWS))]


if __name__ == "__main__":
    sys.exit(main())
