"""The folder that a build is made in: whose it is, and what an unfinished build left there.

DIR/.work/     lock, stages; while it is there, the build is unfinished
DIR/mix.json   the build is finished
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.journal import WORK, recover
from mixctl.shards.locks import named
from mixctl.shards.record import RECORD_NAME, BuildRecord, read_record
from mixctl.shards.verify_files import check_files


def check_folder(out: Path) -> None:
    """Refuses a folder that holds something else than a build."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file")
    ours = {WORK, RECORD_NAME}
    if out.exists() and any(out.iterdir()) and not any((out / name).exists() for name in ours):
        raise InputError(f"--out: {out} is not empty and holds no build: choose a new folder")


def finished_build(out: Path, build_digest: str) -> BuildRecord:
    """Returns the record of a folder that holds the build of this digest already, files checked.

    Raises:
        InputError: when it holds another build.
        VerificationError: when a file is not what its record says.
    """
    record = read_record(out)
    if record.digests.get("build") != build_digest:
        raise InputError(
            f"--out: {out} already holds another build: choose a new folder, or remove it"
        )
    findings, _ = check_files(out, record, full=False)
    if findings:
        raise VerificationError(findings)
    return record


@contextmanager
def own_folder(out: Path) -> Iterator[None]:
    """Keeps a second build out of the folder; on wrong input removes what this run began."""
    fresh = [folder for folder in (out / WORK, out, *out.parents) if not folder.exists()]
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror})") from None
    lock = FileLock(out / WORK / "lock", timeout=0)
    try:
        with named(out), lock, _work_removed(out):
            recover(out)
            yield
    except Timeout:
        raise InputError(f"--out: {out}: another mixctl is at work in this folder") from None
    except InputError:
        if fresh:
            shutil.rmtree(out if out in fresh else out / WORK, ignore_errors=True)
        for parent in (folder for folder in fresh if folder in out.parents):
            with suppress(OSError):
                parent.rmdir()  # only where nobody else has put something meanwhile
        raise


@contextmanager
def _work_removed(out: Path) -> Iterator[None]:
    """Removes the work folder of a finished build, as long as the lock in it is held."""
    try:
        yield
    finally:
        if (out / RECORD_NAME).exists():
            shutil.rmtree(out / WORK, ignore_errors=True)


def remove_stale(out: Path) -> None:
    """Removes what an interrupted build of another mix left in the folder."""
    for name in ("train", "val", "control", "manifest", "tokenizer"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("litgpt.yaml", "litgpt-control.yaml", "README.md"):
        (out / name).unlink(missing_ok=True)
