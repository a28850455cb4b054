"""Slurm and Ray, for real on this machine: the bytes of a local build, failed tasks run alone."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mixctl.pipeline import executor_config
from mixctl.pipeline.build import build
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.mixfile import read_mix
from mixctl.shards.errors import InputError, StageError
from tests.pipeline.test_build import assert_same
from tests.support.slurm import missing_programs, slurm_cluster
from tests.support.steps import CountRuns

ROOT = Path(__file__).parents[2]
SLURM = {"name": "slurm", "partition": "cpu", "time": "00:10:00", "mem_per_cpu_gb": 1}
RAY = {"name": "ray", "mem_per_cpu_gb": 1, "time": "00:10:00"}
EVERYWHERE = [
    pytest.param(SLURM, marks=pytest.mark.slurm, id="slurm"),
    pytest.param(RAY, marks=pytest.mark.ray, id="ray"),
]


@pytest.fixture(scope="module")
def slurm():
    """Returns the environment of a Slurm cluster; a socket's path must be short."""
    assert missing_programs() == [], "make test-slurm installs them"
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with slurm_cluster(folder) as environment:
        yield environment
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ray_cluster():
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def executor(request, monkeypatch):
    """Returns the section of an executor whose cluster is there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where tasks find the steps of these tests
    if request.param["name"] == "slurm":
        for name, value in request.getfixturevalue("slurm").items():
            monkeypatch.setenv(name, value)
    else:
        request.getfixturevalue("ray_cluster")
    return request.param


@pytest.mark.parametrize("executor", EVERYWHERE, indirect=True)
def test_a_build_has_the_bytes_and_the_record_of_a_local_one(shared, built, tmp_path, executor):
    mix = shared.mix(name=f"{executor['name']}.yaml", executor=executor)
    out = tmp_path / "out"
    build(mix, out, control=True)
    assert_same(built, out)
    mine, theirs = ((path / "mix.json").read_text() for path in (out, built))
    names = ("litgpt.yaml", "litgpt-control.yaml", "self_digest")
    assert _without(mine, names) == _without(theirs, names)


def _without(text, names):
    """Returns the lines of a mix.json, those after a name left out with it."""
    lines = iter(text.splitlines())
    kept = []
    for line in lines:
        if any(name in line for name in names):
            if line.endswith("{"):
                next(lines), next(lines), next(lines)
            continue
        kept.append(line)
    return kept


@pytest.mark.parametrize("executor", EVERYWHERE, indirect=True)
def test_a_task_that_failed_is_run_again_alone(tmp_path, executor):
    runs = tmp_path / "runs"
    runs.mkdir()
    how = "kill" if executor["name"] == "slurm" else "raise"
    config, stage = ExecutorConfig(**executor), tmp_path / "stage"
    steps = [CountRuns(runs, unlucky=2, how=how)]
    with pytest.raises(StageError, match=r"1 of 4 tasks did not end \(tasks 2\)") as error:
        run_stage("count", steps, stage, 4, config)
    assert str(stage / "log") in str(error.value)
    once = sorted(path.name for path in runs.iterdir())
    assert once == ["0-0", "1-0", "2-0", "3-0"]
    (runs / "mended").touch()
    run_stage("count", steps, stage, 4, config)
    assert sorted(path.name for path in runs.iterdir()) == [*once[:3], "2-1", "3-0", "mended"]
    run_stage("count", steps, stage, 4, config)
    assert len(list(runs.iterdir())) == 6, "nothing is left to run"


@pytest.mark.parametrize("executor", EVERYWHERE, indirect=True)
def test_wrong_input_that_a_task_meets_is_told_here(tmp_path, executor):
    runs = tmp_path / "runs"
    runs.mkdir()
    config = ExecutorConfig(**executor)
    steps = [CountRuns(runs, unlucky=1, how="input")]
    with pytest.raises(InputError) as error:
        run_stage("count", steps, tmp_path / "stage", 2, config)
    assert error.value.problems == ["corpus: row 1: is wrong"]
    (runs / "mended").touch()
    run_stage("count", steps, tmp_path / "stage", 2, config)


@pytest.mark.slurm
def test_a_build_that_was_killed_leaves_no_task_beside_the_next(shared, built, tmp_path, slurm):
    """The driver dies by SIGKILL, its job array lives on: the next build ends it first."""
    environment = {**os.environ, **slurm, "PYTHONPATH": str(ROOT)}
    one_second = {
        **SLURM,
        "env_command": f"sleep 1; export PATH={Path(sys.executable).parent}:$PATH",
    }
    mix, out = shared.mix(name="killed.yaml", executor=one_second), tmp_path / "out"
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "build", str(mix), "--out", str(out)]
    child = subprocess.Popen([*command, "--control"], env=environment, stdout=-3, stderr=-3)
    while child.poll() is None and not list(out.glob(".work/mix-*/log/executor.pik")):
        time.sleep(0.1)
    child.kill()
    child.wait()
    assert not (out / "mix.json").exists(), "killed too late to try anything"
    subprocess.run([*command, "--control"], env=environment, check=True, timeout=300)
    assert_same(built, out)
    left = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True)
    assert left.stdout == ""


@pytest.mark.slurm
def test_a_partition_that_is_not_there_is_said(tmp_path, monkeypatch, slurm):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    config = ExecutorConfig(**{**SLURM, "partition": "gpu"})
    with pytest.raises(StageError, match=r"2 of 2 tasks .* sbatch ended with exit code 1"):
        run_stage("count", [CountRuns(tmp_path)], tmp_path / "stage", 2, config)


def test_an_executor_that_is_not_here_is_refused_before_anything_is_written(
    shared, tmp_path, monkeypatch
):
    monkeypatch.setattr(executor_config, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    mix = shared.mix(name="nowhere.yaml")
    for name, problems in (
        ("ray", ["executor: ray: Ray is not installed: pip install 'mixctl[ray]'"]),
        (
            "slurm",
            [
                "executor: partition: is missing: Slurm asks for it (partition: cpu)",
                'executor: time: is missing: Slurm asks for it (time: "04:00:00")',
                "executor: slurm: no sbatch on the PATH: run mixctl on a node of a Slurm cluster",
            ],
        ),
    ):
        with pytest.raises(InputError) as error:
            build(mix, tmp_path / "out", executor=name)
        assert error.value.problems == [f"{mix}: {problem}" for problem in problems]
    assert not (tmp_path / "out").exists()


def test_the_section_is_checked(shared):
    mix = shared.mix(name="sections.yaml", executor={**SLURM, "partitions": "cpu"})
    with pytest.raises(InputError, match=r"unknown key 'executor.partitions' \(did you mean"):
        read_mix(mix)
    mix.write_text(mix.read_text().replace("partitions: cpu", "").replace("00:10:00", "1:10:00"))
    with pytest.raises(InputError, match="write the time in quotes"):
        read_mix(mix)


def test_the_command_line_goes_first():
    config = ExecutorConfig(**SLURM, workers=8)
    assert config.chosen("local", None) == ExecutorConfig(**{**SLURM, "name": "local"}, workers=8)
    assert config.chosen(None, 3).workers == 3
    assert ExecutorConfig(time="1-02:03:04").seconds == 93_784
    assert ExecutorConfig(time="00:30:00").seconds == 1800
    assert ExecutorConfig().seconds is None
