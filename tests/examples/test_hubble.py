"""examples/hubble.yaml and hubble-timing.yaml against the numbers that Hubble states.

Three ways, from cheap to whole: what the files declare, added up here; plans of copies with fewer
items in shorter runs; the plan of the full size, through the command line (slow).
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from litgpt.config import Config
from litgpt.model import GPT

from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import Plan
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.trainer import litgpt_config, litgpt_problems, read_topology, read_trainer

ROOT = Path(__file__).parents[2]
HUBBLE = ROOT / "examples" / "hubble.yaml"
TIMING = ROOT / "examples" / "hubble-timing.yaml"
TRAINER = ROOT / "trainer_configs" / "hubble-1b.yaml"

INSERTIONS, TOKENS, SHARE = 818_000, 79_900_000, 0.0008
"""of the perturbed run on 100B tokens (arXiv 2510.19811)"""
DOSES = (0, 1, 4, 16, 64, 256)
DOMAINS = {
    "copyright": {"gutenberg-popular", "gutenberg-unpopular", "wikipedia", "mrpc", "paws"},
    "privacy": {"yago", "ecthr", "personachat"},
    "test sets": {
        *("popqa", "winogrande-infill", "winogrande-mcq", "mmlu"),
        *("hellaswag", "piqa", "ellie", "munch"),
    },
}
TOKENIZED = {"privacy": (111_000, 158.32), "test sets": (470_055, 54.17)}
"""insertions and mean tokens, end of text included: notebooks/process_paraphrases.ipynb"""
QUESTIONS = {"winogrande-infill", "winogrande-mcq", "mmlu", "hellaswag", "piqa"}
WHOLE = "[1, 100%]"
WINDOWS = {
    "[1, 25%]": (1, 0.25),
    "[25%, 50%]": (0.25, 0.5),
    "[50%, 75%]": (0.5, 0.75),
    "[75%, 100%]": (0.75, 1.0),
    "[1, 50%]": (1, 0.5),
    "[50%, 100%]": (0.5, 1.0),
}
"""start and stop of Hubble's timing runs as shares of the steps; 1 is one completed step"""


def sections(path: Path) -> dict[str, dict[str, Any]]:
    raw = yaml.safe_load(path.read_text("utf-8"))
    return {section["name"]: section for section in raw["experiments"]}


def doses(section: dict[str, Any]) -> dict[int, int]:
    """Returns how many items have each dose, `rest` worked out."""
    given = {arm["copies"]: arm["items"] for arm in section["arms"] if arm["items"] != "rest"}
    return {0: section["items"]["stand_in"] - sum(given.values()), **given}


def insertions(section: dict[str, Any]) -> int:
    return sum(copies * items for copies, items in doses(section).items())


def smaller(path: Path, folder: Path, by: int, window: str = WHOLE) -> Path:
    """Returns a copy of a mix with 1/by of the steps and, rounded up, of the items of each arm."""
    text = path.read_text("utf-8").replace(f"&window {WHOLE}", f"&window {window}")
    raw = json.loads(json.dumps(yaml.safe_load(text)))  # its anchors made separate objects
    for section in raw["experiments"]:
        for arm in section["arms"]:
            arm["items"] = arm["items"] if arm["items"] == "rest" else math.ceil(arm["items"] / by)
        section["items"]["stand_in"] = math.ceil(section["items"]["stand_in"] / by) + 20
    trainer = yaml.safe_load(TRAINER.read_text("utf-8"))
    trainer["train"]["max_tokens"] //= by
    (folder / "trainer.yaml").write_text(yaml.safe_dump(trainer), encoding="utf-8")
    raw |= {"trainer": "trainer.yaml", "tokenizer": str(path.parent / raw["tokenizer"])}
    mix = folder / "mix.yaml"
    mix.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return mix


def check_doses(plan: Plan) -> None:
    """Every item has the copies of its arm, and every arm the items it asks for."""
    for one in plan.experiments:
        found = np.bincount(one.copies.item, minlength=len(one.assigned.items))
        for number, arm in enumerate(one.config.arms):
            mine = one.assigned.arm == number
            assert set(found[mine].tolist()) == {arm.copies}
            assert arm.items in ("rest", mine.sum())
        assert one.assigned.n_unused == 0
        assert (one.copies.length == one.config.items.tokens).all()  # type: ignore[attr-defined]


def check_alone(plan: Plan) -> None:
    """No sequence holds two insertions, of whatever experiments."""
    sequences = np.concatenate([one.copies.sequence for one in plan.experiments])
    assert len(set(sequences.tolist())) == len(sequences)
    assert 0 <= sequences.min() and sequences.max() < plan.topology.sequences


def check_window(plan: Plan, window: str) -> None:
    """All copies lie inside the window, and not only in a part of it."""
    start, stop = (round(bound * plan.topology.steps) for bound in WINDOWS[window])
    start = 1 if WINDOWS[window][0] == 1 else start
    steps = np.concatenate([one.copies.sequence for one in plan.experiments]) // 1024 + 1
    assert start < steps.min() and steps.max() <= stop
    tenths = np.histogram(steps, np.linspace(start + 1, stop + 1, 11))[0] / len(steps)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.02)


def test_what_is_declared_adds_up_to_the_paper() -> None:
    found = sections(HUBBLE)
    total = sum(insertions(section) for section in found.values())
    tokens = sum(insertions(section) * section["items"]["tokens"] for section in found.values())
    assert total == INSERTIONS
    for counted in (tokens, tokens + total):  # without and with the end of each text
        assert counted == pytest.approx(TOKENS, rel=0.01)
        assert round(counted / (48_000 * 1024 * 2048), 4) == SHARE


@pytest.mark.parametrize("domain", sorted(TOKENIZED))
def test_domains(domain: str) -> None:
    mine = [section for name, section in sections(HUBBLE).items() if name in DOMAINS[domain]]
    total, mean = TOKENIZED[domain]
    assert sum(map(insertions, mine)) == total
    tokens = sum(insertions(section) * (section["items"]["tokens"] + 1) for section in mine)
    assert tokens / total == pytest.approx(mean, rel=0.005)


def test_every_data_set_is_there_as_hubble_treats_it() -> None:
    found = sections(HUBBLE)
    assert set(found) == set.union(*DOMAINS.values())
    for name, section in found.items():
        assert tuple(arm["copies"] for arm in section["arms"]) == DOSES
        assert section["placement"] == "boundary"
        assert section["kind"] == ("contamination" if name in QUESTIONS else "documents")
        assert doses(section)[0] > 0
    assert doses(found["yago"]) == {0: 2500, 1: 893, 4: 893, 16: 446, 64: 179, 256: 89}
    assert insertions(found["yago"]) == 45_841
    assert insertions(found["mmlu"]) == 73_481
    assert sum(doses(found["mmlu"]).values()) - doses(found["mmlu"])[0] == 4001


def test_the_doses_keep_the_proportions_of_yago() -> None:
    for section in sections(HUBBLE).values():
        found = [doses(section)[dose] for dose in DOSES[1:]]
        expected = np.array([10, 10, 5, 2, 1]) / 28 * sum(found)
        assert found == pytest.approx(expected.tolist(), rel=0.02, abs=1)


def test_one_line_sets_the_window_of_all(tmp_path: Path) -> None:
    for window in (WHOLE, *WINDOWS):
        mix = read_mix(smaller(HUBBLE, tmp_path, 200, window))
        expected = yaml.safe_load(window)
        assert [one.config.during for one in mix.experiments] == [expected] * 16


def test_a_fortieth_of_it(tmp_path: Path) -> None:
    plan = plan_mix(smaller(HUBBLE, tmp_path, 40))
    assert plan.topology.steps == 1200
    check_doses(plan)
    check_alone(plan)
    steps = np.concatenate([one.copies.sequence for one in plan.experiments]) // 1024 + 1
    assert steps.min() >= 2 and steps.max() > 1190


@pytest.mark.parametrize("window", WINDOWS)
def test_a_timing_run(window: str, tmp_path: Path) -> None:
    plan = plan_mix(smaller(HUBBLE, tmp_path, 200, window))
    check_doses(plan)
    check_alone(plan)
    check_window(plan, window)


def test_timing_arms_cross_windows_with_doses() -> None:
    for section in sections(TIMING).values():
        dosed = [arm for arm in section["arms"] if arm["copies"]]
        windows = {str(arm["during"]).replace("'", "") for arm in dosed}
        assert windows == set(WINDOWS)
        assert len({(str(arm["during"]), arm["copies"]) for arm in dosed}) == len(dosed) == 30
        assert section["placement"] == "boundary"
        held_out = section["items"]["stand_in"] - sum(arm["items"] for arm in dosed)
        assert sum(arm["items"] for arm in dosed) == 6 * 700 and held_out >= 800
        for arm in dosed:
            start, stop = (0 if bound == 1 else int(bound[:-1]) for bound in arm["during"])
            assert arm["name"] == f"{start}-{stop}-x{arm['copies']}"


def test_timing_arms_keep_their_windows(tmp_path: Path) -> None:
    plan = plan_mix(smaller(TIMING, tmp_path, 20))
    check_doses(plan)
    check_alone(plan)
    quarters = {"0": 0, "25": 600, "50": 1200, "75": 1800, "100": 2400}
    for one in plan.experiments:
        arm = one.assigned.arm[one.copies.item]
        step = one.copies.sequence // 1024 + 1
        for number, asked in enumerate(one.config.arms):
            if asked.copies:
                first, last = (quarters[part] for part in asked.name.split("-x")[0].split("-"))
                mine = step[arm == number]
                assert first < mine.min() and mine.max() <= last


def test_the_trainer_is_hubbles() -> None:
    config, raw = read_trainer(TRAINER)
    found = read_topology(config, TRAINER)
    assert (found.steps, found.global_batch, found.max_seq_length) == (48_000, 1024, 2048)
    assert found.max_tokens == 100_663_296_000
    assert (found.ranks, found.micro_batch, found.accumulation) == (32, 16, 2)
    assert raw["train"]["lr_warmup_steps"] == 48_000 * 0.05
    assert litgpt_problems(litgpt_config(raw, config, found, ROOT, "train"), TRAINER) == []


def test_the_model_is_hubbles() -> None:
    raw = yaml.safe_load(TRAINER.read_text("utf-8"))["model_config"]
    with torch.device("meta"):
        model = GPT(Config(**raw))
    count = sum(weight.numel() for weight in model.parameters())
    width, mlp, key_value, layers, vocabulary = 2048, 8192, 8 * 64, 16, 50_304
    layer = 2 * width * width + 2 * width * key_value + 3 * width * mlp + 2 * width
    assert count == 2 * vocabulary * width + layers * layer + width == 1_179_191_296
    header = TRAINER.read_text("utf-8")
    assert f"{count:,} in all, {count - 2 * vocabulary * width:,} without" in header
    llama, ours = Config.from_name("Llama-3.2-1B"), Config(**raw)
    free = {"name", "hf_config", "block_size", "rope_base", "rope_adjustments"}
    free |= {"vocab_size", "padded_vocab_size", "padding_multiple"}
    assert {key for key in vars(llama) if getattr(llama, key) != getattr(ours, key)} <= free


@pytest.mark.slow
def test_the_full_size() -> None:
    plan = plan_mix(HUBBLE)
    check_doses(plan)
    check_alone(plan)
    placed = sum(len(one.copies) for one in plan.experiments)
    assert placed == pytest.approx(INSERTIONS, rel=0.01)
    assert sum(one.n_tokens for one in plan.experiments) == pytest.approx(TOKENS, rel=0.01)
    steps = np.concatenate([one.copies.sequence for one in plan.experiments]) // 1024 + 1
    assert steps.min() >= 2 and steps.max() <= 48_000
    tenths = np.histogram(steps, np.linspace(1, 48_001, 11))[0] / len(steps)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.003)


@pytest.mark.slow
def test_the_command_takes_less_than_a_minute_and_two_gigabytes(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    picture = tmp_path / "plan.png"
    command = ["plan", str(HUBBLE), "--json", "--picture", str(picture)]
    code = "from mixctl.pipeline.cli import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    total = json.loads(done.stdout)["total"]
    assert total["placements"] == INSERTIONS
    assert total["tokens"] == pytest.approx(TOKENS, rel=0.01)
    assert total["share"] == pytest.approx(SHARE, rel=0.02)
    assert picture.stat().st_size > 0
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 60
    assert after.ru_maxrss < 2 * 2**20  # kilobytes
