"""Topology: the counts against LitGPT's own loop, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from mixctl.shards.topology import Topology
from tests.support.sample import topologies, topology


def _litgpt_loop(sample: Topology) -> tuple[int, int, int]:
    """Returns (iterations, steps, accumulation) by running `litgpt.pretrain.fit`'s arithmetic."""
    from litgpt.args import TrainArgs

    train = TrainArgs(
        global_batch_size=sample.global_batch,
        micro_batch_size=sample.micro_batch,
        max_tokens=sample.max_tokens,
        max_norm=1.0,
    )
    world_size = sample.devices * sample.nodes
    max_tokens_per_device = train.max_tokens // world_size
    tokens_per_iter = train.micro_batch_size * sample.max_seq_length
    max_iters = max_tokens_per_device // tokens_per_iter
    accumulation = train.gradient_accumulation_iters(sample.devices, sample.nodes)
    iter_num = step_count = 0
    while iter_num < max_iters:
        iter_num += 1
        is_accumulating = iter_num % accumulation != 0
        if not is_accumulating:
            step_count += 1
    return iter_num, step_count, accumulation


@settings(derandomize=True, max_examples=200)
@given(topologies())
def test_counts_are_those_of_litgpt(sample: Topology) -> None:
    assert sample.problems() == []
    iterations, steps, accumulation = _litgpt_loop(sample)
    assert (sample.iterations, sample.steps, sample.accumulation) == (
        iterations,
        steps,
        accumulation,
    )
    assert sample.sequences == steps * accumulation * sample.ranks * sample.micro_batch


def test_counts_by_hand() -> None:
    sample = topology(max_tokens=16 * 8 * 10 + 16 * 8 - 1)
    assert (sample.ranks, sample.loader_workers, sample.sequence_tokens) == (2, 2, 9)
    assert (sample.accumulation, sample.iterations, sample.steps, sample.sequences) == (
        2,
        21,
        10,
        160,
    )


def test_main_process_counts_as_one_worker() -> None:
    assert [topology(workers=n).loader_workers for n in (0, 1, 2)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 0}, ["devices is 0", "at least 1"]),
        ({"nodes": 0}, ["num_nodes is 0"]),
        ({"workers": -1}, ["num_workers is -1", "at least 0"]),
        ({"micro_batch": 0}, ["micro_batch_size is 0"]),
        ({"global_batch": 0}, ["global_batch_size is 0"]),
        ({"max_tokens": 0}, ["max_tokens is 0"]),
        ({"data_seed": -1}, ["data seed is -1"]),
        ({"global_batch": 17}, ["global_batch_size 17", "2 x 1 x 4 = 8", "16 or 24"]),
        ({"global_batch": 4}, ["global_batch_size 4", "nearest valid: 8"]),
        ({"max_tokens": 2 * 16 * 8 - 1}, ["1 whole steps", "max_tokens >= 256"]),
        ({"litdata": "0.2.76"}, ["litdata 0.2.76", "0.2.59"]),
    ],
)
def test_problems_name_field_value_and_limit(changes: dict, words: list[str]) -> None:
    problems = topology(**changes).problems()
    assert len(problems) == 1
    for word in words:
        assert word in problems[0]


def test_all_problems_at_once() -> None:
    assert len(topology(devices=0, workers=-2, litdata="9").problems()) == 3


def test_unknown_litdata_does_not_hide_a_wrong_batch() -> None:
    assert len(topology(global_batch=17, litdata="9").problems()) == 2


@pytest.mark.parametrize("seed", [2**32, 2**40])
def test_seed_that_the_stock_loader_cannot_take_is_refused(seed: int) -> None:
    problems = topology(data_seed=seed).problems()
    assert len(problems) == 1 and str(2**32 - 1) in problems[0]


def test_more_tokens_than_can_be_counted_are_refused() -> None:
    most = 16 * 8 * (10**18 // 128)
    assert topology(max_tokens=most).problems() == []
    problems = topology(max_tokens=10**18 + 1).problems()
    assert problems == [f"max_tokens is {10**18 + 1}: it must be at most {10**18}"]


def test_the_limit_named_for_max_tokens_is_enough() -> None:
    short = topology(max_tokens=1)
    need = int(short.problems()[0].split("max_tokens >= ")[1].split(")")[0])
    assert dataclasses.replace(short, max_tokens=need).problems() == []
    assert dataclasses.replace(short, max_tokens=need - 1).problems() != []


def test_litdata_under_test_is_the_one_that_is_proven() -> None:
    from importlib.metadata import version

    from mixctl.shards.topology import KNOWN_LITDATA

    assert version("litdata") in KNOWN_LITDATA
