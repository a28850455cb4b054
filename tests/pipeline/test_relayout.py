"""Relayout against builds made for the other topology: the same bytes, both ways."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer

from mixctl.injections import registry
from mixctl.pipeline import relayout_chunks
from mixctl.pipeline.build import build
from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA
from mixctl.pipeline.relayout import relayout
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.record import read_record, record_text
from mixctl.shards.verify import verify
from tests.pipeline.test_build import assert_same
from tests.support.slow_mix import rows_of
from tests.support.workspace import Workspace, canaries, documents, quiz
from tests.test_end_to_end import mixctl, run

STEPS = 90
TOPOLOGIES = {
    "one": {"devices": 1, "workers": 0, "micro_batch_size": 4},
    "two": {"devices": 2, "workers": 3, "micro_batch_size": 1},
    "wide": {"devices": 2, "workers": 1, "micro_batch_size": 4},
    "nodes": {"devices": 1, "num_nodes": 2, "workers": 2, "micro_batch_size": 2},
    "seed": {"devices": 1, "workers": 2, "micro_batch_size": 8, "seed": 11},
}
EQUAL_DIGESTS = ("corpus", "tokenizer", "config", "trainer")


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """Registers the kind `absent` as another package would."""
    points = [
        EntryPoint("absent", "tests.support.plugin:ABSENT", registry.GROUP),
        EntryPoint("marks", "tests.support.plugin:MARKS", registry.GROUP),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: points)
        registry._plugins.cache_clear()
        yield
    registry._plugins.cache_clear()


def trainer(workspace, name):
    """Returns the trainer config of a topology, with its data seed."""
    changes = dict(TOPOLOGIES[name])
    seed = changes.pop("seed", 7)
    path = workspace.trainer(f"{name}.yaml", max_tokens=8 * 64 * STEPS + 64 * 5, **changes)
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["seed"] = seed
    path.write_text(yaml.safe_dump(config))
    return path


def phrases(workspace):
    """Returns the tokens of a word and any other behind it; no payload holds one."""
    tokenizer = Tokenizer.from_file(str(workspace.folder / "tok/tokenizer.json"))
    payloads = (workspace.folder / "documents.jsonl").read_text()
    texts = [f" w250 w{n}" for n in range(300)]
    return [tokenizer.encode(text).ids for text in texts if text not in payloads]


def sections(workspace):
    """Returns experiments of every mode, a purge of base sequences among them."""
    bound = documents(name="bound", placement="boundary")
    arms = [{"name": "x1", "items": 4, "copies": 2}, {"name": "holdout", "items": 3, "copies": 0}]
    batches = {"name": "fresh", "kind": "forgetting", "steps": [7, 15], "holdout": 1}
    never = {"name": "never", "kind": "absent", "strings": phrases(workspace)}
    few = [{"name": "holdout", "items": 20, "copies": 0}, {"name": "x2", "items": 20, "copies": 2}]
    quizzes = [quiz(arms=few), canaries(arms=few)]
    return [never, *quizzes, bound, {"name": "again", "kind": "iid", "arms": arms}, batches]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, plugin):
    made = Workspace(tmp_path_factory.mktemp("relayout") / "work")
    for name in TOPOLOGIES:
        trainer(made, name)
    return made


@pytest.fixture(scope="module")
def builds(workspace):
    """Returns a build made for each topology, with its twin."""
    made = {}
    for name in TOPOLOGIES:
        mix = workspace.mix(
            *sections(workspace),
            name=f"mix-{name}.yaml",
            trainer=f"{name}.yaml",
            chunk_bytes=6000,
            seed=19,
        )
        made[name] = workspace.folder / f"built-{name}"
        build(mix, made[name], control=True)
    return made


def test_what_is_laid_out_again_has_blocks_to_move(builds):
    """The builds differ in everything a relayout changes, and hold every mode."""
    records = [read_record(path) for path in builds.values()]
    assert len({(r.geometry.chunks, r.geometry.blocks_per_chunk) for r in records}) > 3
    assert len({r.geometry.layout().n_blocks for r in records}) > 2
    assert records[0].totals["never"].replaced_sequences > 0
    assert records[0].geometry.chunks_per_worker > 2
    replaced = {r["sequence"] for r in rows_of(builds["one"], "replacements")}
    assert records[0].geometry.sequences in replaced, "so is what fills the blocks after the run"


@pytest.mark.parametrize(
    ("source", "target"),
    [("one", "two"), ("two", "one"), ("two", "wide"), ("wide", "nodes"), ("nodes", "seed")]
    + [("seed", "two"), ("one", "one")],
)
def test_relayout_gives_the_bytes_of_a_build(workspace, builds, tmp_path, source, target):
    out = tmp_path / "out"
    made = relayout(builds[source], workspace.folder / f"{target}.yaml", out)
    assert_same(builds[target], out)
    expected = read_record(builds[target])
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        text = (builds[target] / name).read_text()
        assert (out / name).read_text() == text.replace(str(builds[target]), str(out))
    same = ("geometry", "totals", "corpus", "tokenizer", "control", "absent", "decontamination")
    for field in same:
        assert getattr(made, field) == getattr(expected, field)
    files = {n: f for n, f in made.files.items() if not n.endswith(".yaml")}
    assert files == {n: f for n, f in expected.files.items() if not n.endswith(".yaml")}
    assert {**made.config, "trainer": ""} == {**expected.config, "trainer": ""}
    assert made.digests["trainer"] == expected.digests["trainer"]
    assert made.digests["relayout"] == read_record(builds[source]).self_digest
    assert not (out / ".work").exists()


def test_it_verifies_and_comes_back(workspace, builds, tmp_path, monkeypatch):
    """There and back again, a few blocks at a time and with two workers: the first build."""
    monkeypatch.setattr(relayout_chunks, "GATHERED_BYTES", 1)
    there, back = tmp_path / "there", tmp_path / "back"
    relayout(builds["one"], workspace.folder / "two.yaml", there, workers=2)
    verify(there, full=True)
    relayout(there, workspace.folder / "one.yaml", back)
    assert_same(builds["one"], back)


def changed(workspace, name, **changes):
    """Returns the config of topology `two` with other values."""
    return workspace.trainer(
        name, **{"max_tokens": 8 * 64 * STEPS, "micro_batch_size": 1, **changes}
    )


def test_what_a_relayout_cannot_change_is_refused_all_at_once(workspace, builds, tmp_path):
    source = builds["one"]
    other = changed(workspace, "other.yaml", global_batch_size=16, max_seq_length=32)
    with pytest.raises(InputError) as error:
        relayout(source, other, tmp_path / "out")
    wrong = [problem.partition(", ")[0] for problem in error.value.problems]
    assert wrong == [
        f"{other}: train.global_batch_size is 16",
        f"{other}: train.max_seq_length is 32",
    ]
    assert "was built for 8" in error.value.problems[0]
    steps = changed(workspace, "steps.yaml", max_tokens=8 * 64 * 89, devices=2, workers=8)
    with pytest.raises(InputError) as error:
        relayout(source, steps, tmp_path / "out")
    assert len(error.value.problems) == 1
    assert "the number of steps (from train.max_tokens) is 89" in error.value.problems[0]
    share = changed(workspace, "share.yaml", devices=8, workers=8)
    with pytest.raises(InputError, match="validation: 32 sequences are too few"):
        relayout(source, share, tmp_path / "out")
    small = {"block_size": 64, "vocab_size": 500, "padded_vocab_size": 512}
    model = changed(workspace, "model.yaml", model_config=small, model_name="x")
    with pytest.raises(InputError, match="the model embeds 512 token ids"):
        relayout(source, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_marks_need_the_data_module_that_adds_noise(workspace, tmp_path):
    noisy = yaml.safe_load((workspace.folder / "one.yaml").read_text())
    noisy["data"]["class_path"] = GAUSSIAN_DATA
    (workspace.folder / "noisy.yaml").write_text(yaml.safe_dump(noisy))
    arms = [{"name": "x", "items": 9, "copies": 1}]
    marks = {"name": "marks", "kind": "marks", "count": 9, "arms": arms}
    mix = workspace.mix(marks, name="marks.yaml", trainer="noisy.yaml", chunk_bytes=6000)
    build(mix, tmp_path / "marked")
    with pytest.raises(InputError, match="two.yaml: .* adds no noise, and .* marks 9 sequences"):
        relayout(tmp_path / "marked", workspace.folder / "two.yaml", tmp_path / "out")
    relayout(tmp_path / "marked", workspace.folder / "noisy.yaml", tmp_path / "out")
    text = (tmp_path / "out/litgpt.yaml").read_text()
    assert yaml.safe_load(text)["data"]["class_path"] == GAUSSIAN_DATA


def test_another_litdata_is_refused(workspace, builds, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(builds["one"], out)
    record = read_record(out)
    older = record.geometry.model_copy(update={"litdata": "0.2.58"})
    (out / "mix.json").write_text(record_text(record.model_copy(update={"geometry": older})))
    with pytest.raises(InputError, match=r"litdata is 0\.2\.59, .* was built for 0\.2\.58"):
        relayout(out, workspace.folder / "two.yaml", tmp_path / "out")


def test_folders_that_are_not_free_are_refused(workspace, builds, tmp_path):
    source, config = builds["one"], workspace.folder / "two.yaml"
    for out in (source, source / "again", source.parent):
        with pytest.raises(InputError, match="share a folder"):
            relayout(source, config, out)
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no build"):
        relayout(source, config, tmp_path)
    with pytest.raises(InputError, match="already holds another build"):
        relayout(source, config, builds["two"])
    with pytest.raises(InputError, match="is not a finished build"):
        relayout(tmp_path, config, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    ["val/chunk-000000.bin", "train/chunk-000001.bin", "control/train/chunk-000002.bin"]
    + ["manifest/items.parquet"],
)
def test_a_damaged_build_is_not_laid_out_again(workspace, builds, tmp_path, name):
    source, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(builds["one"], source)
    data = bytearray((source / name).read_bytes())
    data[40] ^= 1
    (source / name).write_bytes(bytes(data))
    with pytest.raises(VerificationError, match=f"{name}: its content does not match the digest"):
        relayout(source, workspace.folder / "two.yaml", out, workers=2)
    assert not (out / "mix.json").exists()
    assert not (out / "train").exists()
    shutil.copyfile(builds["one"] / name, source / name)
    relayout(source, workspace.folder / "two.yaml", out)
    assert_same(builds["two"], out)


def test_killed_relayouts_continue_to_the_same_bytes(workspace, builds, tmp_path):
    """SIGKILL while chunks are written: the next call ends it, and another is then done at once."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "relayout", str(builds["one"])]
    command += ["--trainer", str(workspace.folder / "two.yaml"), "--out", str(out), "--json"]
    child = subprocess.Popen(command, stdout=-3, stderr=-3, start_new_session=True)
    while child.poll() is None and not list(out.glob("train/*.bin")):
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (out / "mix.json").exists(), "killed too late to try anything"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["geometry"]["devices"] == 2
    assert_same(builds["two"], out)
    before = (out / "mix.json").read_bytes()
    relayout(builds["one"], workspace.folder / "two.yaml", out)
    assert (out / "mix.json").read_bytes() == before
    with pytest.raises(InputError, match="already holds another build"):
        relayout(builds["one"], workspace.folder / "wide.yaml", out)


@pytest.mark.slow
def test_a_checkpoint_trained_on_it_is_scored_on_it_alone(workspace, tmp_path):
    """Stock LitGPT trains on a relayout; eval takes its checkpoint there only."""
    source, out = tmp_path / "source", tmp_path / "run"
    build(workspace.mix(quiz(), trainer="one.yaml", name="quiz.yaml"), source)
    relayout(source, workspace.folder / "seed.yaml", out)
    bin_folder = Path(sys.executable).parent
    run(bin_folder / "litgpt", "pretrain", "--config", out / "litgpt.yaml", cwd=tmp_path)
    mixctl("eval", out, "out/final", "--out", "results", cwd=tmp_path)
    said = mixctl("eval", source, "out/final", "--out", "no", cwd=tmp_path, code=2)
    assert "data.init_args.seed is 11, this build needs 7" in said


def test_a_missing_build_and_a_missing_trainer_are_named_together(tmp_path):
    with pytest.raises(InputError) as caught:
        relayout(tmp_path / "build", tmp_path / "other.yaml", tmp_path / "out")
    build, trainer = caught.value.problems
    assert f"{tmp_path / 'build/mix.json'}: missing" in build
    assert f"{tmp_path / 'other.yaml'}" in trainer
