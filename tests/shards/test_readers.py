"""Who reads a build: seen in the process table, as it would be with a trainer."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mixctl.shards.readers import readers_of

MAPS = """
import mmap, sys, time
file = open(sys.argv[1], "rb")
data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
if len(sys.argv) > 2:
    file.close()
print("ready", flush=True)
time.sleep(60)
"""
WAITS = "print('ready', flush=True); import time; time.sleep(60)"


@pytest.fixture
def build(tmp_path):
    for part in ("train", "control/train"):
        (tmp_path / "build" / part).mkdir(parents=True)
        (tmp_path / "build" / part / "chunk-000000.bin").write_bytes(bytes(4096))
    return tmp_path / "build"


@pytest.fixture
def start():
    children = []

    def start(code, *arguments, cwd=None):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=cwd))
        assert children[-1].stdout.readline() == b"ready\n"
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def pids(build):
    return [reader.pid for reader in readers_of(build)]


def test_a_build_whose_path_ends_like_this_one_is_another(build, start):
    start(MAPS, build / "train/chunk-000000.bin", "close")
    assert readers_of(Path("/build")) == []


@pytest.mark.parametrize("closed", [[], ["close"]])
def test_an_open_or_mapped_chunk_is_seen_until_the_process_ends(build, start, closed):
    assert pids(build) == []
    child = start(MAPS, build / "train/chunk-000000.bin", *closed)
    assert pids(build) == [child.pid]
    child.kill()
    child.wait()
    assert pids(build) == []


def test_the_twin_may_be_trained_on_meanwhile(build, start):
    start(MAPS, build / "control/train/chunk-000000.bin")
    assert pids(build) == []


def config(path, **init_args):
    path.write_text(yaml.safe_dump({"data": {"class_path": "LitData", "init_args": init_args}}))


def test_a_pretraining_is_seen_before_it_opens_a_chunk(build, start, tmp_path):
    config(build / "litgpt.yaml", data_path=str(build), split_names=["train", "val"])
    config(build / "litgpt-control.yaml", data_path=str(build), split_names=["control/train"])
    config(tmp_path / "other.yaml", data_path=str(tmp_path), split_names=["train", "val"])
    seen = [
        start(WAITS, "litgpt", "pretrain", "--config", build / "litgpt.yaml"),
        start(WAITS, "litgpt", "pretrain", "--config=build/litgpt.yaml", cwd=tmp_path),
        start(
            WAITS,
            *("litgpt", "pretrain", "--config", tmp_path / "other.yaml"),
            *("--data.data_path", "build"),
            cwd=tmp_path,
        ),
    ]
    start(WAITS, "litgpt", "pretrain", "--config", build / "litgpt-control.yaml")
    start(WAITS, "litgpt", "pretrain", "--config", tmp_path / "other.yaml")
    start(WAITS, "litgpt", "pretrain", "--config", tmp_path / "missing.yaml")
    start(WAITS, "less", build / "litgpt.yaml")
    assert sorted(pids(build)) == sorted(child.pid for child in seen)


def test_a_process_that_ends_meanwhile_is_no_error(build):
    children = [subprocess.Popen([sys.executable, "-c", "pass"]) for _ in range(3)]
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert pids(build) == []
    for child in children:
        child.wait()
