"""`mixctl control`: train, stop, probe, decide, amend, resume, to the end of the run.

    OUT/build/                    the build; control-trace.json in it has every decision
    OUT/checkpoints/              LitGPT's out_dir
    OUT/train.log                 what the trainer wrote

At S = 0, every, 2 x every, ...: the probes are scored on checkpoint S, each experiment's controller
says how many texts n go into the steps S < step <= S + every, the decision is written down, the
build is amended, and `litgpt pretrain --resume` trains to the next checkpoint that is looked at.
Texts are taken round robin over the steered arm's items, each item's in turn over its reserved
paraphrases. `max_tokens` stays what it is, and so does the learning-rate schedule.

Every stage leaves a mark that the next start finds: the checkpoint, the decision, the amendment. So
a loop that is killed anywhere goes on where it was, and what is trained on does not depend on it.

Price: a start of LitGPT and a forward pass over the probes an interval, and the amendment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from mixctl.evals.run import default_device
from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amend import amend
from mixctl.pipeline.build import build
from mixctl.pipeline.control_config import (
    ControlConfig,
    control_problems,
    controller_of,
    steered_arm,
)
from mixctl.pipeline.control_room import room_problems
from mixctl.pipeline.controllers import Ready, round_robin, set_point_at
from mixctl.pipeline.finished import open_build
from mixctl.pipeline.mixfile import Mix, read_mix
from mixctl.pipeline.probing import probe_values
from mixctl.pipeline.training import FINAL, LITGPT, Trainer, TrainerEndedError, is_complete
from mixctl.pipeline.yamlfile import read_yaml
from mixctl.shards.control_trace import (
    TRACE_NAME,
    ControlTrace,
    Decision,
    Steered,
    read_trace,
    write_trace,
)
from mixctl.shards.errors import InputError
from mixctl.shards.readers import readers_of
from mixctl.shards.record import read_record

_GONE_SECONDS = 30.0


class View(Protocol):
    """Who is told how the loop goes."""

    def said(self, sentence: str) -> None:
        """Shows a sentence."""

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Shows what was decided after a checkpoint."""

    def trained(self, step: int) -> None:
        """Shows how far the training is."""


@dataclass(frozen=True)
class Settings:
    """How a loop is run.

    Attributes:
        out: its folder.
        twin: whether the build gets its twin.
        off: measure and decide, but place nothing.
        device: that probes are scored on; None: CUDA where there is one.
        retries: how often in a row a trainer that ended too early is started again.
        workers: tasks at a time of the build.
        command: what `litgpt pretrain` is called as.
    """

    out: Path
    twin: bool = False
    off: bool = False
    device: str | None = None
    retries: int = 3
    workers: int | None = None
    command: Sequence[str] = LITGPT


class Loop:
    """The closed loop of one mix; what it knows is on disk."""

    def __init__(self, mix: Mix, settings: Settings, view: View) -> None:
        """Takes a mix that was checked and whose build is finished."""
        if mix.config.control is None:
            raise InputError(f"{mix.path}: control: is missing")
        self._config: ControlConfig = mix.config.control
        self._mix, self._settings, self._view = mix, settings, view
        self._build = settings.out / "build"
        names = sorted(self._config.experiments)
        self._arms = {name: steered_arm(mix, name) for name in names}
        self._ready: dict[str, Ready] = {name: controller_of(mix, name) for name in names}
        self._steps = mix.topology.steps
        self._trainer = Trainer(
            self._build,
            settings.out / "checkpoints",
            settings.out / "train.log",
            settings.command,
        )
        self._trace = self._begun()

    def run(self) -> ControlTrace:
        """Returns the trace of the whole run.

        Raises:
            InputError: when something stands in the way of going on.
            TrainerEndedError: when the trainer ended too early more often than it is retried.
        """
        self._wait_for_leftovers()
        while not is_complete(self._trainer.out_dir / FINAL):
            start = self._reached()
            self._decide(start, min(start + self._config.every, self._steps))
            self._place(start)
            self._train(start)
        self._decide(self._steps, self._steps)
        return self._trace

    def _begun(self) -> ControlTrace:
        """Returns the trace so far; a new one is written down."""
        fresh = ControlTrace(
            every=self._config.every,
            steps=self._steps,
            off=self._settings.off,
            experiments={
                name: Steered(
                    arm=self._arms[name],
                    controller=told.controller,
                    options=self._ready[name].options.model_dump(),
                    set_point=told.set_point,
                )
                for name, told in sorted(self._config.experiments.items())
            },
        )
        found = read_trace(self._build)
        if found is None:
            if any(self._trainer.out_dir.glob("*")):
                raise InputError(
                    f"{self._trainer.out_dir}: holds checkpoints, but {self._build / TRACE_NAME} "
                    "is missing: choose a new folder"
                )
            write_trace(self._build, fresh)
            return fresh
        if found.model_copy(update={"decisions": []}) != fresh:
            raise InputError(
                f"{self._build / TRACE_NAME}: was begun with other settings of control (every, "
                "experiments, --off): give those, or choose a new folder"
            )
        return found

    def _wait_for_leftovers(self) -> None:
        """Waits for a trainer of a killed loop to be gone."""
        end = time.monotonic() + _GONE_SECONDS
        while readers := readers_of(self._build):
            if time.monotonic() > end:
                named = ", ".join(f"{one.pid} ({one.command})" for one in readers)
                raise InputError(f"{self._build}: is being read: end the process first: {named}")
            time.sleep(0.2)

    def _reached(self) -> int:
        """Returns the last step whose checkpoint is there and up to which all was decided."""
        step = 0
        for after in range(0, self._steps, self._config.every):
            if after and is_complete(self._trainer.checkpoint(after)):
                step = after
            if not self._trace.at(after):
                break
        return step

    def _decide(self, step: int, until: int) -> None:
        """Decides on the steps until `until`, unless it is written down already."""
        if self._trace.at(step):
            return
        if until > step:  # once it is decided, later checkpoints are of what was decided
            self._trainer.remove_later(step)
        values = self._values(step) if step else {}
        made = [self._decision(name, step, until, values.get(name)) for name in self._arms]
        self._trace = self._trace.plus(made)
        write_trace(self._build, self._trace)
        self._view.decided(made)

    def _values(self, step: int) -> dict[str, float]:
        """Returns what the probes of each experiment say at a step."""
        last = self._trainer.out_dir / FINAL
        folder = last if step == self._steps else self._trainer.checkpoint(step)
        device = self._settings.device or default_device()
        record = read_record(self._build)
        return probe_values(self._build, record, folder, self._arms, device)

    def _decision(self, name: str, step: int, until: int, value: float | None) -> Decision:
        final = self._config.experiments[name].set_point
        set_point = set_point_at(step, self._steps, final)
        earlier = self._trace.of(name)
        state = dict(earlier[-1].state if earlier else self._ready[name].state)
        texts = int(state["n"])
        if value is not None and until > step:
            new, texts = self._ready[name].decide(state, value, set_point)
            state = dict(new)
        return Decision(
            experiment=name,
            after_step=step,
            until_step=until,
            value=value,
            set_point=set_point,
            texts=texts if until > step else 0,
            state=state,
        )

    def _place(self, step: int) -> None:
        """Amends the steps after `step` as it was decided, unless that is done."""
        copies = self._copies(step)
        if self._settings.off or not any(sum(of.values()) for of in copies.values()):
            return
        record = read_record(self._build)
        if any((one.after_step, one.copies) == (step, copies) for one in record.amendments):
            return
        decisions = self._trace.at(step)
        sections = tuple(self._section(name, decisions[name]) for name in copies)
        additions = Additions(self._mix.folder, sections, copies, self._mix.path)
        amend(self._build, additions, step, self._trainer.checkpoint(step) if step else None)

    def _copies(self, step: int) -> dict[str, dict[str, int]]:
        """Returns how many texts each item gets after a step, by experiment."""
        found = open_build(self._build)
        copies: dict[str, dict[str, int]] = {}
        for name, decision in sorted(self._trace.at(step).items()):
            known = found.known_items(name)
            items = sorted(item for item, of in known.items() if of.arm == self._arms[name])
            before = self._trace.texts_before(name, step)
            each = round_robin(before, decision.texts, len(items))
            placed = {item: n for item, n in zip(items, each, strict=True) if n}
            copies |= {name: placed} if placed else {}
        return copies

    def _section(self, name: str, decision: Decision) -> dict[str, Any]:
        """Returns the experiment's own section, with nothing in it but these steps and this arm."""
        sections = read_yaml(self._mix.path)["experiments"]
        told = next(section for section in sections if section["name"] == name)
        kept = {key: value for key, value in told.items() if key not in ("schedule", "variants")}
        arms = [{"name": self._arms[name], "copies": 1}]
        begin = max(decision.after_step, min(1, decision.until_step - 1))  # step 1 has no rate
        return {**kept, "during": [begin, decision.until_step], "arms": arms}

    def _train(self, start: int) -> None:
        """Trains to the next checkpoint that is looked at; tries again when the trainer dies."""
        stop = start + self._config.every
        for attempt in range(self._settings.retries + 1):
            try:
                goal = stop if stop < self._steps else None
                self._trainer.run(start, goal, self._view.trained)
                return
            except TrainerEndedError as error:
                if attempt == self._settings.retries:
                    raise
                self._view.said(f"{str(error).splitlines()[0]} Resuming from step {start}.")


def control(mix_path: Path, settings: Settings, view: View) -> ControlTrace:
    """Returns the trace of a run that was steered from beginning to end, or continued.

    Args:
        mix_path: a mix file with `control:`.
        settings: how it is run.
        view: who is told.

    Raises:
        InputError: with every problem of mix and section; nothing is begun then.
        TrainerEndedError: when the trainer keeps ending too early.
    """
    mix = read_mix(mix_path)
    problems = control_problems(mix)
    if mix.config.control is None:
        problems.append(f"{mix_path}: control: is missing: say what is steered, and how often")
    if problems:
        raise InputError(problems)
    out = settings.out.resolve()
    with _alone_in(out):
        build(mix_path, out / "build", control=settings.twin, workers=settings.workers)
        if problems := room_problems(mix, open_build(out / "build")):
            raise InputError(problems)
        return Loop(mix, replace(settings, out=out), view).run()


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keeps a second loop out of the folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"--out: {out}: another mixctl control is at work here") from None
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()
