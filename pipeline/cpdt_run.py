"""Trains dependence runs on this machine: a child of stock LitGPT a run, ended after its save.

A run is trained when its checkpoint is complete: LitGPT writes model_config.yaml last, and it must
say what that of the starting checkpoint says (it may be seen half written). What an interrupted
run left is removed before it begins again, and LitGPT is ended by the system when this is killed
(on Linux), so that a kill at any moment costs one run at most.

    $ mixctl cpdt run cpdt1 --jobs 2
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from mixctl.evals.checkpoint import CONFIG_NAME, STATE_NAME
from mixctl.pipeline.cpdt_start import START
from mixctl.pipeline.training import LITGPT, start_child, stop_child
from mixctl.shards.dependence_record import (
    DependenceRecord,
    checkpoint_folder,
    read_dependence,
    run_folder,
)
from mixctl.shards.errors import InputError, StageError, VerificationError, nearest
from mixctl.shards.files import digest_file

POLL_SECONDS = 0.2
_LOG = "train.log"


def is_trained(folder: Path, record: DependenceRecord, name: str) -> bool:
    """Returns whether the checkpoint of a run is complete."""
    saved = checkpoint_folder(folder, name, record.end) / CONFIG_NAME
    with suppress(OSError, yaml.YAMLError):
        wanted = yaml.safe_load((folder / START / CONFIG_NAME).read_text(encoding="utf-8"))
        return bool(yaml.safe_load(saved.read_text(encoding="utf-8")) == wanted)
    return False


def untrained(folder: Path, record: DependenceRecord) -> list[str]:
    """Returns the names of the runs without a complete checkpoint."""
    return [run.name for run in record.runs if not is_trained(folder, record, run.name)]


@dataclass
class _Child:
    """A training that is going on."""

    name: str
    process: subprocess.Popen[bytes]
    began: float


def train_runs(
    folder: Path,
    names: Sequence[str] = (),
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> DependenceRecord:
    """Returns the record, after training the runs that are not trained yet.

    Args:
        folder: of the set.
        names: of the runs; empty for all.
        jobs: trainings at a time.
        tell: is told each run that ends.

    Raises:
        InputError: when a name is none of the set's, or another call trains one of them.
        VerificationError: when the data of a run is not what was built.
        StageError: when a training fails; what is trained is kept.
    """
    folder = folder.resolve()
    record = read_dependence(folder)
    known = [run.name for run in record.runs]
    problems = [f"--run {name}: no such run{nearest(name, known)}" for name in names]
    if wrong := [p for name, p in zip(names, problems, strict=True) if name not in known]:
        raise InputError(wrong)
    waiting = [name for name in untrained(folder, record) if not names or name in names]
    with ExitStack() as locks:
        for name in waiting:
            try:
                locks.enter_context(FileLock(run_folder(folder, name) / ".lock", timeout=0))
            except Timeout:
                raise InputError(f"{folder}: run {name} is being trained already") from None
        _check_data(folder, record, waiting)
        _train(folder, record, waiting, jobs, tell)
    return record


def _check_data(folder: Path, record: DependenceRecord, names: Sequence[str]) -> None:
    """Compares the files of the runs, and the starting checkpoint, with their digests."""
    digests = {folder / START / STATE_NAME: record.start_digest} if names else {}
    for name in names:
        own = record.run(name).files
        digests |= {run_folder(folder, name) / file: said.digest for file, said in own.items()}
    findings = [
        f"{path}: {'does not match its digest in cpdt.json' if path.is_file() else 'missing'}"
        for path, digest in digests.items()
        if not path.is_file() or digest_file(path) != digest
    ]
    if findings:
        raise VerificationError(findings)


def _train(
    folder: Path,
    record: DependenceRecord,
    waiting: list[str],
    jobs: int,
    tell: Callable[[str], None],
) -> None:
    """Trains the runs, `jobs` at a time; ends all children however it ends itself."""
    left, running = list(waiting), list[_Child]()
    try:
        while left or running:
            while left and len(running) < jobs:
                running.append(_start(folder, left.pop(0)))
            time.sleep(POLL_SECONDS)
            for child in list(running):
                ended = child.process.poll() is not None
                if is_trained(folder, record, child.name):
                    stop_child(child.process)
                    seconds = time.monotonic() - child.began
                    n_done = len(waiting) - len(left) - len(running) + 1
                    tell(f"{child.name}: trained in {seconds:.0f} s ({n_done} of {len(waiting)})")
                elif ended:
                    raise StageError(_why(folder, child.name))
                else:
                    continue
                running.remove(child)
    finally:
        for child in running:
            stop_child(child.process)


def _start(folder: Path, name: str) -> _Child:
    run = run_folder(folder, name)
    shutil.rmtree(run / "out", ignore_errors=True)
    command = [*LITGPT, "--config", str(run / "litgpt.yaml")]
    with (run / _LOG).open("wb") as log:
        process = start_child(command, log.fileno(), folder)
    return _Child(name, process, time.monotonic())


def _why(folder: Path, name: str) -> str:
    log = run_folder(folder, name) / _LOG
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return f"run {name}: litgpt pretrain ended before it saved ({log}):\n{tail}"
