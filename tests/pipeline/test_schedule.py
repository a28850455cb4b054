"""Windows and schedules, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.injections.config import EverySteps, GivenSteps
from mixctl.pipeline.schedule import StepWindow, copy_ranges, parse_bound, parse_window
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


def ranges(schedule, window, copies, phase=0):
    copy = np.arange(copies)
    return copy_ranges(schedule, window, copies, copy, np.full(copies, phase, np.uint64), 8)


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
        ("1/0%", "no window bound"),
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
    first, _ = copy_ranges("even", StepWindow(0, 100), 4, np.zeros(10_000, int), phases, 1)
    counts = np.bincount(first, minlength=25)
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
