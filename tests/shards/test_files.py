"""Writes leave the old content or the new; digests are BLAKE3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from mixctl.shards import files
from mixctl.shards.files import (
    EarlySync,
    digest_bytes,
    digest_file,
    replacing,
    write_bytes,
    write_text,
)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_interrupted_write_leaves_the_old_content(
    tmp_path: Path, error: type[BaseException], old: str | None
) -> None:
    path = tmp_path / "mix.json"
    if old:
        path.write_text(old)
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert [found.name for found in tmp_path.iterdir()] == (["mix.json"] if old else [])
    assert not old or path.read_text() == old


def test_killed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    path.write_text("old")
    script = (
        "import os, sys, pathlib\n"
        "from mixctl.shards.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=os.environ | _path())
    assert done.returncode == -9
    assert path.read_text() == "old"


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def test_old_content_stays_readable_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent and partial != path
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_nothing_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_write_text_is_utf8_without_newline_translation(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a", "ü\nb\r\n")
    assert (tmp_path / "deep" / "a").read_bytes() == b"\xc3\xbc\nb\r\n"


@pytest.mark.parametrize("n_bytes", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path: Path, n_bytes: int) -> None:
    data = bytes(range(256)) * (n_bytes // 256) + bytes(n_bytes % 256)
    write_bytes(tmp_path / "a", data)
    expected = blake3(data).hexdigest(length=16)
    assert digest_file(tmp_path / "a") == digest_bytes(data) == expected
    assert digest_bytes(data, 8) == blake3(data).hexdigest(length=8)


def test_digests_are_those_of_the_published_vectors() -> None:
    """The first 3 bytes of the vectors' input; BLAKE3-team/BLAKE3, test_vectors.json."""
    known = {
        0: "af1349b9f5f9a1a6a0404dea36dcc949",
        1: "2d3adedff11b61f14c886e35afa03673",
        2: "7b7015bb92cf0b318037702a6cdd81de",
    }
    assert {n: digest_bytes(bytes(range(n))) for n in known} == known


def test_what_the_disk_refused_while_a_file_was_written_is_an_error(tmp_path: Path, monkeypatch):
    """The disk reports a failed write once: a later sync of the same file may succeed."""
    asked: list[int] = []
    honest = os.fsync

    def fails_once(descriptor: int) -> None:
        asked.append(descriptor)
        if len(asked) == 1:
            raise OSError(5, "Input/output error")
        honest(descriptor)

    monkeypatch.setattr(files, "_SYNC_BYTES", 10)
    monkeypatch.setattr(os, "fsync", fails_once)
    path = tmp_path / "chunk"
    with pytest.raises(OSError, match="Input/output error"):
        with replacing(path) as partial, partial.open("wb") as file, EarlySync(file) as early:
            for _ in range(3):
                file.write(b"x" * 8)
                early.wrote(8)
    assert len(asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_is_flushed_while_it_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "_SYNC_BYTES", 10)
    seen: list[int] = []
    path = tmp_path / "chunk"
    honest = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.fstat(fd).st_size) or honest(fd))
    with path.open("wb") as file, EarlySync(file) as early:
        for _ in range(2):
            file.write(b"x" * 8)
            early.wrote(8)
    assert seen == [16]
