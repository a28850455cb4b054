"""report.html of dependence runs in a headless Chromium: whole, fits a phone, by keyboard, axe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixctl.evals import cpdt_report
from tests.support.browser import DESKTOP, PHONE, scrolled_by_keyboard, serious_issues

pytestmark = pytest.mark.browser
NAMES = ["a-rather-long-name-of-an-experiment", "<b>leak</b>", "secrets", "facts", "marks", "poems"]


def _row(run: str, experiment: str, place: int) -> dict[str, Any]:
    found = run != experiment and place == 4
    role = "all" if run == "all" else "own" if run == experiment else "dependence"
    return {
        **{"run": run, "experiment": experiment, "metric": "accuracy", "role": role},
        **{"outcome": 0.5, "estimate": 0.1 * place - 0.4, "se": 0.1, "ci_low": -0.2},
        **{"ci_high": 0.3, "joint_low": -0.4, "joint_high": 0.5, "p_value": 0.01, "p_holm": 0.2},
        **{"mde": 0.25, "n_no_ops": 8, "n_tests": 30, "note": "a note"},
        "verdict": "found" if found else "no test" if place == 5 else "not found",
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [*NAMES, "all"]
    rows = [
        _row(run, experiment, (at + to) % 9)
        for at, run in enumerate(runs)
        for to, experiment in enumerate(NAMES)
    ]
    about = {"role": "experiment", "placements": 40, "tokens": 4000}
    of_set = {
        **{"build": "out/run1", "build_digest": "ab", "checkpoint": "c/step-10", "split": "train"},
        **{"checkpoint_digest": "cd", "step": 10, "steps": 100, "share": 0.01, "seed": 0},
        **{"base_shared": True, "base_pool": 400},
    }
    summary = {
        **{"rows": runs, "columns": NAMES, "no_ops": [f"no-op-{n}" for n in range(8)]},
        **{"n_tests": 30, "detectable_sd": 4.5, "untested": {"gone": "nothing was placed"}},
        **{"runs": {run: about for run in runs}, "set": of_set},
    }
    made = tmp_path_factory.mktemp("cpdt") / "report.html"
    made.write_text(cpdt_report.render(summary, rows), encoding="utf-8")
    return made


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_whole_by_itself_and_fits(path, size, opened):
    page = opened(path, size)
    assert page.seen == [path.as_uri()] and page.said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("h1").count() == 1 and page.locator("main b").count() == 0
    assert "<b>leak</b>" in page.locator("main").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(path, size, scheme, opened):
    assert serious_issues(opened(path, size, scheme), for_fingers=size == PHONE) == []


def test_what_is_wider_than_a_phone_is_reached_by_keyboard(path, opened):
    wide, moved = scrolled_by_keyboard(opened(path, PHONE))
    assert moved == wide and wide >= 3
