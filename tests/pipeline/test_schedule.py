"""Windows and schedules, by hand."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mixctl.injections.config import CopyWindows, EverySteps, GivenSteps, Ramp
from mixctl.pipeline.schedule import (
    CopyNumbers,
    StepWindow,
    arm_window,
    copy_ranges,
    off_batches,
    parse_bound,
    parse_window,
)
from mixctl.shards.draws import bits, stream
from mixctl.shards.topology import Topology

RUN = Topology(
    devices=1,
    nodes=1,
    workers=0,
    micro_batch=8,
    global_batch=8,
    max_seq_length=64,
    max_tokens=8 * 64 * 1000,
    data_seed=0,
)


def numbers(copies, phase=0, name="item"):
    """Returns the numbers of one item's copies."""
    copy = np.arange(copies)
    key = bits(stream(name), copy)
    return CopyNumbers(copy, np.full(copies, copies), np.full(copies, phase, np.uint64), key)


def ranges(schedule, window, copies, phase=0):
    return copy_ranges(schedule, window, numbers(copies, phase), RUN)


def ramp_of(low, high, n_steps, copies):
    """Returns the step of each copy in its window, counted from 0."""
    window = StepWindow(100, 100 + n_steps)
    first, stop = ranges(Ramp(ramp=[low, high]), window, copies)
    assert (stop - first == 8).all()
    return first // 8 - 100


@pytest.mark.parametrize(
    ("bound", "step"),
    [
        (0, 0),
        (1000, 1000),
        ("25%", 250),
        ("33.39%", 333),
        ("100%", 1000),
        ("5120", 10),
        ("5119", 9),
        ("51.2K", 100),
    ],
)
def test_bounds_are_rounded_down(bound, step):
    assert parse_bound(bound, RUN) == step


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (1001, "the run has steps 0 to 1000"),
        (-1, "the run has steps 0 to 1000"),
        ("101%", "lies outside 0% to 100%"),
        ("-5%", "lies outside 0% to 100%"),
        ("1/0%", "is not a percentage"),
        ("half", "no window bound"),
        ("1B", "the run has steps 0 to 1000"),
    ],
)
def test_wrong_bounds_are_refused(bound, message):
    with pytest.raises(ValueError, match=message):
        parse_bound(bound, RUN)


def test_default_window_leaves_out_the_first_step():
    assert parse_window(None, RUN) == StepWindow(1, 1000)


def test_empty_window_is_refused():
    with pytest.raises(ValueError, match="no step of the 1000 lies in it"):
        parse_window(["50%", "50.01%"], RUN)


@given(cut=st.integers(1, 99))
def test_adjacent_windows_partition_training(cut):
    left, right = parse_window([0, f"{cut}%"], RUN), parse_window([f"{cut}%", "100%"], RUN)
    assert left.stop == right.start
    assert left.n_steps + right.n_steps == 1000


def test_uniform_covers_the_window():
    first, stop = ranges("uniform", StepWindow(250, 500), 3)
    assert first.tolist() == [2000] * 3  # step 251 begins at sequence 250 * 8
    assert stop.tolist() == [4000] * 3


@given(copies=st.integers(1, 40), phase=st.integers(0, 2**64 - 1), n=st.integers(1, 300))
def test_even_copies_are_equally_far_apart(copies, phase, n):
    window = StepWindow(10, 10 + n)
    first, stop = ranges("even", window, copies, phase)
    step = first // 8 + 1
    assert (stop - first == 8).all()
    assert (step > window.start).all()
    assert (step <= window.stop).all()
    gaps = np.diff(step)
    assert set(gaps.tolist()) <= {n // copies, n // copies + 1}


def test_even_begins_uniformly_over_items():
    phases = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    zeros = np.zeros(10_000, int)
    items = CopyNumbers(zeros, zeros + 4, phases, phases)
    first, _ = copy_ranges("even", StepWindow(0, 100), items, RUN)
    counts = np.bincount(first // 8, minlength=25)
    assert len(counts) == 25
    assert abs(counts - 400).max() < 5 * np.sqrt(400)


def test_given_steps_are_taken_in_turn():
    first, _ = ranges(GivenSteps(steps=[3, 50]), StepWindow(0, 1000), 5)
    assert (first // 8 + 1).tolist() == [3, 50, 3, 50, 3]


def test_every_k_steps_from_the_first_step_of_the_window():
    first, _ = ranges(EverySteps(every=100), StepWindow(200, 700), 5)
    assert (first // 8 + 1).tolist() == [201, 301, 401, 501, 601]


def test_a_schedule_that_leaves_the_window_is_refused():
    with pytest.raises(ValueError, match="copy 6 of 6 would fall in step 701: the window is steps"):
        ranges(EverySteps(every=100), StepWindow(200, 700), 6)
    with pytest.raises(ValueError, match="copy 1 of 1 would fall in step 5"):
        ranges(GivenSteps(steps=[5]), StepWindow(10, 20), 1)


def density_of(low, high, n_steps):
    """Returns the integral of the density low + (high - low) x over each step, summing to one."""
    cuts = np.arange(n_steps + 1) / n_steps
    whole = (low + high) / 2
    return np.diff(low * cuts + (high - low) * cuts**2 / 2) / whole


@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (2, 2), (1, 3), (0.5, 0.1), (0, 1e-3)])
def test_a_ramp_is_the_integral_of_its_density(ends):
    steps = ramp_of(*ends, n_steps=40, copies=60_000)
    observed = np.bincount(steps, minlength=40)
    assert len(observed) == 40
    expected = 60_000 * density_of(*ends, n_steps=40)
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
    other = 60_000 * density_of(*reversed(ends), n_steps=40)
    if ends[0] != ends[1]:
        assert scipy.stats.chisquare(observed, other).pvalue < 1e-30


def test_a_copy_keeps_its_step_on_the_ramp_when_others_come():
    few, many = ramp_of(0, 1, 300, 5), ramp_of(0, 1, 300, 50)
    assert few.tolist() == many[:5].tolist()


def test_both_ends_of_a_ramp_are_reached_and_none_is_passed():
    steps = ramp_of(1, 1, 3, 1000)
    assert set(steps.tolist()) == {0, 1, 2}
    assert ramp_of(0, 1, 1, 1000).max() == 0


def test_windows_of_copies_are_taken_in_turn():
    schedule = CopyWindows(windows=[["0%", "25%"], [500, 501], ["5120", "10%"]])
    window = arm_window(schedule, None, RUN)
    assert window == StepWindow(0, 501)
    first, stop = ranges(schedule, window, 5)
    assert (first // 8).tolist() == [0, 500, 10, 0, 500]  # the third begins at 5120 tokens
    assert (stop // 8).tolist() == [250, 501, 100, 250, 501]


def test_a_wrong_window_of_a_copy_is_refused():
    schedule = CopyWindows(windows=[["0%", "25%"], ["50%", "50%"]])
    with pytest.raises(ValueError, match="no step of the 1000 lies in it"):
        arm_window(schedule, None, RUN)


def test_a_drawn_step_that_holds_a_whole_batch_becomes_the_next_free_one():
    window, taken = StepWindow(10, 15), np.array([3, 11, 12, 14, 15])
    found = off_batches(np.array([10, 11, 12, 13, 14]), window, taken)
    assert found.tolist() == [10, 13, 13, 13, 10]
    every = np.arange(10, 15)
    assert off_batches(every, window, every).tolist() == every.tolist()
    assert off_batches(every, window, np.array([], int)).tolist() == every.tolist()
