"""Controllers: from what the probes say to the number of texts in the next steps.

A controller is a function of (state, v, set point) to (state, n): v is the mean probability of the
probes at a checkpoint, n the texts to place until the next one. The state is a mapping of names to
numbers, is written down with every decision, and begins with `n`, the texts of the first steps,
before there is a checkpoint.

    reference      v > 1.05 set point: n is halved; v < 0.95 set point: doubled; by at most 256, in
                   [1, 8192] (Bordt & Pawelczyk, arXiv 2509.23383)
    proportional   n = bias + gain x (set point - v) / set point, in [least, most]

Other packages register theirs by entry point, a `Controller` each:

    [project.entry-points."mixctl.controllers"]
    mine = "my_package.control:CONTROLLER"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from mixctl.injections.config import Strict
from mixctl.pipeline.yamlfile import parse
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.plugins import load_plugin, not_one

GROUP = "mixctl.controllers"
State = Mapping[str, float]
Decide = Callable[[State, float, float], tuple[State, int]]
Texts = Annotated[int, Field(ge=0)]


class Limits(Strict):
    """The options that every controller has.

    Attributes:
        least: texts in an interval at least.
        most: texts in an interval at most.
        start: texts of the first interval.
    """

    least: Texts = 1
    most: Texts = 8192
    start: Texts = 1

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if not self.least <= self.start <= self.most:
            raise ValueError(
                f"least <= start <= most is needed: {self.least}, {self.start}, {self.most}"
            )
        return self

    def kept(self, texts: float) -> int:
        """Returns the whole number of texts nearest to this one within the limits."""
        return int(min(max(round(texts), self.least), self.most))


@dataclass(frozen=True)
class Controller:
    """A way of control: the model of its options, and the function that they make.

    Attributes:
        options: a subclass of `Limits`.
        make: from options to the function (state, v, set point) -> (state, n).
    """

    options: type[Limits]
    make: Callable[[Any], Decide]


@dataclass(frozen=True)
class Ready:
    """A controller with its options: the state to begin with, and the function."""

    state: State
    decide: Decide
    options: Limits


class ReferenceOptions(Limits):
    """Thresholds around the set point, and the rate limit.

    Attributes:
        tolerance: share of the set point by which v may be off without a change.
        rate: by how many texts n may change at a time.
    """

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    rate: Annotated[int, Field(ge=1)] = 256


def reference(options: ReferenceOptions) -> Decide:
    """Returns the controller of the reference study."""

    def decide(state: State, v: float, set_point: float) -> tuple[State, int]:
        old = int(state["n"])
        wanted = old
        if v > (1 + options.tolerance) * set_point:
            wanted = old // 2
        elif v < (1 - options.tolerance) * set_point:
            wanted = 2 * old
        new = options.kept(min(max(wanted, old - options.rate), old + options.rate))
        return {"n": new}, new

    return decide


class ProportionalOptions(Limits):
    """The straight line from error to texts.

    Attributes:
        bias: texts where v is at its set point.
        gain: texts more where v is 0.
    """

    bias: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 64.0
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 64.0


def proportional(options: ProportionalOptions) -> Decide:
    """Returns the controller whose texts are proportional to how far v is off, in set points."""

    def decide(state: State, v: float, set_point: float) -> tuple[State, int]:
        new = options.kept(options.bias + options.gain * (set_point - v) / set_point)
        return {"n": new}, new

    return decide


_BUILT_IN = {
    "reference": Controller(ReferenceOptions, reference),
    "proportional": Controller(ProportionalOptions, proportional),
}


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def controller_names() -> list[str]:
    """Returns the names of all controllers, built-in and registered, sorted."""
    return sorted({*_BUILT_IN, *_plugins()})


def find_controller(name: str) -> Controller:
    """Returns the controller of that name.

    Raises:
        InputError: when there is none, naming the nearest, or an entry point gives something else.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name not in _plugins():
        raise InputError(f"unknown controller '{name}'{nearest(name, controller_names())}")
    found = load_plugin("controller", _plugins()[name])
    if not isinstance(found, Controller):
        raise not_one("controller", name, found, "a Controller")
    return found


def ready_controller(name: str, options: Mapping[str, Any], place: str) -> Ready:
    """Returns a controller with its options.

    Raises:
        InputError: naming the place, when there is no such controller or its options are wrong.
    """
    try:
        controller = find_controller(name)
    except InputError as error:
        raise InputError([f"{place}: {problem}" for problem in error.problems]) from None
    model: type[BaseModel] = controller.options
    told, problems = parse(model, dict(options), f"{place}: options")
    if not isinstance(told, Limits):
        raise InputError(problems)
    return Ready({"n": told.start}, controller.make(told), told)


def set_point_at(step: int, steps: int, final: float) -> float:
    """Returns the set point at a step: it rises linearly from 0 to `final` at the last step."""
    return final * step / steps


def round_robin(before: int, texts: int, n_items: int) -> list[int]:
    """Returns how many of the next texts are of each item, taken in turn after `before` texts.

    before 5, 4 texts, 3 items: texts 5 6 7 8 are of items 2 0 1 2 -> [1, 1, 2]
    """
    whole, rest = divmod(texts, n_items)
    turn = [(item - before) % n_items for item in range(n_items)]
    return [whole + (place < rest) for place in turn]
