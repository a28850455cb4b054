"""cpdt.json: the record of a set of dependence runs, written last. No cpdt.json, no set.

    DIR/cpdt.json           this record
    DIR/start/              the checkpoint that every run begins from
    DIR/runs/NAME/          the data of a run, its trainer config, later its checkpoint

It says which build and checkpoint the runs belong to, which experiments they ask about by which
metric, and what every run was given. The file is canonical JSON, as mix.json is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text
from mixctl.shards.record import FileRecord

FORMAT_VERSION = 1
RECORD_NAME = "cpdt.json"
RunRole = Literal["experiment", "all", "no-op"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRecord(_Part):
    """A run: what it was given.

    Attributes:
        name: of its folder below runs/.
        role: one experiment's data, that of all experiments, or base text alone.
        experiments: whose data it holds.
        like: of a no-op run: the experiment whose payloads its base text is like.
        tokens: payload tokens in all.
        placements: how many payloads they are in.
        files: of its data, below its folder.
    """

    name: str
    role: RunRole
    experiments: list[str]
    like: str | None
    tokens: int
    placements: int
    files: dict[str, FileRecord]


class DependenceRecord(_Part):
    """All of cpdt.json.

    Attributes:
        build: the folder of the build that the experiments are of.
        build_digest: of its mix.json when the set was made.
        checkpoint: the folder of the checkpoint that the runs continue.
        checkpoint_digest: of its lit_model.pth.
        split: train or control/train: which of them the checkpoint was trained on.
        step: completed steps of the checkpoint.
        steps: steps of every run.
        share: payload tokens of an experiment over the tokens of a run, as asked for.
        seed: of all draws.
        base_pool: base sequences that the runs draw theirs from.
        base_shared: whether runs share base sequences, since the pool is too small.
        metrics: experiment -> the metric that is its outcome, by name.
        items: experiment -> digest of its items.
        untested: experiment -> why it cannot be tested this way.
        runs: experiments first, then all, then the no-op runs.
        start_digest: of start/lit_model.pth.
        versions: of the packages.
    """

    format_version: int = FORMAT_VERSION
    continuation: Literal["resume"] = "resume"
    """optimizer state and learning-rate schedule are those of the checkpoint"""
    build: str
    build_digest: str
    checkpoint: str
    checkpoint_digest: str
    split: str
    step: int
    steps: int
    share: float
    seed: int
    base_pool: int
    base_shared: bool
    metrics: dict[str, str]
    items: dict[str, str]
    untested: dict[str, str]
    runs: list[RunRecord]
    start_digest: str
    versions: dict[str, str]

    @property
    def experiments(self) -> list[str]:
        """Returns the experiments that are tested, by name: the order of rows and columns."""
        return list(self.metrics)

    @property
    def end(self) -> int:
        """Returns the step at which every run is scored."""
        return self.step + self.steps

    def run(self, name: str) -> RunRecord:
        """Returns the run of this name."""
        return next(run for run in self.runs if run.name == name)


def run_folder(folder: Path, name: str) -> Path:
    """Returns the folder of a run: data, trainer config, checkpoint."""
    return folder / "runs" / name


def checkpoint_folder(folder: Path, name: str, end: int) -> Path:
    """Returns where stock LitGPT saves the checkpoint of a run at its last step."""
    return run_folder(folder, name) / "out" / f"step-{end:08d}"


def write_dependence(folder: Path, record: DependenceRecord) -> None:
    """Writes cpdt.json by atomic rename."""
    plain = record.model_dump(mode="json")
    text = json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False)
    write_text(folder / RECORD_NAME, text + "\n")


def read_dependence(folder: Path) -> DependenceRecord:
    """Returns the record of a set of runs.

    Raises:
        InputError: when cpdt.json is missing, is no such record, or of another format.
    """
    path = folder / RECORD_NAME
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format_version") != FORMAT_VERSION:
            found = raw.get("format_version")
            raise InputError(
                f"{path}: format_version is {found!r}, this mixctl reads {FORMAT_VERSION}"
            )
        return DependenceRecord.model_validate(raw)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {folder} holds no dependence runs") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a record of dependence runs ({error})") from error
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise InputError(f"{path}: not a record of dependence runs ({'; '.join(places)})") from None
