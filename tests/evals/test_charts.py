"""The text of pictures is what was given; coordinates alone are cut."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from mixctl.evals import charts, charts_bands, charts_levels, charts_roc
from mixctl.evals.rows import Row
from mixctl.evals.stats import roc
from mixctl.evals.stats.arms import two_arms

LEVEL = Row("e", "kind", "arm", 1.0, None, "metric", "run", "c", 1, "level")
ALIKE = ["layer-norm-lr-sweep-0.00025", "layer-norm-lr-sweep-0.00050"]


def _texts(svg):
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def _curves(arms):
    rows = [
        replace(LEVEL, arm=arm, step=step, estimate=0.001 + 0.0001 * step * (place + 1))
        for place, arm in enumerate(arms)
        for step in (1, 17)
    ]
    return charts_levels.curves("e0", "label", rows, charts.looks(arms, arms))


def test_ticks_of_levels_that_lie_close_together_are_told_apart():
    texts = _texts(_curves(["a", "b"]))
    ticks = [text for text in texts if re.fullmatch(r"0\.\d+", text)]
    assert len(ticks) >= 3 and len(set(ticks)) == len(ticks)
    assert {"0.001", "0.002"} <= {f"{float(tick):g}" for tick in ticks}


def test_names_keep_their_digits_and_coordinates_do_not():
    svg = _curves(["lr-0.00025", "lr-0.00050"])
    assert {"lr-0.00025", "lr-0.00050"} <= set(_texts(svg))
    assert not any(re.search(r"\d\.\d{3}", tag) for tag in re.findall("<path[^>]*>", svg))
    rows = [replace(LEVEL, arm="lr-0.00025", estimate=1.0)]
    look = charts.looks(["lr-0.00025"], ["lr-0.00025"])
    assert "lr-0.00025" in _texts(charts_levels.dose_response("e0", "label", rows, look))


def test_arms_that_begin_alike_both_have_their_name_at_the_lines_end():
    texts = _texts(_curves(ALIKE))
    assert {charts.shortened(arm) for arm in ALIKE} <= set(texts)
    assert charts.shortened(ALIKE[0]) == "layer-nor…-0.00025" != charts.shortened(ALIKE[1])
    twice = ["the same beginning (1) and the end", "the same beginning (2) and the end"]
    assert _texts(_curves(twice)).count(charts.shortened(twice[0])) == 2


def test_names_with_dollars_are_no_formulas():
    arms = ["a$b^$", "$x_{$"]
    look = charts.looks(arms, arms)
    assert set(arms) <= set(_texts(_curves(arms)))
    rows = [replace(LEVEL, arm=arm, estimate=1.0) for arm in arms]
    texts = _texts(charts_levels.dose_response("e0", "label", rows, look))
    assert all(any(arm in text for text in texts) for arm in arms)
    bands = [charts_bands.Band(arm, look[arm], np.array([1.0, 2.0])) for arm in arms]
    svg = charts_bands.bands("e0", "label", bands, np.array([0.0, 1.0, 2.0]), "axis $^$")
    assert {*arms, "axis $^$"} <= set(_texts(svg))


def test_logarithmic_ticks_are_powers_of_ten():
    values = np.arange(400.0)
    sample = two_arms(values, values % 2 == 0, np.zeros(400), np.arange(400))
    svg = charts_roc.roc_low("e0", "label", {"run": roc.curve(sample)}, 0.005)
    groups = re.findall(r"<text>\s*(<tspan.*?)</text>", svg, re.DOTALL)
    ticks = ["".join(re.findall(r">([^<\s]+)</tspan>", group)) for group in groups]
    assert {"10−2", "10−1", "100"} <= set(ticks)  # the exponents are raised
