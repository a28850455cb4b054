"""examples/train-once-answer-all.yaml: the totals of the reference run, in bounded memory.

The totals are those of the paper's table (Bordt & Pawelczyk, arXiv 2509.23383); MUSE-News is an
unlearning corpus, IID the sum of three experiments, poisoning that of three attacks. Its time is
measured by `make bench-plan`.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MIX = Path(__file__).parents[2] / "examples/train-once-answer-all.yaml"
REFERENCE = {
    ("knowledge",): 26e6,
    ("mathematics",): 180e6,
    ("benchmark-contamination",): 106e6,
    ("memorization-patterns",): 246e6,
    ("verbatim",): 1.1e9,
    ("gaussian-watermarks",): 209.7e6,
    ("poison-denial", "poison-extraction", "poison-preference"): 235e6,
    ("forgetting-curves",): 19e6,
    ("muse-news",): 152e6,
    ("iid-random", "iid-recency", "iid-repeated"): 1.5e9,
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Returns (what `mixctl plan --json` prints, the picture)."""
    picture = tmp_path_factory.mktemp("plan") / "plan.png"
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "plan", str(MIX), "--json"]
    done = subprocess.run(
        [*command, "--picture", str(picture)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_every_total_is_within_a_percent_of_the_reference(plan):
    found = {one["name"]: one["tokens"] for one in plan[0]["experiments"]}
    assert sorted(found) == sorted(name for names in REFERENCE for name in names)
    for names, tokens in REFERENCE.items():
        assert sum(found[name] for name in names) == pytest.approx(tokens, rel=0.01), names
    assert plan[0]["total"]["share"] == pytest.approx(0.018, rel=0.01)


def test_the_run_is_the_reference_run(plan):
    geometry = plan[0]["geometry"]
    assert geometry["run_tokens"] == 209_715_200_000
    assert (geometry["steps"], geometry["sequences"]) == (100_000, 51_200_000)
    assert geometry["base_tokens_needed"] < 215_000_000_000


def test_doses_are_those_of_the_reference(plan):
    arms = {
        (one["name"], arm["name"]): (arm["items"], arm["placements"])
        for one in plan[0]["experiments"]
        for arm in one["arms"]
    }
    contamination = {k[1]: v for k, v in arms.items() if k[0] == "benchmark-contamination"}
    assert sum(placements for _, placements in contamination.values()) == 904_000
    assert contamination["x144"] == (2000, 288_000)
    patterns = {k[1]: v for k, v in arms.items() if k[0] == "memorization-patterns"}
    assert patterns == {
        "holdout": (34_907, 0),
        "x1": (40_000, 40_000),
        "x4": (40_000, 160_000),
        "x16": (40_000, 640_000),
    }
    assert arms["forgetting-curves", "fresh"] == (9, 9 * 512)
    assert arms["gaussian-watermarks", "marked"] == (100, 100 * 512)
    assert arms["muse-news", "anew-x100"] == (571, 571 * 100 * 4)


def test_four_gigabytes_are_enough(plan):
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4_000_000


def test_the_schedule_is_a_picture(plan):
    assert plan[1].read_bytes().startswith(b"\x89PNG")
