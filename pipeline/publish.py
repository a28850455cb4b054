"""A finished build copied to an fsspec address, s3://bucket/run1 for one, to be trained on there.

    mixctl build mix.yaml --out s3://bucket/run1 --stage /scratch/run1

The build is made and sealed in the folder `--stage`, like any other; then its files are uploaded by
tasks, each after its digest was compared with the record, the trainer configs with the address as
their `data_path`, and `mix.json` last of all: no mix.json at the address, no build there. An upload
that was interrupted goes on with the tasks that are left. The folder stays: `mixctl show` and
`mixctl eval` read the manifest there, and `verify` its loader.

Why not write chunks to the address directly: an object that is written in parts can neither be
renamed into place nor be flushed, and the manifest, the overlay and the base stream are mapped
files. Price: the disk holds the build until it is uploaded, and every file is read once more.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from fsspec.implementations.local import LocalFileSystem

from mixctl.pipeline.build import build
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executor_names import ExecutorName
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.mixfile import read_mix
from mixctl.shards.addresses import listing, opened
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_bytes, digest_file
from mixctl.shards.journal import WORK
from mixctl.shards.record import RECORD_NAME, BuildRecord, FileRecord, read_record, record_text

MAX_TASKS = 128
_CONFIGS = ("litgpt.yaml", "litgpt-control.yaml")
_MOST_NAMED = 3
_PROBE = ".mixctl-can-write"


class UploadFiles(PipelineStep):
    """Uploads this task's files of a finished build."""

    name = "Upload files"
    type = "WRITER"

    def __init__(self, build: Path, address: str, files: dict[str, FileRecord]) -> None:
        """Takes the folder, the address, and the record of each file."""
        super().__init__()
        self.build, self.address, self.files = build, address, files

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Raises VerificationError when a file is not what the record says."""
        filesystem, root = opened(self.address)
        for name in sorted(self.files)[rank::world_size]:
            path, target = self.build / name, f"{root}/{name}"
            with self.track_time("file"):
                if digest_file(path) != self.files[name].digest:
                    why = "its content does not match the digest in mix.json"
                    raise VerificationError([f"{path}: {why}"])
                _make_folder(filesystem, target)
                filesystem.put_file(str(path), target)
        yield from ()


def build_at(
    mix_path: Path,
    address: str,
    stage: Path,
    control: bool = False,
    workers: int | None = None,
    executor: ExecutorName | None = None,
) -> BuildRecord:
    """Returns the record of the build at the address, made in the folder `stage` and uploaded.

    Raises:
        InputError: with every problem; one of the address before any work.
    """
    listing(address)
    _check_writable(address)
    build(mix_path, stage, control=control, workers=workers, executor=executor)
    return publish(stage, address, read_mix(mix_path).config.executor.chosen(executor, workers))


def _check_writable(address: str) -> None:
    """Writes an empty file there and removes it: a build may take days before its upload begins."""
    filesystem, root = opened(address)
    try:
        _make_folder(filesystem, f"{root}/{_PROBE}")
        filesystem.pipe_file(f"{root}/{_PROBE}", b"")
        filesystem.rm_file(f"{root}/{_PROBE}")
    except Exception as error:  # every client has errors of its own
        raise InputError(f"{address}: cannot be written ({error})") from None


def _make_folder(filesystem: Any, path: str) -> None:
    """Makes the folder of a file where there are folders; s3fs would make a missing bucket."""
    if isinstance(filesystem, LocalFileSystem):
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)


def publish(folder: Path, address: str, executor: ExecutorConfig) -> BuildRecord:
    """Returns the record of the build at the address, after everything is there, and it last.

    Args:
        folder: of a finished build.
        address: where it goes; nothing but an unfinished upload of this build may be there.
        executor: where the tasks run that upload.

    Raises:
        InputError: when the address cannot be reached or holds something else.
        VerificationError: when a file of the build is not what its record says.
    """
    record = read_record(folder)
    configs = {
        name: _config_at(folder / name, address) for name in _CONFIGS if name in record.files
    }
    changed = {name: _file_record(data) for name, data in configs.items()}
    published = record.model_copy(update={"files": {**record.files, **changed}})
    text = record_text(published).encode()
    filesystem, root = opened(address)
    if _is_there(address, published, text):
        return published
    files = {name: file for name, file in record.files.items() if name not in configs}
    stage = folder / WORK / f"upload-{digest_bytes(address.encode() + text)}"
    n_tasks = min(len(files), MAX_TASKS)
    run_stage("upload", [UploadFiles(folder.resolve(), address, files)], stage, n_tasks, executor)
    for name, data in configs.items():
        filesystem.pipe_file(f"{root}/{name}", data)
    filesystem.pipe_file(f"{root}/{RECORD_NAME}", text)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return published


def _config_at(path: Path, address: str) -> bytes:
    """Returns a trainer config that reads the build at the address."""
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"]["init_args"]["data_path"] = address.rstrip("/")
    return yaml.safe_dump(config, sort_keys=False).encode()


def _file_record(data: bytes) -> FileRecord:
    return FileRecord(bytes=len(data), digest=digest_bytes(data))


def _is_there(address: str, record: BuildRecord, text: bytes) -> bool:
    """Returns whether the build is at the address already.

    Raises:
        InputError: when something else is.
    """
    names = listing(address)
    if RECORD_NAME in names:
        filesystem, root = opened(address)
        if filesystem.cat_file(f"{root}/{RECORD_NAME}") == text:
            return True
        raise InputError(f"--out: {address} already holds another build: choose a new address")
    strangers = sorted(names.keys() - record.files.keys())
    if strangers:
        named = ", ".join(strangers[:_MOST_NAMED])
        raise InputError(
            f"--out: {address} holds {len(strangers)} files that are not of this build ({named}): "
            "choose a new address"
        )
    return False
