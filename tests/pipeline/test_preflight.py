"""Preflight: what is wrong before a run is found, and what cannot be known is said to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from litgpt import GPT, Config

from mixctl.pipeline import preflight as module
from mixctl.pipeline.build import build
from mixctl.pipeline.preflight import checkpoint_bytes, n_saves, parameters, preflight
from mixctl.pipeline.preflight_command import preflight as command
from mixctl.shards.errors import InputError
from tests.support.workspace import Workspace, quiz

REFERENCE = Path(__file__).parents[2] / "trainer_configs"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("preflight"))
    workspace.trainer(out_dir=str(workspace.folder / "out"))
    build(workspace.mix(quiz()), workspace.folder / "b", workers=1)
    return workspace.folder / "b"


def _verdicts(found) -> dict[str, str]:
    return {check.name: check.verdict for check in found.checks}


def _said(found, name: str) -> str:
    return next(check.said for check in found.checks if check.name == name)


def _config(built: Path, tmp_path: Path, **changes: object) -> Path:
    """Returns a trainer config that differs from the build's; names with a dot go to sections."""
    config = yaml.safe_load((built / "litgpt.yaml").read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            config[section][key] = value
        else:
            config[name] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_nothing_wrong(built):
    """The step time is given: which is faster, loader or tiny model, depends on the machine."""
    found = preflight(built, step_time=1.0, seconds=0.2)
    assert set(_verdicts(found).values()) == {"ok"} and not found.failed
    assert found.numbers["saves"] == 200 // 50 + 1
    assert found.numbers["loader_tokens_per_second"] > 0
    assert "measured here" in _said(preflight(built, seconds=0.2), "time")


def test_a_slow_loader_fails_against_a_fast_model(built, monkeypatch):
    monkeypatch.setattr(module, "loader_rate", lambda *args: 5120.0)
    slow = preflight(built, step_time=0.05)  # 8 x 64 tokens a step: 10,240 tokens/s
    assert _verdicts(slow)["loader"] == "FAIL" and "0.5 times as fast" in _said(slow, "loader")
    assert _verdicts(preflight(built, step_time=0.2))["loader"] == "ok"


def test_the_time_of_a_large_model_is_unknown_and_does_not_fail(built, monkeypatch):
    monkeypatch.setattr(module, "SMALL_MODEL", 10)
    found = preflight(built, seconds=0.1)
    assert _verdicts(found)["loader"] == _verdicts(found)["time"] == "unknown"
    assert not found.failed and "--step-time" in _said(found, "loader")
    hours = preflight(built, step_time=36.0, seconds=0.1)
    assert "200 steps x 36 s (as given) = 2 h" in _said(hours, "time")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train__micro_batch_size": 2}, "micro_batch is 2, the build has 4"),
        ({"train__max_tokens": 8 * 64 * 100}, "max_tokens is 51200, the build has 102400"),
        ({"data": {"class_path": "LitData", "init_args": {"seed": 8}}}, "data_seed is 8"),
        ({"train__lr_warmup_steps": "many"}, "lr_warmup_steps"),
    ],
)
def test_a_config_that_is_not_the_builds_fails(built, tmp_path, changes, said):
    path = _config(built, tmp_path, **changes)
    if said == "lr_warmup_steps":
        with pytest.raises(InputError, match=said):
            preflight(built, path)
        return
    found = preflight(built, path, seconds=0.1)
    assert _verdicts(found)["config"] == "FAIL" and said in _said(found, "config")
    assert _verdicts(found)["loader"] == "unknown" and found.failed


def test_a_config_of_another_folder_fails(built, tmp_path):
    data = {"path": str(tmp_path), "split_names": ["train", "val"]}
    settings = {"data_path": str(tmp_path), "split_names": data["split_names"], "seed": 7}
    settings["num_workers"] = 0
    path = _config(built, tmp_path, data={"class_path": "LitData", "init_args": settings})
    found = preflight(built, path, seconds=0.1)
    assert f"data_path is {tmp_path}, the build is in {built.resolve()}" in _said(found, "config")


def test_too_little_room_or_no_right_to_write_fails(built, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    found = preflight(built, seconds=0.1)
    assert _verdicts(found)["disk"] == "FAIL" and "5 saves x" in _said(found, "disk")
    monkeypatch.undo()
    monkeypatch.setattr(module, "_cannot_write", lambda folder: "Read-only file system")
    assert "cannot be written (Read-only" in _said(preflight(built, seconds=0.1), "disk")
    monkeypatch.undo()
    assert module._cannot_write(tmp_path) is None
    assert module._cannot_write(tmp_path / "missing") is not None


def test_damaged_shards_fail_and_the_command_says_so(built, tmp_path):
    chunk = built / "train" / "chunk-000000.bin"
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[:-2])
    done = CliRunner().invoke(command, [str(built), "--json", "--seconds", "0.1"])
    chunk.write_bytes(kept)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["ok"] and found["checks"][0]["verdict"] == "FAIL"
    assert "chunk-000000.bin" in found["checks"][0]["said"]
    well = CliRunner().invoke(command, [str(built), "--seconds", "0.1", "--step-time", "1"])
    assert well.exit_code == 0 and "FAIL" not in well.stdout


def test_the_size_of_a_checkpoint_is_that_of_a_real_one(built):
    litgpt = Path(sys.executable).with_name("litgpt")
    out = built.parent / "out"
    begin = [litgpt, "pretrain", "--config", built / "litgpt.yaml"]
    done = subprocess.run([*map(str, begin)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    saved = sorted(out.glob("*/lit_model.pth"))
    found = preflight(built, seconds=0.1)
    assert len(saved) == found.numbers["saves"]
    size = saved[0].stat().st_size
    assert found.numbers["checkpoint_bytes"] < size  # without names and headers
    assert size - found.numbers["checkpoint_bytes"] < 40_000
    assert "holds 4 checkpoints of an earlier run" in _said(found, "disk")


def test_sizes_by_hand():
    assert checkpoint_bytes(1_484_916_736, "bf16-mixed", None) == 17_819_000_832
    assert checkpoint_bytes(10, "bf16-true", "AdamW") == 60
    assert checkpoint_bytes(10, "32-true", {"class_path": "torch.optim.SGD"}) == 40
    momentum = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}
    assert checkpoint_bytes(10, None, momentum) == 80
    assert n_saves(100, 25) == 5 and n_saves(100, 30) == 4 and n_saves(100, None) == 1


@pytest.mark.parametrize("name", ["olmo2-1b.yaml", "pythia-160m.yaml"])
def test_parameters_are_litgpts(name):
    raw = yaml.safe_load((REFERENCE / name).read_text())
    config = Config(**raw["model_config"]) if "model_config" in raw else None
    if config is None:
        config = Config.from_name(raw["model_name"])
    import torch

    with torch.device("meta"):
        expected = sum(one.numel() for one in GPT(config).parameters())
    assert parameters(raw, Path("trainer.yaml")) == expected
    if name == "olmo2-1b.yaml":
        assert expected == 1_484_916_736  # as the file says


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_config__n_embd": -5}, "LitGPT does not accept it"),
        ({"model_config": None, "model_name": "pythia-14"}, "'pythia-14' (did you mean"),
    ],
)
def test_a_model_that_litgpt_cannot_make_is_one_message(built, tmp_path, changes, message):
    path = _config(built, tmp_path, **changes)
    with pytest.raises(InputError) as error:
        preflight(built, path)
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(f"{path}: ") and message in error.value.problems[0]
