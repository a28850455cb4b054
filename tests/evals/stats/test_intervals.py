"""Intervals against statistical tables, scipy and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixctl.evals.stats import intervals
from mixctl.evals.stats.arms import difference, difference_units, two_arms
from mixctl.evals.stats.permutation import permutation_tails
from mixctl.evals.stats.streams import stream


@pytest.mark.parametrize(("successes", "n"), [(0, 24), (7, 30), (24, 24), (500, 1000)])
def test_wilson_equals_scipy(successes, n):
    ours = intervals.wilson(successes / n, n)
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_newcombe_equals_the_published_example():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339.
    first, second = intervals.wilson(56 / 70, 70), intervals.wilson(48 / 80, 80)
    found = intervals.newcombe(56 / 70, first, 48 / 80, second)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def _changes(rng, up, down, n_arm, n_holdout):
    """Returns items that are 1, -1 or 0 with these chances in both arms."""
    values = rng.choice([1.0, -1.0, 0.0], n_arm + n_holdout, p=[up, down, 1 - up - down])
    n = len(values)
    return two_arms(values, np.arange(n) < n_arm, np.zeros(n), np.arange(n))


def test_change_of_shares_by_hand():
    """3 of 10 up and 1 down: Newcombe's paired interval with none right both times."""
    found = intervals._change(0.3, 0.1, 10)
    up, down = (stats.binomtest(k, 10).proportion_ci(method="wilson") for k in (3, 1))
    phi = -0.03 / np.sqrt(0.3 * 0.7 * 0.1 * 0.9)
    low, high = (0.3 - up.low, down.high - 0.1), (up.high - 0.3, 0.1 - down.low)
    expected = [
        0.2 + sign * np.sqrt(a * a - 2 * phi * a * b + b * b)
        for sign, (a, b) in ((-1, low), (1, high))
    ]
    assert [found.low, found.high] == pytest.approx(expected)
    assert found.se == pytest.approx(np.r_[np.ones(3), -1, np.zeros(6)].std() / np.sqrt(10))


def test_change_of_shares_of_many_items_is_that_of_means():
    arms = _changes(np.random.default_rng(2), 0.3, 0.2, 900, 600)
    found = intervals.difference_interval(arms, stream("x"))
    welch = stats.ttest_ind(arms.values[:900], arms.values[900:], equal_var=False)
    expected = welch.confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)


@pytest.mark.parametrize(("up", "down"), [(0.08, 0.08), (0.3, 0.1), (0.02, 0.2)])
def test_change_of_shares_covers(up, down):
    rng = np.random.default_rng(6)
    found = [intervals.share_change_interval(_changes(rng, up, down, 14, 10)) for _ in range(1000)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.93


def test_difference_is_close_to_welch():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 40), rng.normal(0, 2, 60)
    arms = two_arms(np.r_[inside, outside], np.arange(100) < 40, np.zeros(100), np.arange(100))
    found = intervals.difference_interval(arms, stream("x"))
    pooled = stats.ttest_ind(inside, outside).confidence_interval()
    shifted = intervals.shift_interval(arms, float(inside.mean() - outside.mean()))
    assert (shifted.low, shifted.high) == pytest.approx((pooled.low, pooled.high))
    welch = stats.ttest_ind(inside, outside, equal_var=False).confidence_interval()
    width = welch.high - welch.low
    assert found.low == pytest.approx(min(welch.low, pooled.low), abs=0.06 * width)
    assert found.high == pytest.approx(max(welch.high, pooled.high), abs=0.06 * width)
    assert found.se == pytest.approx(np.sqrt(inside.var(ddof=1) / 40 + outside.var(ddof=1) / 60))


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=20), 5)
    alone = intervals.mean_interval(values, np.zeros(100, int), np.arange(100), stream("x"))
    grouped = intervals.mean_interval(values, np.zeros(100, int), np.arange(100) // 5, stream("x"))
    assert grouped.se == pytest.approx(np.std(values[::5], ddof=1) / np.sqrt(20))
    assert grouped.se / alone.se == pytest.approx(np.sqrt(5), rel=0.05)


def test_effective_items_of_copies_is_the_number_of_clusters():
    values = np.repeat([0.0, 1.0, 1.0, 0.0], 6)
    assert intervals.effective_items(values, np.arange(24) // 6) == pytest.approx(3.0)
    assert intervals.effective_items(values, np.arange(24)) == 24


def test_no_spread_gives_no_bootstrap_interval():
    found = intervals.mean_interval(np.ones(8), np.zeros(8, int), np.arange(8), stream("x"))
    assert found == intervals.NO_INTERVAL


def test_auc_of_separated_arms_has_an_honest_interval():
    arms = two_arms(np.arange(20.0), np.arange(20) >= 10, np.zeros(20), np.arange(20))
    found = intervals.auc_interval(arms, stream("x"))
    assert found.high == 1.0
    assert found.low == pytest.approx(10 / (10 + 1.959964**2))


def test_strata_with_single_items_are_pooled():
    arms = two_arms(
        np.array([1.0, 2.0, 4.0, 0.0, 1.0, 2.5]),
        np.arange(6) < 3,
        np.array([0, 1, 2, 0, 1, 2]),
        np.arange(6),
    )
    found = intervals.difference_interval(arms, stream("x"))
    assert found.se is not None and found.se > 0


def test_shift_interval_holds_the_shifts_that_the_test_does_not_reject():
    """By strata and by cluster: it is the randomisation test turned round."""
    rng = np.random.default_rng(4)
    clusters, treated = np.arange(120) // 2, np.arange(120) // 2 % 5 < 2
    strata = clusters // 20
    values = rng.exponential(size=60)[clusters] + strata + treated
    arms = two_arms(values, treated, strata, clusters)
    found = intervals.shift_interval(arms, difference(arms))
    for end in (found.low, found.high):
        shifted = two_arms(values - end * treated, treated, strata, clusters)
        p_value = permutation_tails(difference_units(shifted), stream("x")).p_value("two")
        assert 0.025 < p_value < 0.1


def test_shift_interval_knows_that_numbers_of_pairs_were_dealt_too():
    """Pairs score 2 above single items; how many of them an arm gets moves the difference."""
    rng = np.random.default_rng(5)
    clusters = np.r_[np.repeat(np.arange(12), 2), np.arange(12, 36)]
    values = rng.normal(size=48) + 2 * (np.arange(48) < 24)
    held = []
    for _ in range(500):
        order = rng.permutation(36)
        n_items = np.cumsum(np.bincount(clusters)[order])
        treated = np.isin(clusters, order[n_items <= 24])
        arms = two_arms(values, treated, np.zeros(48), clusters)
        found = intervals.shift_interval(arms, difference(arms))
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) > 0.93  # 0.74 if pairs changed places with pairs alone


def test_mean_interval_corrects_for_skewness():
    """Half of the items at 1, few far above: the upper end is farther away than the lower one."""
    values = np.array([1.0] * 12 + [2.0, 2.5, 4.0, 9.0])
    found = intervals.mean_interval(values, np.zeros(16, int), np.arange(16), stream("x"))
    assert found.high - values.mean() > 1.5 * (values.mean() - found.low)
    again = intervals.mean_interval(-values, np.zeros(16, int), np.arange(16), stream("x"))
    assert again.low == pytest.approx(-found.high, rel=0.05)


@pytest.mark.parametrize(
    "values", [[1.0] + [0.0] * 9, [1.0, 1.0] + [0.0] * 6, [0.0, 0.1, 0.1, 0.2, 0.3, 9.0], None]
)
def test_skewness_does_not_make_intervals_explode(values):
    """No side is longer than twice Student's, nor than that of the bootstrap: it was 4 times."""
    sample = np.random.default_rng(3).lognormal(size=(40, 6)) if values is None else [values]
    for of in np.asarray(sample):
        n = len(of)
        found = intervals.mean_interval(of, np.zeros(n, int), np.arange(n), stream("x"))
        longest = max(of.mean() - found.low, found.high - of.mean())
        assert longest <= 2 * stats.t.ppf(0.975, n - 1) * found.se * (1 + 1e-9)
        assert min(of.mean() - found.low, found.high - of.mean()) > 0


_LAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "share": (lambda rng, n: rng.beta(0.5, 5, size=n), 0.5 / 5.5),
}


@pytest.mark.parametrize("law", list(_LAWS))
def test_small_and_unbalanced_arms_cover(law):
    """Percentile intervals alone covered 0.83 to 0.91 of means of 8 items, and 0.9 of 8 - 40."""
    draw, mean = _LAWS[law]
    rng = np.random.default_rng(12)
    hits = {"mean": 0, "difference": 0}
    for sample in range(300):
        values, names = draw(rng, 48), stream("small", law, sample)
        alone = intervals.mean_interval(values[:8], np.zeros(8, int), np.arange(8), names)
        hits["mean"] += alone.low <= mean <= alone.high
        arms = two_arms(values, np.arange(48) < 8, np.zeros(48), np.arange(48))
        gap = intervals.difference_interval(arms, names)
        hits["difference"] += gap.low <= 0 <= gap.high
    assert min(hits.values()) / 300 >= 0.91, hits


@pytest.mark.parametrize("truth", [0.5, 0.95, 0.99])
def test_auc_interval_covers_near_1(truth):
    """Symmetric intervals covered 0.84 at 0.99."""
    rng = np.random.default_rng(13)
    hits = 0
    for sample in range(300):
        values = rng.normal(size=80) + np.sqrt(2) * stats.norm.ppf(truth) * (np.arange(80) < 40)
        arms = two_arms(values, np.arange(80) < 40, np.zeros(80), np.arange(80))
        found = intervals.auc_interval(arms, stream("near 1", sample))
        hits += found.low <= truth <= found.high
    assert hits / 300 >= 0.91


@pytest.mark.parametrize("shape", ["normal", "skewed", "auc"])
def test_coverage(shape):
    """95% intervals of a difference (and of the AUC) cover in 95% of 400 samples of 24 and 24."""
    rng = np.random.default_rng(11)
    hits = 0
    treated, strata = np.arange(48) < 24, np.arange(48) % 2
    for sample in range(400):
        values = rng.gamma(2, size=48) if shape == "skewed" else rng.normal(size=48)
        values = values + treated * 1.0 + strata * 3
        arms = two_arms(values, treated, strata, np.arange(48))
        names = stream("coverage", shape, sample)
        if shape == "auc":
            found, truth = intervals.auc_interval(arms, names), stats.norm.cdf(1 / np.sqrt(2))
        else:
            found, truth = intervals.difference_interval(arms, names), 1.0
        hits += found.low <= truth <= found.high
    assert stats.binomtest(hits, 400, 0.95).pvalue > 1e-3, hits / 400
