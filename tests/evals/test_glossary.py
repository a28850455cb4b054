"""Every test that an eval names is explained, by the right entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixctl.evals import glossary
from mixctl.evals.results import read_results
from mixctl.evals.rows import Row
from mixctl.evals.scorers import watermark_gaussian, watermark_green, watermark_strings

ROW = Row("e", "kind", "arm", 1.0, None, "metric", "run", "c", 1, "level", p_value=0.5)


@pytest.mark.parametrize(
    ("test", "anchor"),
    [
        ("arms exchangeable within strata, by cluster: permutation, exact", "t-randomisation"),
        ("arm not above holdout (AUC 0.5) within strata, by cluster: "
         "stratified Mann-Whitney (van Elteren) by permutation, exact", "t-mann-whitney"),
        ("guessing, right in 0.25 of all items: exact binomial", "t-binomial"),
        (watermark_green._TEST.format(gamma=0.25), "t-binomial"),
        (watermark_strings._TEST + "exact rank", "t-rank"),
        (watermark_gaussian._TEST, "t-z"),
        ("the run is one more draw of the law of its 4 baselines: t of one training", "t-run"),
        ("haiku are equally long: count", "t-other"),
    ],
)  # fmt: skip
def test_each_test_has_its_entry(test, anchor):
    assert glossary.test_of(replace(ROW, test=test)).anchor == anchor


def test_no_p_value_is_no_test():
    assert glossary.test_of(replace(ROW, p_value=None)) is glossary.NO_TEST
    assert glossary.method_of(replace(ROW, p_value=None)) == "no test"


def test_the_method_stands_behind_the_null():
    row = replace(ROW, test="nothing: known: permutation, exact", sided="greater")
    assert glossary.method_of(row) == "permutation, exact, one-sided"


def test_all_tests_of_an_eval_are_known(evaluated):
    rows = read_results(evaluated[1]).rows
    found = {glossary.test_of(row).anchor for row in rows}
    assert found == {"t-randomisation", "t-mann-whitney", "t-none"}
    anchors = [entry.anchor for entry in (*glossary.TESTS, *glossary.NUMBERS)]
    assert len(set(anchors)) == len(anchors)
