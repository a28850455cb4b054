"""What a checkpoint has consumed: its loader's own count decides, the step where there is none."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.evals.checkpoint import read_checkpoint
from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amend import amend
from mixctl.pipeline.consumed import check_consumed, consumed_steps, steps_begun
from mixctl.shards.errors import InputError
from mixctl.shards.record import read_record
from mixctl.shards.topology import Topology
from tests.evals import tiny


@pytest.fixture
def build(tmp_path):
    return tiny.make_build(
        tmp_path / "build", {"secrets": ("memorization", tiny.canaries({"holdout": (2, 0)}))}
    )


def made(build, tmp_path, step, **more):
    return tiny.make_checkpoint(tmp_path / f"step-{step}", tiny.tiny_model(), build, step, **more)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
def test_a_step_is_begun_with_its_first_sequence(samples, micro_batch, accumulation):
    topology = Topology(
        devices=1,
        nodes=1,
        workers=0,
        micro_batch=micro_batch,
        global_batch=micro_batch * accumulation,
        max_seq_length=8,
        max_tokens=8 * micro_batch * accumulation,
        data_seed=1,
    )
    step_of = [n // topology.global_batch + 1 for n in range(samples)]  # one rank: n is its sample
    assert steps_begun(samples, topology) == max(step_of, default=0)


def test_the_loader_counts_for_more_than_the_step(build, tmp_path):
    topology = read_record(build).geometry.topology()
    whole = read_checkpoint(made(build, tmp_path, 5))
    assert consumed_steps(whole, topology) == 5
    ahead = read_checkpoint(made(build, tmp_path, 6, extra=1))
    assert ahead.loader["num_samples_yielded"] == (6 * topology.accumulation + 1) * (
        topology.micro_batch
    )
    assert consumed_steps(ahead, topology) == 7


def test_a_checkpoint_of_no_step(build, tmp_path):
    whole = read_checkpoint(made(build, tmp_path, 5))
    unknown = dataclasses.replace(whole, step=None, loader=None)
    with pytest.raises(InputError, match="--checkpoint: .* does not say which step it is of"):
        consumed_steps(unknown, read_record(build).geometry.topology())


def test_steps_that_were_consumed_are_refused(build, tmp_path):
    folder, record = made(build, tmp_path, 5), read_record(build)
    check_consumed(folder, build, record, 5)
    with pytest.raises(InputError, match=r"has consumed the steps up to 5: .*--after-step 5"):
        check_consumed(folder, build, record, 4)
    with pytest.raises(InputError, match="has consumed the steps up to 5"):
        amend(build, Additions(tmp_path, ()), 4, folder)


def test_a_checkpoint_of_another_build_says_nothing(build, tmp_path):
    folder = made(build, tmp_path, 5, changes={"hyperparameters.data.init_args.seed": 1})
    with pytest.raises(InputError, match="this build needs"):
        check_consumed(folder, build, read_record(build), 5)
