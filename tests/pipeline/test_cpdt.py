"""Dependence runs: what they are made of, and that stock LitGPT goes on exactly where it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from filelock import FileLock

from mixctl.evals import cpdt as scoring
from mixctl.evals.cpdt import score
from mixctl.evals.cpdt_results import write_results
from mixctl.pipeline import cpdt_build
from mixctl.pipeline.build import build
from mixctl.pipeline.cpdt_build import build_runs
from mixctl.pipeline.cpdt_commands import cpdt
from mixctl.pipeline.cpdt_draws import places
from mixctl.pipeline.cpdt_payloads import read_payloads
from mixctl.pipeline.cpdt_prepare import Prepared, Request, _check_pool, prepare
from mixctl.pipeline.cpdt_run import is_trained, train_runs, untrained
from mixctl.pipeline.placement import NoRoomError
from mixctl.shards.chunks import open_chunk
from mixctl.shards.dependence_record import checkpoint_folder, read_dependence
from mixctl.shards.errors import InputError, StageError, VerificationError
from mixctl.shards.manifest import payload_digest, read_placements
from mixctl.shards.reading import read_batches
from mixctl.shards.record import read_record
from tests.support.workspace import Workspace, canaries, documents, quiz

SAVED, STEPS, EOD = 20, 20, 0
LITGPT = Path(sys.executable).with_name("litgpt")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("cpdt"))
    made.trainer(save_interval=SAVED)
    return made


@pytest.fixture(scope="module")
def built(workspace) -> Path:
    """Returns a build with three experiments and its twin."""
    out = workspace.folder / "b"
    docs = documents(placement="boundary")
    absent = workspace.folder / "absent.jsonl"
    absent.write_text(json.dumps({"id": "a", "text": "w1 w2 w3 w4"}) + "\n")
    gone = {"name": "gone", "kind": "verbatim", "items": "absent.jsonl"}
    gone |= {"prefix_tokens": 2}
    build(workspace.mix(quiz(), canaries(), docs, gone), out, control=True, workers=1)
    return out


@pytest.fixture(scope="module")
def twin(built) -> Path:
    """Returns the out_dir of the twin, trained to its end."""
    out = built.parent / "twin"
    command = [LITGPT, "pretrain", "--config", built / "litgpt-control.yaml", "--out_dir", out]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def _request(built: Path, twin: Path, **changes: object) -> Request:
    asked = Request(
        built,
        twin / f"step-{SAVED:08d}",
        steps=STEPS,
        share=Fraction(1, 20),
        replicates=3,
        metrics={"quiz": "gold_logprob"},
    )
    return replace(asked, **changes)


@pytest.fixture(scope="module")
def prepared(built, twin) -> Prepared:
    return prepare(_request(built, twin))


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "set"
    build_runs(prepared, out)
    return out


def test_a_run_goes_on_exactly_as_the_build_would_have(built, twin, tmp_path, monkeypatch):
    """On the twin's own next sequences it ends with the twin's very weights and optimizer.

    Also after a training that was killed, whose LitGPT goes with it.
    """
    following = lambda pool, needed, run, n_runs, seed: np.arange(needed)  # noqa: E731
    monkeypatch.setattr(cpdt_build, "base_draw", following)
    monkeypatch.setattr(Prepared, "dealt", lambda self, run, name: np.empty(0, np.int64))
    same = prepare(_request(built, twin))
    build_runs(same, tmp_path / "set")
    _kill_while_training(tmp_path / "set", "no-op-1")
    train_runs(tmp_path / "set", ["no-op-1"])
    ours = checkpoint_folder(tmp_path / "set", "no-op-1", SAVED + STEPS) / "lit_model.pth"
    theirs = twin / f"step-{SAVED + STEPS:08d}" / "lit_model.pth"
    made, wanted = (torch.load(path, weights_only=True) for path in (ours, theirs))
    assert made["iter_num"] == wanted["iter_num"] and made["step_count"] == SAVED + STEPS
    for name, tensor in wanted["model"].items():
        assert torch.equal(made["model"][name], tensor), name
    pairs = zip(
        made["optimizer"]["state"].items(), wanted["optimizer"]["state"].items(), strict=True
    )
    for (_, mine), (_, other) in pairs:
        assert all(torch.equal(mine[key], other[key]) for key in other)
    assert made["optimizer"]["param_groups"] == wanted["optimizer"]["param_groups"]


def _kill_while_training(folder: Path, name: str) -> None:
    """Kills `mixctl cpdt run` while LitGPT trains; waits until LitGPT is gone too."""
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "cpdt", "run", folder, "--run", name]
    driver = subprocess.Popen([*map(str, command)], env=os.environ)
    log = folder / "runs" / name / "train.log"
    while not log.exists() or b"Verifying" not in log.read_bytes():
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    config = str(folder / "runs" / name / "litgpt.yaml").encode()
    while any(config in _command(path) for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "litgpt outlived mixctl"
        time.sleep(0.1)
    assert not list((folder / "runs" / name / "out").glob("final"))  # nor did it end by itself


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _blocks(run: Path, prepared: Prepared) -> np.ndarray:
    """Returns the sequences of a run as the stock loader gives them, in order."""
    batches = read_batches(run, "train", prepared.topology, 0)
    n = prepared.geometry.sequences // prepared.geometry.micro_batch
    return np.concatenate([batch for _, batch in zip(range(n), batches, strict=False)])


def test_runs_hold_base_data_of_their_own_and_their_payloads(built, prepared, runs):
    record, first = read_record(built), SAVED * 8
    twin_rows = np.concatenate(
        list(read_batches(built, "control/train", record.geometry.topology(), 0))
    )
    seen: set[int] = set()
    for run in read_dependence(runs).runs:
        folder = runs / "runs" / run.name
        blocks = _blocks(folder, prepared)
        base = pq.read_table(folder / "base.parquet").to_pydict()
        assert base["sequence"] == list(range(first, first + len(blocks) + 1))
        assert min(base["source_sequence"]) >= first  # not met by the checkpoint
        assert not seen & set(base["source_sequence"])
        seen |= set(base["source_sequence"])
        expected = twin_rows[base["source_sequence"][:-1]].copy()
        placed = pq.read_table(folder / "placements.parquet").to_pylist()
        for row in placed:
            n, begin = row["sequence"] - first, row["offset"]
            end = begin + row["length"]
            payload = blocks[n, begin:end]
            assert payload_digest(payload) == row["digest"]
            assert blocks[n, begin - 1] == blocks[n, end] == record.tokenizer.eod_id
            assert row["step"] == row["sequence"] // 8 + 1
            assert (row["changed_offset"], row["changed_length"]) == (begin - 1, row["length"] + 2)
            raw = (folder / "train" / row["chunk"]).read_bytes()[row["byte"] :]
            assert np.array_equal(np.frombuffer(raw, "<u2", row["length"]), payload)
            expected[n, begin - 1 : end + 1] = blocks[n, begin - 1 : end + 1]
        assert np.array_equal(blocks, expected)  # nothing else differs from base data
        tokens = sum(row["length"] for row in placed)
        assert (run.tokens, run.placements) == (tokens, len(placed))
        n_experiments = max(len(run.experiments), 1)
        run_tokens = STEPS * 8 * 64
        assert 0 <= tokens - n_experiments * run_tokens / 20 < 40 * n_experiments
        assert {row["experiment"] for row in placed} == set(run.experiments or [""])


def test_payloads_are_those_of_the_build(built, runs):
    of_build = {
        (row["experiment"], row["item"], row["digest"])
        for row in read_placements(built).to_pylist()
    }
    for name in ("only-quiz", "only-docs", "all"):
        placed = pq.read_table(runs / "runs" / name / "placements.parquet").to_pylist()
        assert {(r["experiment"], r["item"], r["digest"]) for r in placed} <= of_build


def test_no_op_runs_hold_base_text_like_each_experiment_in_turn(built, prepared, runs):
    record = read_record(built)
    rows = np.concatenate(list(read_batches(built, "control/train", record.geometry.topology(), 0)))
    likes = [run.like for run in read_dependence(runs).runs if run.role == "no-op"]
    assert likes == ["canaries", "docs", "quiz"]
    for number, like in enumerate(likes, start=1):
        folder = runs / "runs" / f"no-op-{number}"
        base = pq.read_table(folder / "base.parquet")["source_sequence"].to_pylist()
        placed = pq.read_table(folder / "placements.parquet").to_pylist()
        lengths = {row["length"] for row in placed}
        own = read_placements(built, experiment=like)["length"].to_pylist()
        assert placed and lengths <= set(own)
        for row in placed:
            assert row["source_sequence"] not in base
            source = rows[row["source_sequence"]].astype("<u2").tobytes()
            chunk = open_chunk(folder / "train" / row["chunk"], 65, "uint16")
            text = chunk[row["block"], row["offset"] : row["offset"] + row["length"]]
            assert text.tobytes() in source


def test_the_start_is_the_checkpoint_with_a_loader_that_has_not_begun(twin, runs):
    given = torch.load(twin / f"step-{SAVED:08d}/lit_model.pth", weights_only=True)
    start = torch.load(runs / "start/lit_model.pth", weights_only=True)
    assert start["train_dataloader"]["num_samples_yielded"] == 0
    assert start.keys() == given.keys() and start["iter_num"] == given["iter_num"]
    assert all(torch.equal(start["model"][k], v) for k, v in given["model"].items())
    config = yaml.safe_load((runs / "runs/all/litgpt.yaml").read_text())
    assert config["train"]["max_tokens"] == 8 * 64 * 200  # the schedule of the build
    assert config["train"]["save_interval"] == SAVED + STEPS


def test_the_same_call_finds_the_set_and_another_is_refused(built, twin, prepared, runs):
    before = read_dependence(runs)
    assert build_runs(prepared, runs) == before
    other = prepare(_request(built, twin, seed=1))
    with pytest.raises(InputError, match="another seed"):
        build_runs(other, runs)


def test_a_set_that_was_interrupted_is_built_again(prepared, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cpdt_build, "write_start", stop)
    with pytest.raises(KeyboardInterrupt):
        build_runs(prepared, tmp_path / "set")
    with pytest.raises(InputError, match="holds no dependence runs"):
        read_dependence(tmp_path / "set")
    monkeypatch.undo()
    assert len(build_runs(prepared, tmp_path / "set").runs) == 7
    with pytest.raises(InputError, match="is not empty"):
        build_runs(prepared, prepared.request.build)


def test_what_cannot_be_tested_is_named(prepared):
    assert list(prepared.untested) == ["gone"] and "nothing is placed" in prepared.untested["gone"]
    assert dict(prepared.metrics) == {
        "canaries": "loglikelihood",
        "docs": "loglikelihood_per_token",
        "quiz": "gold_logprob",
    }


def test_a_set_that_has_no_room(built, twin, prepared, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out: .*/file is a file"):
        build_runs(prepared, tmp_path / "file")
    few = replace(prepared, pool=prepared.pool[:5])
    with pytest.raises(
        InputError, match="5 base sequences after step 20 hold no placement, a run of"
    ):
        _check_pool(few)
    few = replace(few, record=few.record.model_copy(update={"control": False}))
    with pytest.raises(InputError, match="hold no placement .a build with --control has more., a"):
        _check_pool(few)
    with pytest.raises(ValueError, match="a payload has more than 63 tokens"):
        places(np.array([64]), 10, 65, 1, "all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpdt_build, "places", _no_room)
        with pytest.raises(
            InputError, match="run .*: 8 copies lack a place: lower --share, or take more"
        ):
            build_runs(prepared, tmp_path / "full")


def _no_room(*arguments: object) -> None:
    raise NoRoomError(np.arange(8))


def test_a_metric_is_named_with_its_experiment(built, twin):
    step = str(twin / f"step-{SAVED:08d}")
    arguments = ["plan", str(built), step, "--steps", "20", "--metric", "accuracy"]
    with pytest.raises(InputError, match="--metric accuracy: is not of the form EXPERIMENT=METRIC"):
        CliRunner().invoke(cpdt, arguments, catch_exceptions=False)


def test_payloads_that_are_not_in_the_build_any_more(built, tmp_path):
    copy, record = tmp_path / "b", read_record(built)
    shutil.copytree(built, copy)
    table = read_placements(copy).slice(0, 5)
    for path in (copy / "train").glob("*.bin"):
        path.write_bytes(path.read_bytes()[:12] + bytes(path.stat().st_size - 12))
    with pytest.raises(InputError, match="block .*: not the payload of .*") as error:
        read_payloads(copy, record.geometry, table)
    assert error.value.problems[-1] == f"see: mixctl verify {copy} --full"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicates": 2}, "--replicates: 2 is too few: without 3 no-op runs nothing tells"),
        ({"steps": 1}, "--steps: 1 is too few: at least 2"),
        ({"steps": 181}, "180 are left of the learning-rate schedule"),
        ({"share": Fraction(2, 3)}, "--share: 66.67%"),
        (
            {"experiments": ("quizz",)},
            "--experiment quizz: no such experiment in .*did you mean 'quiz'",
        ),
        ({"experiments": ("quiz",)}, "1 experiments can be tested, two are needed"),
        ({"metrics": {"quiz": "acuracy"}}, "did you mean 'accuracy'"),
    ],
)
def test_wrong_requests(built, twin, changes, message):
    with pytest.raises(InputError, match=message):
        prepare(_request(built, twin, **changes))


def test_a_checkpoint_without_optimizer_or_of_another_build_is_refused(built, twin, tmp_path):
    copy = tmp_path / f"step-{SAVED:08d}"
    shutil.copytree(twin / f"step-{SAVED:08d}", copy)
    state = torch.load(copy / "lit_model.pth", weights_only=True)
    torch.save({k: v for k, v in state.items() if k != "optimizer"}, copy / "lit_model.pth")
    with pytest.raises(
        InputError, match="holds no optimizer: a run that goes on from it would begin with a"
    ):
        prepare(_request(built, twin, checkpoint=copy))
    (copy / "hyperparameters.yaml").unlink()
    torch.save(state, copy / "lit_model.pth")
    (note,) = prepare(_request(built, twin, checkpoint=copy)).notes
    assert "no hyperparameters.yaml: how it was trained is not checked" in note
    state["train_dataloader"]["dataset"]["seed"] = 8
    torch.save(state, copy / "lit_model.pth")
    with pytest.raises(InputError, match="dataset.seed is 8"):
        prepare(_request(built, twin, checkpoint=copy))


def _pretend(runs: Path, name: str, seed: int) -> Path:
    """Makes the checkpoint of a run out of the starting one, its weights moved at random."""
    record = read_dependence(runs)
    saved = checkpoint_folder(runs, name, record.end)
    saved.mkdir(parents=True)
    state = torch.load(runs / "start/lit_model.pth", weights_only=True)
    torch.manual_seed(seed)
    state["model"] = {
        key: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in state["model"].items()
    }
    n_read = STEPS * 8
    state |= {"step_count": record.end, "iter_num": 2 * record.end}
    state["train_dataloader"] = {"dataset": {}, "current_epoch": 1, "num_samples_yielded": n_read}
    torch.save(state, saved / "lit_model.pth")
    path = str((runs / "runs" / name).resolve())
    said = {"data": {"init_args": {"data_path": path}}}
    (saved / "hyperparameters.yaml").write_text(yaml.safe_dump(said))
    shutil.copy(runs / "start/model_config.yaml", saved)
    return saved


@pytest.fixture(scope="module")
def pretended(runs, tmp_path_factory) -> Path:
    """Returns a set whose runs have checkpoints that no training made."""
    folder = runs.parent / "pretended"
    shutil.copytree(runs, folder, symlinks=True)
    for number, run in enumerate(read_dependence(folder).runs):
        _pretend(folder, run.name, number)
    return folder


def test_scores_are_the_means_of_the_metric_and_the_null_is_the_no_ops(pretended, tmp_path):
    found = score(pretended, tmp_path, "cpu")
    rows = write_results(tmp_path, found)
    assert found.rows == ["only-canaries", "only-docs", "only-quiz", "all"]
    assert found.outcomes.shape == (4, 3) and found.no_ops.shape == (3, 3)
    samples = {}
    for path in (tmp_path / "samples").glob("*.parquet"):
        table = pq.read_table(path).to_pylist()
        run = Path(table[0]["checkpoint"]).parts[-3]
        values = [row["gold_logprob"] for row in table if row["experiment"] == "quiz"]
        samples[run] = float(np.mean(values))
    assert len(samples) == 7
    null = np.mean([samples[f"no-op-{n}"] for n in (1, 2, 3)])
    entry = next(r for r in rows if (r["run"], r["experiment"]) == ("only-docs", "quiz"))
    assert entry["estimate"] == pytest.approx(samples["only-docs"] - null)
    assert entry["role"] == "dependence" and entry["n_tests"] == 6 and entry["mde"] > 0
    said = json.loads((tmp_path / "dependence.json").read_text())
    assert said["untested"].keys() == {"gone"} and said["detectable_sd"] > 10
    again = score(pretended, tmp_path, "cpu")
    assert np.array_equal(again.outcomes, found.outcomes)


def test_the_commands_print_and_write_a_report(built, twin, pretended, tmp_path):
    run = CliRunner().invoke
    asked = [str(built), str(twin / f"step-{SAVED:08d}"), "--steps", "20", "--replicates", "3"]
    plan = run(cpdt, ["plan", *asked, "--json", "--step-time", "2"], catch_exceptions=False)
    found = json.loads(plan.stdout)
    assert [one["name"] for one in found["runs"]][-1] == "no-op-3"
    assert found["steps"]["all"] == 7 * 20 and found["seconds"] == 280 and found["tests"] == 6
    text = run(cpdt, ["plan", *asked], catch_exceptions=False).stdout
    assert "gone: not tested: nothing is placed" in text and "no two runs share any" in text
    out = ["score", str(pretended), "--out", str(tmp_path), "--device", "cpu"]
    printed = run(cpdt, out, catch_exceptions=False).stdout
    assert "standard deviations would have been found" in printed
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 1 and "nothing is placed" in html and "http" not in _linked(html)
    assert html.count(">only-docs<") >= 3 and "<image" not in html


def _linked(html: str) -> str:
    """Returns what a page would load or link to."""
    return " ".join(part for part in html.split() if part.startswith(("src=", 'href="h')))


def test_runs_that_are_missing_or_others_are_refused(pretended, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(pretended, folder, symlinks=True)
    with pytest.raises(InputError, match="data.data_path is"):  # moved
        score(folder, tmp_path / "r", "cpu")
    state = checkpoint_folder(pretended, "all", SAVED + STEPS) / "lit_model.pth"
    kept = state.read_bytes()
    changed = torch.load(state, weights_only=True) | {"step_count": 30}
    torch.save(changed, state)
    with pytest.raises(InputError, match="step_count is 30, this run needs 40"):
        score(pretended, tmp_path / "r", "cpu")
    state.write_bytes(kept)
    items = read_dependence(pretended)
    with pytest.MonkeyPatch.context() as patch:
        changed = {**items.items, "docs": "0"}
        patch.setattr(
            scoring, "read_dependence", lambda f: items.model_copy(update={"items": changed})
        )
        with pytest.raises(InputError, match="the items of experiment docs have changed"):
            score(pretended, tmp_path / "r", "cpu")
    shutil.rmtree(folder / "runs/no-op-2/out")
    with pytest.raises(InputError, match="no-op-2.*missing; train it"):
        score(folder, tmp_path / "r", "cpu")


def test_a_run_is_trained_when_its_config_is_whole(pretended):
    record = read_dependence(pretended)
    assert untrained(pretended, record) == []
    path = checkpoint_folder(pretended, "all", record.end) / "model_config.yaml"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert not is_trained(pretended, record, "all") and untrained(pretended, record) == ["all"]
    path.write_text(whole)


def test_a_training_that_fails_says_why_and_names_are_checked(runs, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(runs, folder, symlinks=True)
    with pytest.raises(InputError, match="--run only-quizz: no such run .did you mean 'only-quiz'"):
        train_runs(folder, ["only-quizz"])
    lock = FileLock(folder / "runs/all/.lock")
    with lock, pytest.raises(InputError, match="run all is being trained already"):
        train_runs(folder, ["all"])
    chunk = folder / "runs/no-op-1/train/chunk-000000.bin"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    with pytest.raises(VerificationError, match="no-op-1/train/chunk-000000.bin: does not match"):
        train_runs(folder, ["no-op-1"])
    (folder / "runs/all/litgpt.yaml").write_text("no_such_key: 1\n")
    with pytest.raises(StageError, match="run all: litgpt pretrain ended before it saved"):
        train_runs(folder, ["all"])


def test_the_script_trains_a_run(runs):
    """The plain commands, as they would run elsewhere."""
    settings = {**os.environ, "PATH": f"{LITGPT.parent}:{os.environ['PATH']}"}
    done = subprocess.run([runs / "train-one.sh", "only-docs"], env=settings, capture_output=True)
    assert done.returncode == 0, done.stderr
    record = read_dependence(runs)
    assert is_trained(runs, record, "only-docs")
    assert subprocess.run([runs / "train-one.sh", "nobody"], capture_output=True).returncode == 2
    slurm = (runs / "slurm.sh").read_text()
    assert f"--array=0-{len(record.runs) - 1}\n" in slurm
    assert subprocess.run(["bash", "-n", runs / "slurm.sh"]).returncode == 0
    shutil.rmtree(runs / "runs/only-docs/out")
