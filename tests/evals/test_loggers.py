"""Curves of an eval, read back by TensorBoard itself and out of W&B's own offline files."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mixctl.evals import loggers
from mixctl.evals.cli import eval_command, log_command
from mixctl.evals.results import Results
from mixctl.shards.errors import InputError


def expected(found: Results, model: str) -> dict[tuple[str, int], float]:
    return {
        (f"{row.experiment}/{row.metric}/{row.contrast}/{row.arm}", row.step): row.estimate
        for row in found.rows
        if row.model == model and row.stratum is None and row.estimate is not None
    }


def curves(folder: Path) -> dict[tuple[str, int], float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    return {
        (tag, event.step): event.value
        for tag in read.Tags()["scalars"]
        for event in read.Scalars(tag)
    }


def test_tensorboard_reads_every_estimate(evaluated, tmp_path):
    found, out, _ = evaluated
    written = loggers.log_tensorboard(found, tmp_path / "logs")
    assert sorted(path.name for path in written) == ["run", "twin"]
    for model in ("run", "twin"):
        wanted = expected(found, model)
        read = curves(tmp_path / "logs" / model)
        assert len(wanted) > 50 and {step for _, step in wanted} == {5, 10}
        assert read == pytest.approx(wanted, rel=1e-6)  # TensorBoard keeps float32


def test_logged_again_it_is_there_once_and_others_files_stay(evaluated, tmp_path):
    found, out, _ = evaluated
    loggers.log_tensorboard(found, tmp_path)
    (tmp_path / "run/events.out.tfevents.1.other").write_bytes(b"")
    done = CliRunner().invoke(log_command, [str(out), "--tensorboard", str(tmp_path)])
    assert done.exit_code == 0 and f"tensorboard --logdir {tmp_path}" in done.output
    assert len(list((tmp_path / "run").glob("*.mixctl"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "twin"]
    assert (tmp_path / "run/events.out.tfevents.1.other").exists()
    assert curves(tmp_path / "twin")


def test_an_eval_logs_when_it_is_asked(evaluated, tmp_path):
    *_, settings = evaluated
    asked = [settings.build, *settings.checkpoints, "--out", tmp_path / "r"]
    logged = [*asked, "--tensorboard", tmp_path / "l", "--json"]
    done = CliRunner().invoke(eval_command, [*map(str, logged)])
    assert done.exit_code == 0 and json.loads(done.stdout)["primary"]
    assert curves(tmp_path / "l/run")


def test_nothing_is_imported_that_was_not_asked_for(evaluated, tmp_path, monkeypatch):
    *_, settings = evaluated
    for name in ("tensorboard", "wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # to import it is an ImportError now
    asked = [settings.build, *settings.checkpoints, "--out", tmp_path / "r"]
    done = CliRunner().invoke(eval_command, [*map(str, asked)])
    assert done.exit_code == 0, done.output


def test_a_missing_package_is_named_before_anything_is_scored(evaluated, tmp_path, monkeypatch):
    _, _, settings = evaluated
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    asked = [str(settings.build), str(settings.checkpoints[0]), "--out", str(tmp_path / "r")]
    with pytest.raises(InputError) as error:
        logged = [*asked, "--tensorboard", str(tmp_path), "--wandb", "project=x"]
        CliRunner().invoke(eval_command, logged, catch_exceptions=False)
    assert error.value.problems == [
        "--tensorboard: the package tensorboard is not installed: pip install tensorboard",
        "--wandb: the package wandb is not installed: pip install wandb",
    ]
    assert not (tmp_path / "r").exists()


def test_wrong_places_are_said(evaluated, tmp_path):
    _, out, _ = evaluated
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, a folder is needed"):
        loggers.check_loggers(tmp_path / "file", None)
    done = CliRunner().invoke(log_command, [str(out)])
    assert (
        done.exit_code == 2
        and "say where to: --tensorboard LOG_DIR, --wandb ARGS, or both" in done.output
    )


def test_several_twins_have_a_curve_each_and_an_unknown_step_is_the_last(evaluated):
    found, _, _ = evaluated
    rows = [replace(row, step=None) for row in found.rows if row.model == "run"]
    for name in ("a", "b"):
        rows += [
            replace(row, checkpoint=f"{name}/step-00000010")
            for row in found.rows
            if row.model == "twin" and row.step == 10
        ]
    points = loggers.scalars(replace(found, rows=rows))
    assert {point.series for point in points} == {"run", "twin", "twin-2"}
    assert {point.step for point in points if point.series == "run"} == {10}


def test_arguments_are_read_as_the_harness_reads_its_own():
    text = "project=a b,name=x=1,resume=True,n=3,f=.5,mode=offline"
    assert loggers.parsed_arguments(text) == {
        **{"project": "a b", "name": "x=1", "resume": True, "n": 3, "f": 0.5, "mode": "offline"}
    }


def test_wandb_offline_holds_the_curves_the_table_and_the_files(evaluated, tmp_path):
    """In a process of its own: W&B starts a service that lives as long."""
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed; make test-wandb")
    found, out, _ = evaluated
    arguments = f"project=mixctl,name=eval,mode=offline,dir={tmp_path}"
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "log", out, "--wandb", arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    history, summary = offline(path)
    read = {
        (name, int(line["step"])): value
        for line in history
        for name, value in line.items()
        if "step" in line and name.count("/") >= 3
    }
    wanted = expected(found, "run")
    twin = {(f"twin/{tag}", step): v for (tag, step), v in expected(found, "twin").items()}
    assert read == pytest.approx(wanted | twin)
    for row in found.primary:
        assert summary[f"primary/{row.experiment}/p_value"] == pytest.approx(row.p_value)
    tables = list(tmp_path.glob("wandb/offline-run-*/files/media/table/estimates_*.table.json"))
    assert len(json.loads(tables[0].read_text())["data"]) == len(found.rows)
    with pytest.raises(InputError, match=r"wandb\.init has no 'projet' \(did you mean 'project'"):
        loggers.check_loggers(None, "projet=x")
    with pytest.raises(InputError, match="'project' has no value"):
        loggers.check_loggers(None, "project")


def offline(path: Path) -> tuple[list[dict], dict]:
    """Returns the history and the summary of an offline run, by W&B's own messages."""
    from wandb.proto import wandb_internal_pb2

    history, summary = [], {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append(plain(record.history.item))
        elif kind == "summary":
            summary |= plain(record.summary.update)
    return history, summary


def records(data: bytes) -> Iterator[bytes]:
    """Yields the records of a log of LevelDB's format, which W&B writes behind 7 bytes of its own:
    blocks of 32 KiB; pieces of checksum, length, and whether one is whole (1) or the last (4)."""
    block, header, at, parts = 1 << 15, 7, 7, b""
    while at < len(data):
        if block - at % block < header:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):
            yield parts
            parts = b""


def plain(items) -> dict:
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
