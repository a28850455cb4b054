"""What is struck: build, relayout, amend, eval and report, each with its old and its new state.

A scene begins from the same files each time. After a fault its folder must hold the old state, the
new one, or work that a second run ends, and only whoever asks for the finished thing must be
refused meanwhile; after the second run it holds exactly what a run without a fault leaves.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import pyarrow.parquet as pq
import yaml

import mixctl.evals.report  # noqa: F401 (imported before the fork, once for all)
import mixctl.evals.run  # noqa: F401
import mixctl.pipeline.amend
import mixctl.pipeline.build
import mixctl.pipeline.relayout
import mixctl.shards.verify  # noqa: F401
from mixctl.shards.record import read_record
from tests.evals import tiny
from tests.evals.made_results import made_results
from tests.faults.inject import Fault, run
from tests.support.workspace import Workspace, quiz, write_jsonl

State = dict[str, bytes]
NO_FAULT = Fault("clock", 0)


def state_of(folder: Path) -> State:
    """Returns the content of every file that a finished command leaves, by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Scene(ABC):
    """A command and the folder that it writes."""

    name: str
    arguments: list[str]

    def __init__(self, root: Path) -> None:
        self.root, self.scratch, self.out = root / "scene", root / "scratch", root / "scene/out"
        self.root.mkdir(parents=True)
        self.scratch.mkdir()
        self.made()
        self.begin()
        ended = run(self.arguments, self.out, NO_FAULT, self.scratch)
        assert ended.status == 0 and ended.n_writes, ended
        self.new, self.n_writes = self.state(), ended.n_writes

    @abstractmethod
    def made(self) -> None:
        """Makes what the command reads, and sets `arguments`."""

    def begin(self) -> None:
        """Puts the folder back to the old state: there is none."""
        shutil.rmtree(self.out, ignore_errors=True)

    def state(self) -> State:
        """Returns what the command left, without what may differ from run to run."""
        return state_of(self.out)

    @abstractmethod
    def wrong(self) -> str | None:
        """Returns what is wrong with the state after a fault: half of it taken for the whole."""

    def _refused(self, *arguments: str) -> str | None:
        """Returns what is wrong when a command does not refuse the unfinished folder."""
        ended = run(list(arguments), self.scratch / "x", NO_FAULT, self.scratch)
        if ended.status == 2 and ended.said.startswith("error: "):
            return None
        return f"mixctl {' '.join(arguments)} ends with {ended.status}: {ended.said[-500:]}"

    def _verified(self, folder: Path) -> str | None:
        """Returns what `verify` says against a build."""
        arguments = ["verify", str(folder), "--full"]
        ended = run(arguments, self.scratch / "x", NO_FAULT, self.scratch)
        return None if ended.status == 0 else f"verify: {ended.said[-500:]}"


class Build(Scene):
    """A build with its twin."""

    name = "build"

    def made(self) -> None:
        work = Workspace(self.root / "work")
        mix = work.mix(quiz())
        self.arguments = ["build", str(mix), "--out", str(self.out), "--control"]

    def wrong(self) -> str | None:
        if (self.out / "mix.json").exists():
            return self._verified(self.out)
        return self._refused("show", str(self.out))


class Relayout(Build):
    """A build laid out for two devices."""

    name = "relayout"

    def made(self) -> None:
        work = Workspace(self.root / "work")
        source, other = self.root / "source", work.trainer("other.yaml", devices=2)
        arguments = ["build", str(work.mix(quiz())), "--out", str(source)]
        assert run(arguments, self.out, NO_FAULT, self.scratch).status == 0
        self.arguments = ["relayout", str(source), "--trainer", str(other), "--out", str(self.out)]


class Amend(Scene):
    """More questions in the second half of a build."""

    name = "amend"

    def made(self) -> None:
        work = Workspace(self.root / "work")
        self.sound = self.root / "sound"
        arguments = ["build", str(work.mix(quiz())), "--out", str(self.sound), "--control"]
        assert run(arguments, self.out, NO_FAULT, self.scratch).status == 0
        rows = [{"id": f"late-{n}", "text": f"w{n} w{n + 1} w{n + 2}"} for n in range(20)]
        write_jsonl(work.folder / "late.jsonl", rows)
        arm = {"name": "x3", "items": "rest", "copies": 3}
        late = {"name": "late", "kind": "documents", "items": "late.jsonl", "arms": [arm]}
        additions = work.folder / "additions.yaml"
        additions.write_text(yaml.safe_dump({"experiments": [late]}))
        self.arguments = ["amend", str(self.out), str(additions), "--after-step", "100"]

    def begin(self) -> None:
        super().begin()
        shutil.copytree(self.sound, self.out)

    def state(self) -> State:
        """Leaves out mix.json, which holds the time of the amendment: its files' digests stay."""
        found = {name: data for name, data in state_of(self.out).items() if name != "mix.json"}
        record = read_record(self.out)
        found["mix.json"] = repr(sorted(record.files.items())).encode()
        return found

    def wrong(self) -> str | None:
        problem = self._verified(self.out)  # whoever opens it next settles what was begun
        n_amendments = len(read_record(self.out).amendments)
        if problem is None and n_amendments == 1:
            self.begin()  # the new state: a second run would amend it again
        return problem


class Eval(Scene):
    """An eval of three experiments on two checkpoints."""

    name = "eval"

    def made(self) -> None:
        arms = {"holdout": (6, 0), "x2": (6, 2)}
        build = tiny.make_build(self.root / "build", {"facts": ("documents", tiny.documents(arms))})
        for step in (5, 10):
            folder = self.root / f"run/step-{step:08d}"
            tiny.make_checkpoint(folder, tiny.tiny_model(step), build, step)
        self.arguments = ["eval", str(build), str(self.root / "run"), "--out", str(self.out)]

    def state(self) -> State:
        return {name: data for name, data in state_of(self.out).items() if name != "report.html"}

    def wrong(self) -> str | None:
        if (self.out / "results.json").exists():
            names = [p.name for p in self.out.glob("*.parquet")]
            return None if pq.read_table(self.out / "results.parquet").num_rows else str(names)
        return self._refused("report", str(self.out))


class Report(Scene):
    """A report written over an older one."""

    name = "report"
    OLD = b"<!doctype html>an older report"

    def made(self) -> None:
        self.sound = made_results(self.root / "results")
        (self.sound / "report.html").write_bytes(self.OLD)
        self.arguments = ["report", str(self.out)]

    def begin(self) -> None:
        super().begin()
        shutil.copytree(self.sound, self.out)

    def wrong(self) -> str | None:
        found = (self.out / "report.html").read_bytes()
        if found in (self.OLD, getattr(self, "new", {}).get("report.html")):
            return None
        return f"report.html is neither the old one nor the new one: {found[:100]!r}"


SCENES: tuple[type[Scene], ...] = (Build, Relayout, Amend, Eval, Report)
