"""The `control:` section of a mix file: which experiments are steered, how often, to where.

    control:
      every: 1000                     # steps between two checkpoints that are looked at
      experiments:
        facts: {arm: told, set_point: 0.08}
        songs: {arm: told, set_point: 0.05, controller: proportional, options: {bias: 64}}

A steered arm has `copies: 0` in the mix: the build places nothing of it, `mixctl control` does,
while the run goes on. The section decides nothing about the bytes of a build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mixctl.injections.config import Name, Strict
from mixctl.pipeline.controllers import Ready, ready_controller
from mixctl.shards.errors import InputError, nearest

if TYPE_CHECKING:
    from mixctl.pipeline.mixfile import Mix

STEERED_KINDS = ("knowledge",)
"""kinds whose items have probes"""


class ControlledExperiment(Strict):
    """How one experiment is steered.

    `set_point` is what the mean probability of its probes is to reach at the end of the run; until
    then it rises linearly from 0.
    """

    arm: Name | None = None
    """the arm that is steered; default: the only one with copies 0"""
    set_point: Annotated[float, Field(gt=0, lt=1)]
    """the mean probability of its probes at the end of the run"""
    controller: str = "reference"
    """reference, proportional, or one that another package registers"""
    options: dict[str, Any] = {}
    """of the controller"""


class ControlConfig(Strict):
    """The section: at every so many steps, all of these experiments are decided on."""

    every: Annotated[int, Field(ge=1)]
    """steps between two checkpoints that are looked at"""
    experiments: Annotated[dict[Name, ControlledExperiment], Field(min_length=1)]
    """what is steered, by the experiment's name"""


def control_problems(mix: Mix) -> list[str]:
    """Returns what is wrong with the section of a mix, in itself and beside the rest of the mix."""
    if mix.config.control is None:
        return []
    problems = _interval_problems(mix, mix.config.control.every)
    for name in mix.config.control.experiments:
        try:
            steered_arm(mix, name)
            controller_of(mix, name)
        except InputError as error:
            problems += error.problems
    return problems


def _interval_problems(mix: Mix, every: int) -> list[str]:
    """Returns why the run has no checkpoint where one is to be looked at."""
    saved, steps = mix.trainer.train.save_interval, mix.topology.steps
    place = f"{mix.path}: control: every"
    if saved is None:
        return [f"{mix.trainer_path}: train.save_interval is missing: control needs checkpoints"]
    if every % saved:
        lower = every - every % saved
        valid = f"{lower} or {lower + saved}" if lower else str(saved)
        return [
            f"{place}: {every} steps: {mix.trainer_path} saves a checkpoint every {saved} "
            f"(train.save_interval), so it must be a multiple of {saved}: {valid}"
        ]
    if every >= steps:
        return [f"{place}: {every} steps: the run has {steps}, so nothing would be decided"]
    return []


def steered_arm(mix: Mix, name: str) -> str:
    """Returns the arm of an experiment whose items are placed by control.

    Raises:
        InputError: when there is no such experiment or arm, or its kind has no probes.
    """
    place = f"{mix.path}: control: experiments: {name}"
    configs = {one.config.name: one.config for one in mix.experiments}
    if mix.config.control is None or name not in configs:
        raise InputError(f"{place}: the mix has no such experiment{nearest(name, configs)}")
    config = configs[name]
    if config.kind not in STEERED_KINDS:
        raise InputError(
            f"{place}: kind {config.kind} has no probes to steer by: {', '.join(STEERED_KINDS)} has"
        )
    arms = [arm.name for arm in config.arms if arm.held_out]
    told = mix.config.control.experiments[name].arm
    if told is None and len(arms) == 1:
        return arms[0]
    if told is None:
        raise InputError(f"{place}: arm: name the one that is steered: {', '.join(arms)}")
    if told not in arms:
        raise InputError(
            f"{place}: arm: '{told}': the experiment has no such arm with copies: 0"
            f"{nearest(told, arms)}"
        )
    return told


def controller_of(mix: Mix, name: str) -> Ready:
    """Returns the controller of an experiment, with its options.

    Raises:
        InputError: when there is no such controller, or its options are wrong.
    """
    if mix.config.control is None:
        raise InputError(f"{mix.path}: control: is missing")
    told = mix.config.control.experiments[name]
    place = f"{mix.path}: control: experiments: {name}"
    return ready_controller(told.controller, told.options, place)
