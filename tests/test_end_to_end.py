"""A build, stock training of it and its evaluation, small: what ties the packages together."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import csv

from tests.support.workspace import Workspace, canaries, documents, quiz

LITGPT = Path(sys.executable).with_name("litgpt")


def run(*command, cwd, code=0):
    """Returns what the command printed; fails when it ends with another exit code."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr or code == 0
    return done.stdout + done.stderr


def mixctl(*arguments, cwd, code=0):
    return run(sys.executable, "-m", "mixctl.pipeline.cli", *arguments, cwd=cwd, code=code)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a folder with `build` and the checkpoints of 12 steps in `out`, by stock LitGPT."""
    workspace = Workspace(tmp_path_factory.mktemp("e2e") / "work")
    folder = workspace.folder
    workspace.trainer(max_tokens=8 * 64 * 12, save_interval=5)
    ten = [{"name": "holdout", "items": 10, "copies": 0}, {"name": "x1", "items": 10, "copies": 1}]
    mix = workspace.mix(quiz(arms=ten), canaries(count=20, arms=ten), documents())
    mixctl("build", mix, "--out", "build", cwd=folder)
    run(LITGPT, "pretrain", "--config", "build/litgpt.yaml", cwd=folder)
    return folder


def results_of(folder, *arguments):
    out = folder / "results"
    shutil.rmtree(out, ignore_errors=True)
    mixctl("eval", "build", *arguments, "--out", out, cwd=folder)
    return pq.read_table(out / "results.parquet").to_pylist()


def test_all_checkpoints_of_a_stock_run_are_scored_at_their_exposure(trained):
    rows = results_of(trained, "out")
    assert {row["step"] for row in rows} == {5, 10, 12}
    assert {row["experiment"] for row in rows} == {"(model)", "quiz", "canaries", "docs"}
    placed = pq.read_table(trained / "build/manifest/placements.parquet").to_pylist()
    samples = [
        row
        for path in sorted((trained / "results/samples").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert samples
    for sample in samples:
        seen = sum(
            (p["experiment"], p["item"]) == (sample["experiment"], sample["item"])
            and p["step"] <= sample["step"]
            for p in placed
        )
        assert sample["seen"] == seen


def test_arms_that_were_given_by_rows_are_said(trained):
    rows = results_of(trained, "out/step-00000010")
    tested = [row for row in rows if row["p_value"] is not None]
    assert {row["experiment"] for row in tested} == {"quiz", "canaries", "docs"}
    for row in tested:
        given = "arms were given by the items' rows" in (row["note"] or "")
        assert given == (row["experiment"] == "docs")


def test_scores_are_those_of_a_plain_forward_pass(trained):
    """One sequence at a time, cross-entropy of torch, from the ids in items.parquet."""
    from litgpt import GPT, Config

    from mixctl.shards.meta import MemorizationMeta

    results_of(trained, "out/step-00000010")
    folder = trained / "out/step-00000010"
    model = GPT(Config.from_file(folder / "model_config.yaml")).eval()
    state = torch.load(folder / "lit_model.pth", weights_only=True)["model"]
    model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state.items()})
    (path,) = (trained / "results/samples").glob("*.parquet")
    scores = {
        (r["experiment"], r["item"]): r["loglikelihood"] for r in pq.read_table(path).to_pylist()
    }
    items = pq.read_table(trained / "build/manifest/items.parquet").to_pylist()
    for item in items:
        if item["kind"] == "contamination":
            continue
        tokens = torch.tensor([[0, *item["tokens"]]])
        with torch.no_grad():
            logits = model(tokens[:, :-1]).float()
        losses = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="none")
        first = 0
        if item["kind"] == "memorization":
            first = MemorizationMeta.model_validate_json(item["meta"]).prefix_length
        expected = -float(losses[first:].double().sum())
        assert scores[item["experiment"], item["item"]] == pytest.approx(expected, abs=1e-3)


def test_held_out_likelihood_is_minus_the_loss_on_what_the_stock_loader_gives(trained):
    from litgpt.utils import chunked_cross_entropy

    from mixctl.evals.checkpoint import load_model, read_checkpoint
    from mixctl.shards.reading import read_batches
    from mixctl.shards.record import read_record

    rows = results_of(trained, "out/step-00000010")
    (row,) = (r for r in rows if r["metric"] == "validation_loglikelihood_per_token")
    geometry = read_record(trained / "build").geometry
    batches = list(read_batches(trained / "build", "val", geometry.topology(), rank=0))
    assert geometry.devices == 1 and sum(map(len, batches)) >= geometry.val_sequences == row["n"]
    distinct = {tuple(sequence.tolist()) for batch in batches for sequence in batch}
    sequences = torch.tensor(sorted(distinct))
    assert len(sequences) == geometry.val_sequences
    model = load_model(read_checkpoint(trained / "out/step-00000010"))
    with torch.no_grad():
        loss = chunked_cross_entropy(model(sequences[:, :-1]), sequences[:, 1:])
    assert row["estimate"] == pytest.approx(-float(loss), abs=1e-5)


def test_the_training_loss_is_what_litgpt_logged(trained):
    logged = csv.read_csv(trained / "out/logs/csv/version_0/metrics.csv").to_pylist()
    losses = [row["loss"] for row in logged if row["loss"] is not None]
    assert len(losses) == 12
    rows = results_of(trained, "out/step-00000010")
    (row,) = (row for row in rows if row["metric"] == "training_loglikelihood_per_token")
    assert row["estimate"] == pytest.approx(-sum(losses[:10]) / 10, rel=1e-12)


def test_a_changed_manifest_is_refused(trained, tmp_path):
    copy = tmp_path / "build"
    shutil.copytree(trained / "build", copy)
    path = copy / "manifest/placements.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    arguments = ("eval", copy, trained / "out", "--out", tmp_path / "r")
    printed = mixctl(*arguments, cwd=trained, code=2)
    assert "placements.parquet: does not match its digest in mix.json" in printed
    assert not (tmp_path / "r").exists()


def test_a_run_with_overrides_is_refused(trained):
    options = ["--data.seed", "8", "--out_dir", "other", "--train.max_tokens", str(8 * 64 * 12)]
    run(LITGPT, "pretrain", "--config", "build/litgpt.yaml", *options, cwd=trained)
    printed = mixctl("eval", "build", "other", "--out", "refused", cwd=trained, code=2)
    assert "seed is 8, this build needs 7" in printed
    assert not (trained / "refused").exists()


def test_a_moved_build_trains_with_the_command_that_verify_prints(trained, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained / "build", moved)
    printed = mixctl("verify", moved, cwd=tmp_path)
    command = printed.split("To train on it here:")[1].split()
    assert command[0] == "LITDATA_DISABLE_VERSION_CHECK=1"
    assert (Path(command[1]).name, command[2]) == ("litgpt", "pretrain")
    assert os.environ["LITDATA_DISABLE_VERSION_CHECK"] == "1"
    run(LITGPT, *command[2:], cwd=tmp_path)
    mixctl("eval", moved, "out", "--out", "results", cwd=tmp_path)
