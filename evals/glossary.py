"""The tests and the numbers of results.parquet explained, each in a few lines with its source.

A row names its test as "null: method". `test_of` finds the entry that explains it by words that the
test's name holds; a scorer of someone else may name a test of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixctl.evals.rows import Row


@dataclass(frozen=True)
class Entry:
    """One test or number.

    Attributes:
        anchor: its id on the page.
        name: its heading.
        holds: words of `row.test` that this entry explains; the first entry that fits counts.
        says: what it is, in words.
        formula: in one line, or empty.
        source: where it comes from, or empty.
    """

    anchor: str
    name: str
    holds: tuple[str, ...]
    says: str
    formula: str = ""
    source: str = ""


NO_TEST = Entry(
    "t-none",
    "No test",
    (),
    "The number has no p-value, and the row's note says why. A level is a mean of one arm and is "
    "compared with nothing. Run against twin compares two trainings: two clean runs differ too, by "
    "more than their items' scatter says, so a single pair has an interval conditional on this "
    "pair, and no p-value; that needs three replicated baselines.",
)
OTHER = Entry(
    "t-other",
    "A test of the scorer's own",
    (),
    "The scorer computed this p-value itself; the row names the null and the method.",
)
TESTS = (
    Entry(
        "t-randomisation",
        "Randomisation test within strata, by cluster",
        ("arms exchangeable",),
        "Items were dealt to the arms at random, by cluster and within strata. Had the copies no "
        "effect, any other dealing would have given the same scores. The p-value is the chance "
        "that such a dealing gives a difference at least as large: by enumeration where there are "
        "at most 50,000 dealings, from hypergeometric counts for few values (shares), else "
        "by Monte Carlo draws (never below its resolution), and far out in the tail by a "
        "saddlepoint approximation. The row says which. Two-sided: the smaller tail and as much of "
        "the other one as is no larger; far out twice the tail.",
        "T = sum of the arm's scores within strata; p = P(T* ≥ T), Monte Carlo (1 + #{T* ≥ T}) / "
        "(1 + draws)",
        "Fisher 1935, The Design of Experiments; Phipson and Smyth 2010 (never zero); "
        "Skovgaard 1987 (saddlepoint)",
    ),
    Entry(
        "t-mann-whitney",
        "Mann-Whitney test, stratified: van Elteren",
        ("Mann-Whitney", "van Elteren"),
        "The AUC is the chance that a random item of the arm scores above a random holdout item of "
        "its stratum, ties counting half; 0.5 when the copies had no effect. Exact without strata, "
        "clusters and ties; else ranks divided by the stratum's size plus one, as a randomisation "
        "test by cluster. One-sided: arm above holdout.",
        "AUC = P(arm > holdout) + P(arm = holdout) / 2",
        "Mann and Whitney 1947; van Elteren 1960",
    ),
    Entry(
        "t-binomial",
        "Exact binomial test",
        ("exact binomial", "Binomial"),
        "How many of n independent guesses would be right by chance alone: answers picked among "
        "so many, or predictions that are green by a secret key that the model cannot know. "
        "One-sided, with no approximation.",
        "p = P(X ≥ x), X ~ Binomial(n, chance)",
        "Clopper and Pearson 1934; Kirchenbauer et al. 2023 for green lists, Sander et al. 2024 "
        "for de-duplicated contexts",
    ),
    Entry(
        "t-rank",
        "Rank test against strings never placed; Fisher's method",
        ("null strings",),
        "The placed string is one of m + 1 drawn from the same space. To a model that never met "
        "it, its loss has a uniform rank among them. The p-values of several collections are "
        "combined by Fisher's method.",
        "p = (1 + null strings with a loss no larger) / (1 + m); −2 Σ ln p ~ χ²(2k)",
        "Wei et al. 2024 (data watermarks); Fisher 1932",
    ),
    Entry(
        "t-z",
        "z-test of the mean",
        ("z-test",),
        "The noise was drawn independently of everything, so the standardised inner product of "
        "gradient and noise is N(0, 1) for noise that was never met. The mean over n marks is "
        "compared with the normal law. One-sided.",
        "z = mean(x) √n; p = 1 − Φ(z)",
        "Pawelczyk et al. 2024 (Gaussian poisoning)",
    ),
    Entry(
        "t-run",
        "Run-level t-test against replicated baselines",
        ("draw of the law of its",),
        "Two trainings on clean data differ, however many items they are asked about. So the "
        "training is the unit: is the run further from the mean of R replicated baselines than one "
        "more baseline would be? Needs at least three. From nineteen on the row's note also gives "
        "the exact p-value, by exchange of all R + 1 trainings.",
        "t = (run − mean) / (sd √(1 + 1/R)), R − 1 degrees of freedom",
        "Student 1908; Crawford and Howell 1998 (one case against a small sample)",
    ),
)
NUMBERS = (
    Entry(
        "t-contrasts",
        "Contrasts: level, holdout, twin, did",
        (),
        "level: the arm's mean in a model. holdout: arm minus items that were never placed, in the "
        "same model; items were dealt to arms at random, which makes its test exact. twin: run "
        "minus control twin on the same items. did (difference of differences): the run's arm "
        "minus holdout, less the twin's. Where several baselines share a step, the run is compared "
        "with their mean.",
        "did = (arm − holdout, run) − (arm − holdout, twin)",
    ),
    Entry(
        "t-primary",
        "Primary and exploratory; q",
        (),
        "Each experiment has one primary row: its kind's primary metric at the last checkpoint. "
        "Mostly the top dose against the holdout: did where that step has a twin, else holdout. "
        "Items that were never placed have no dose and nothing that was randomised: theirs is the "
        "difference to the twin, else the level. Without a holdout it is the scorer's own test of "
        "the arm, else the difference to the twin. Poison and forgetting ask what the run learnt, "
        "placed or not: with three baselines or more theirs is the difference to them. The "
        "p-values form one family, and q controls the false discovery rate over it: of the "
        "findings with q ≤ 0.05 at most one in twenty is expected to be false. All other rows are "
        "exploratory: their p-values are not corrected for being many.",
        "q₍ᵢ₎ = min over j ≥ i of p₍ⱼ₎ m / j",
        "Benjamini and Hochberg 1995",
    ),
    Entry(
        "t-interval",
        "95% intervals",
        (),
        "Shares: Wilson's interval, for a difference of two Newcombe's. Everything else: a "
        "percentile bootstrap that draws clusters again within arm and stratum, stretched where "
        "items are few or skewed. No interval where the items have no spread.",
        "",
        "Wilson 1927; Newcombe 1998; Hesterberg 2015; Hall 1992 for skewness; DeLong et al. 1988 "
        "for the AUC",
    ),
    Entry(
        "t-mde",
        "Smallest detectable effect",
        (),
        "The smallest effect that this design finds with power 0.8 (at 0.05, two-sided; an AUC's "
        "one-sided, as its test is), never from the effect that was seen. Arm against holdout: "
        "from the numbers of items and the holdout's spread; clusters count for what they are "
        "worth. Run against three or more baselines: from their number and their spread from "
        "training to training. Smaller effects would be missed more often than one time in five.",
        "(t₀.₉₇₅ + t₀.₈) × sd × √(1/n + 1/n_holdout); against R baselines: "
        "δ × sd × √(1 + 1/R), δ from noncentral t with R − 1 degrees of freedom",
    ),
    Entry(
        "t-roc",
        "ROC curve and true positives at 1% false positives",
        (),
        "Every threshold on the score gives a share of holdout items above it (false positives) "
        "and of the arm's (true positives). Within strata each item is placed among its own "
        "stratum's holdout, so the area is the AUC of the row. The rate at 1% false positives "
        "needs at least 1,000 holdout items; else it is 'not resolvable'.",
        "",
        "Janes and Pepe 2009; Carlini et al. 2022 for low rates",
    ),
)


def test_of(row: Row) -> Entry:
    """Returns the entry that explains a row's test."""
    if row.p_value is None and not row.test:
        return NO_TEST
    for entry in TESTS:
        if any(words in (row.test or "") for words in entry.holds):
            return entry
    return OTHER


def method_of(row: Row) -> str:
    """Returns how a row's p-value was found, in short: what stands behind the null's colon."""
    if not row.test:
        return "no test"
    method = row.test.rpartition(": ")[2]
    return f"{method}, one-sided" if row.sided == "greater" else method
