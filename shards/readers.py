"""Which processes of this machine read a build: a trainer must not, while its data is changed.

An unmodified LitGPT leaves no lock, so the process table is asked (Linux, /proc). A process reads
the build when it has a file of DIR/train open or mapped (litdata maps the chunks it reads), or when
its command line is a `litgpt pretrain` whose config names DIR: that one has not opened a chunk yet,
or has opened all it needs and runs its last steps.

Trainers on other machines, and those of other users, cannot be seen. Price: some milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_PROC = Path("/proc")
_PATH_OPTIONS = ("--data.data_path", "--data.init_args.data_path")


@dataclass(frozen=True)
class Reader:
    """A process that reads a build."""

    pid: int
    command: str


def readers_of(build: Path, part: str = "train") -> list[Reader]:
    """Returns the other processes of this machine that read the folder `part` of the build."""
    build = build.resolve()
    found = []
    for pid in _others():
        try:
            command = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
            arguments = command.rstrip("\0").split("\0")
            if _holds(pid, f"{build / part}/") or _is_trainer_of(pid, arguments, build, part):
                found.append(Reader(pid, " ".join(arguments)[:200]))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def _others() -> Iterator[int]:
    names = os.listdir(_PROC) if _PROC.is_dir() else []
    yield from (int(name) for name in names if name.isdigit() and int(name) != os.getpid())


def _holds(pid: int, folder: str) -> bool:
    """Returns whether the process has a file of the folder mapped or open."""
    maps = (_PROC / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
    if f" {folder}" in maps:  # a path begins behind a space: /a/DIR is not DIR
        return True
    for link in (_PROC / str(pid) / "fd").iterdir():
        try:
            if os.readlink(link).startswith(folder):
                return True
        except OSError:
            continue
    return False


def _is_trainer_of(pid: int, arguments: list[str], build: Path, part: str) -> bool:
    """Returns whether a command line is a pretraining on this part of the build."""
    if "pretrain" not in arguments:
        return False
    folder = Path(os.readlink(_PROC / str(pid) / "cwd"))
    values = dict(_options(arguments))
    told = _config_data(folder, values.get("--config", ""))
    for option in _PATH_OPTIONS:
        told["data_path"] = values.get(option, told.get("data_path"))
    if told["data_path"] is None or (folder / str(told["data_path"])).resolve() != build:
        return False
    splits = told.get("split_names")
    return not isinstance(splits, list) or splits[:1] == [part]


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (option, value) of `--option value` and `--option=value`."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            following = arguments[number + 1 : number + 2] or [""]
            yield name, value if equals else following[0]


def _config_data(folder: Path, config: str) -> dict[str, Any]:
    """Returns what a trainer config says of its data; nothing where it cannot be read."""
    try:
        values = yaml.safe_load((folder / config).read_text(encoding="utf-8"))
        return dict(values["data"].get("init_args") or {})
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}
