"""The closed loop with a stand-in for the trainer: what it decides, places, and survives."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from filelock import FileLock
from litgpt import GPT, Config

from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.control import Settings, control
from mixctl.pipeline.control_command import line
from mixctl.pipeline.control_room import free_sequences
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.sealing import file_record
from mixctl.pipeline.training import Trainer, TrainerEndedError
from mixctl.shards.chunks import block_digests
from mixctl.shards.control_trace import TRACE_NAME, Decision, read_trace
from mixctl.shards.errors import InputError
from mixctl.shards.readers import Reader
from mixctl.shards.reading import read_sequences
from mixctl.shards.record import read_record, write_record
from mixctl.shards.verify import verify
from tests.support.slow_mix import rows_of
from tests.support.workspace import Workspace, canaries, trainer_config, write_jsonl

ROOT = Path(__file__).parents[2]
EVERY, STEPS, BATCH = 20, 100, 8
DRIVER = """
import json, sys
from pathlib import Path
from mixctl.pipeline.control import Settings, control
class View:
    def said(self, sentence): print(sentence, flush=True)
    def decided(self, decisions): print([d.after_step for d in decisions], flush=True)
    def trained(self, step): pass
control(Path(sys.argv[1]), Settings(Path(sys.argv[2]), command=json.loads(sys.argv[3])), View())
"""


class Silent:
    def __init__(self):
        self.sentences = []

    def said(self, sentence):
        self.sentences.append(sentence)

    def decided(self, decisions):
        pass

    def trained(self, step):
        pass


def section(name, **changes):
    arms = [{"name": "holdout", "items": 2, "copies": 0}, {"name": "told", "items": 4, "copies": 0}]
    section = {"name": name, "kind": "knowledge", "items": f"{name}.jsonl", "reserve": 2}
    return {**section, "arms": arms, **changes}


def steering(**changes):
    facts = {"arm": "told", "set_point": 0.5, "options": {"most": 60, "start": 4}}
    songs = {
        "arm": "told",
        "set_point": 0.4,
        "controller": "proportional",
        "options": {"bias": 5.0, "gain": 10.0, "most": 20, "start": 2},
    }
    return {"every": EVERY, "experiments": {"facts": facts, "songs": songs}, **changes}


def write_facts(folder, name, first):
    rows = [
        {
            "id": f"{name[0]}{n}",
            "text": f"w{first + n} goes to w{first + n + 40}",
            "paraphrases": [f"w{first + n} p{k} w{first + n + 40}" for k in range(2)],
            "probes": [{"input": f"w{first + n} goes to", "target": f"w{first + n + 40}"}],
        }
        for n in range(6)
    ]
    write_jsonl(folder / f"{name}.jsonl", rows)


def taught(model, build, rounds):
    """Returns the model after so many rounds on every probe."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    texts = []
    for row in rows_of(build, "items"):
        for probe in json.loads(row["meta"]).get("probes", []):
            texts.append(torch.tensor([[0, *probe["input_tokens"], *probe["target_tokens"]]]))
    for _ in range(rounds):
        for text in texts:
            logits = model(text[:, :-1])
            torch.nn.functional.cross_entropy(logits[0], text[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Returns a workspace with a mix that is steered, and its build and checkpoints as templates.

    The model knows nothing at step 20, everything at 40 and 60, and again nothing from 80 on.
    """
    workspace = Workspace(tmp_path_factory.mktemp("control") / "work")
    folder = workspace.folder
    workspace.trainer(max_tokens=BATCH * 64 * STEPS, save_interval=10)
    write_facts(folder, "facts", 1)
    write_facts(folder, "songs", 11)
    sections = (section("facts"), section("songs"), canaries())
    mix = workspace.mix(*sections, name="control.yaml", control=steering())
    build(mix, folder / "template/build")
    config = Config(**trainer_config()["model_config"])
    torch.manual_seed(1)
    ignorant = GPT(config).state_dict()
    model = GPT(config)
    model.load_state_dict(ignorant)
    knowing = taught(model, folder / "template/build", 120).state_dict()
    for step in range(10, STEPS + 1, 10):
        name = f"step-{step:08d}"
        for target in [name, "final"] if step == STEPS else [name]:
            path = folder / "templates" / target
            path.mkdir(parents=True)
            weights = knowing if 40 <= step <= 60 else ignorant
            torch.save({"model": weights, "step_count": step}, path / "lit_model.pth")
            (path / "model_config.yaml").write_text(yaml.safe_dump(asdict(config)))
    return workspace


def command(folder, out):
    log, templates = out / "read.jsonl", folder / "templates"
    return [
        sys.executable,
        "-m",
        "tests.support.fake_trainer",
        str(log),
        str(templates),
        "pretrain",
    ]


def prepared(work, out):
    """Returns the folder of a loop whose build is there already: a copy of the template's."""
    shutil.copytree(work.folder / "template", out)
    path = out / "build/litgpt.yaml"
    text = path.read_text().replace(str(work.folder / "template/build"), str(out / "build"))
    path.write_text(text)
    made = read_record(out / "build")
    files = {**made.files, "litgpt.yaml": file_record(path)}
    write_record(out / "build", made.model_copy(update={"files": files}))
    return out


def run(work, out, **options):
    view = Silent()
    settings = Settings(out, command=command(work.folder, out), **options)
    return control(work.folder / "control.yaml", settings, view), view


@pytest.fixture(scope="module")
def finished(work):
    """Returns the folder of a loop that ran without a stop, and its trace."""
    out = prepared(work, work.folder / "whole")
    trace, _ = run(work, out)
    return out, trace


def trained_on(out):
    """Returns what was read last in each step: the steps that the last checkpoint rests on."""
    lines = [json.loads(line) for line in (out / "read.jsonl").read_text().splitlines()]
    return dict(lines)


def test_decisions_follow_the_controllers(finished):
    _, trace = finished
    facts, songs = trace.of("facts"), trace.of("songs")
    assert [d.after_step for d in facts] == [0, 20, 40, 60, 80, 100]
    assert [d.set_point for d in facts] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert [d.texts for d in facts] == [4, 8, 4, 2, 4, 0]  # ignorant, knowing twice, ignorant
    assert facts[0].value is None and facts[1].value < 0.05 and facts[2].value > 0.5
    expected = [min(20, max(1, round(5 + 10 * (1 - d.value / d.set_point)))) for d in songs[1:5]]
    assert [d.texts for d in songs] == [2, *expected, 0]
    assert expected[0] == 15 and expected[1] == 1


def test_what_was_decided_is_placed_in_its_steps_round_robin(finished):
    out, trace = finished
    rows = [r for r in rows_of(out / "build", "placements") if r["experiment"] != "canaries"]
    for name in ("facts", "songs"):
        told = {r["item"] for r in rows_of(out / "build", "items") if r["arm"] == "told"}
        counts = {}
        for decision in trace.of(name):
            inside = [
                r
                for r in rows
                if r["experiment"] == name
                and decision.after_step < r["step"] <= decision.until_step
            ]
            assert len(inside) == decision.texts
            for row in inside:
                counts[row["item"]] = counts.get(row["item"], 0) + 1
        assert set(counts) <= told
        assert max(counts.values()) - min(counts.get(i, 0) for i in told if i[0] == name[0]) <= 1
    assert min(r["step"] for r in rows) > 1  # where the learning rate is 0
    assert {r["variant"] for r in rows} <= {1, 2}  # the text itself is not placed, its reserve is
    assert verify(out / "build", full=True).findings == []


def test_what_the_trainer_read_is_what_the_build_holds_at_the_end(finished):
    out, _ = finished
    geometry = read_record(out / "build").geometry
    held = block_digests(read_sequences(out / "build", geometry, range(geometry.sequences)))
    read = trained_on(out)
    assert [d for step in range(1, STEPS + 1) for d in read[step]] == held


def test_a_finished_loop_does_nothing_when_it_is_called_again(work, finished):
    out, trace = finished
    before = (out / "read.jsonl").read_text(), (out / "build/mix.json").read_text()
    assert run(work, out)[0] == trace
    assert before == ((out / "read.jsonl").read_text(), (out / "build/mix.json").read_text())


def test_switched_off_it_measures_and_places_nothing(work, tmp_path):
    out = prepared(work, tmp_path / "off")
    trace, _ = run(work, out, off=True)
    assert [d.value for d in trace.of("facts")][1:] != []
    assert {r["experiment"] for r in rows_of(out / "build", "placements")} == {"canaries"}
    with pytest.raises(InputError, match="was begun with other settings of control"):
        run(work, out)


def test_a_trainer_that_dies_is_started_again(work, finished, tmp_path, monkeypatch):
    out = prepared(work, tmp_path / "dies")
    monkeypatch.setenv("FAKE_TRAINER_DIES", "41-47")
    trace, view = run(work, out)
    assert ["Resuming from step 40" in s for s in view.sentences] == [True]
    assert trace == finished[1]
    assert trained_on(out) == trained_on(finished[0])


def test_a_trainer_that_keeps_dying_is_not_started_for_ever(work, tmp_path):
    out = tmp_path / "fails"
    out.mkdir()
    trainer = Trainer(out, out / "checkpoints", out / "log", [sys.executable, "-c", "print(1 / 0)"])
    with pytest.raises(
        TrainerEndedError,
        match="(?s)litgpt pretrain ended .exit code 1. before .* was complete; the end of .*Zero",
    ):
        trainer.run(0, 20, lambda step: None)


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def kill_once(work, out, chance, whom):
    """Runs the loop until it is killed at a random moment, or its trainer is; returns if it was."""
    arguments = [str(work.folder / "control.yaml"), str(out), json.dumps(command(work.folder, out))]
    with (out / "output").open("a") as output:
        loop = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments], cwd=ROOT, stdout=output, stderr=output
        )
    end = time.monotonic() + chance.uniform(2, 7)
    while time.monotonic() < end and loop.poll() is None:
        time.sleep(0.02)
    trainers = children_of(loop.pid)
    if loop.poll() is None and whom == "trainer" and trainers:
        os.kill(trainers[0], signal.SIGKILL)
        loop.wait(120)
        return True
    killed = loop.poll() is None
    if killed:
        loop.kill()
    loop.wait()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in trainers):
        assert time.monotonic() < until, "the trainer outlives its loop"
        time.sleep(0.02)
    return killed


@pytest.mark.slow
def test_killed_five_times_it_trains_on_the_same(work, finished, tmp_path):
    out, chance, n_killed = prepared(work, tmp_path / "killed"), random.Random(5), 0
    for n in range(30):
        n_killed += kill_once(work, out, chance, "trainer" if n % 2 else "loop")
        if n_killed == 5:
            break
        if (out / "checkpoints/final/model_config.yaml").exists():
            shutil.rmtree(out)
            prepared(work, out)
    trace, _ = run(work, out)
    assert n_killed == 5
    assert trace == finished[1]
    assert trained_on(out) == trained_on(finished[0])
    assert rows_of(out / "build", "placements") == rows_of(finished[0] / "build", "placements")


def test_killed_once_it_goes_on_where_it_was(work, finished, tmp_path):
    out = prepared(work, tmp_path / "once")
    kill_once(work, out, random.Random(1), "loop")
    assert run(work, out)[0] == finished[1]
    assert trained_on(out) == trained_on(finished[0])


def test_a_checkpoint_from_beyond_a_decision_is_not_taken_for_one_after_it(
    work, finished, tmp_path
):
    out = prepared(work, tmp_path / "beyond")

    class Stops(Silent):
        def decided(self, decisions):
            if decisions[0].after_step == 20:
                raise KeyboardInterrupt

    stale = ("step-00000030", "step-00000040")

    class Leaves(Trainer):
        def run(self, start, stop, progress):
            super().run(start, stop, progress)
            for name in stale:
                shutil.rmtree(self.out_dir / name, ignore_errors=True)
                shutil.copytree(work.folder / "templates" / name, self.out_dir / name)

    settings = Settings(out, command=command(work.folder, out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixctl.pipeline.control.Trainer", Leaves)
        with pytest.raises(KeyboardInterrupt):
            control(work.folder / "control.yaml", settings, Stops())
    assert not any((out / "checkpoints" / name).exists() for name in stale)
    assert run(work, out)[0] == finished[1]
    assert trained_on(out) == trained_on(finished[0])


WRONG = [
    ({"every": 15}, "saves a checkpoint every 10 .* multiple of 10: 10 or 20"),
    ({"every": 5}, "multiple of 10: 10"),
    ({"every": 100}, "the run has 100, so nothing would be decided"),
    (
        {"experiments": {"fact": {"set_point": 0.1}}},
        r"the mix has no such experiment \(did you mean 'facts'",
    ),
    ({"experiments": {"canaries": {"set_point": 0.1}}}, "kind memorization has no probes"),
    ({"experiments": {"facts": {"set_point": 0.1}}}, "name the one that is steered: holdout, told"),
    ({"experiments": {"facts": {"arm": "x", "set_point": 0.1}}}, "no such arm with copies: 0"),
    (
        {"experiments": {"facts": {"arm": "told", "set_point": 0.1, "controller": "pid"}}},
        "unknown controller 'pid'",
    ),
    (
        {"experiments": {"facts": {"arm": "told", "set_point": 0.1}}},
        "up to 8192 texts in an interval .* fits",
    ),
    ({"experiments": {"facts": {"arm": "told", "set_point": 1.5}}}, "less than 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_trained(work, tmp_path, changes, message):
    sections = (section("facts"), section("songs"), canaries())
    mix = work.mix(*sections, name="wrong.yaml", control=steering(**changes))
    out = prepared(work, tmp_path / "wrong")
    with pytest.raises(InputError, match=message):
        control(mix, Settings(out, command=["false"]), Silent())
    assert not (out / "checkpoints").exists()


def test_a_trainer_that_saves_nothing_cannot_be_steered(work, tmp_path):
    trainer = work.trainer("unsaved.yaml", save_interval=None)
    sections = (section("facts"), section("songs"), canaries())
    mix = work.mix(*sections, name="unsaved-mix.yaml", trainer=trainer.name, control=steering())
    with pytest.raises(
        InputError, match="train.save_interval is missing: control needs checkpoints"
    ):
        control(mix, Settings(prepared(work, tmp_path / "unsaved"), command=["false"]), Silent())


def test_a_process_that_reads_the_build_is_named(work, finished, monkeypatch):
    module = importlib.import_module("mixctl.pipeline.control")
    monkeypatch.setattr(module, "_GONE_SECONDS", 0.0)
    monkeypatch.setattr(module, "readers_of", lambda build: [Reader(77, "litgpt")])
    with pytest.raises(InputError, match=r"is being read: end the process first: 77 \(litgpt\)"):
        run(work, finished[0])


def test_a_mix_without_the_section_is_refused(work, tmp_path):
    mix = work.mix(canaries(), name="none.yaml")
    with pytest.raises(InputError, match="control: is missing: say what is steered, and how often"):
        control(mix, Settings(tmp_path), Silent())


def test_the_section_changes_no_byte_of_a_build(work):
    plain = work.mix(section("facts"), section("songs"), canaries(), name="plain.yaml")
    steered = read_mix(work.folder / "control.yaml").config
    assert steered.control is not None
    assert steered.model_dump() == read_mix(plain).config.model_dump()


def test_other_checkpoints_in_the_folder_are_not_taken_for_its_own(work, tmp_path):
    out = prepared(work, tmp_path / "foreign")
    (out / "checkpoints/step-00000020").mkdir(parents=True)
    with pytest.raises(InputError, match=f"{TRACE_NAME} is missing: choose a new folder"):
        run(work, out)
    assert read_trace(out / "build") is None


def test_one_loop_at_a_time(work, tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(InputError, match="another mixctl control"):
        control(work.folder / "control.yaml", Settings(tmp_path), Silent())
    assert not (tmp_path / "build").exists()


def test_free_sequences_of_the_tightest_interval():
    held = [0, 1, 9, 39, 40, 41, 42]  # steps of 4 sequences, intervals of 5 steps, 12 steps
    import numpy as np

    assert free_sequences(np.array(held), 5, 12, 4) == 2 * 4 - 3
    assert free_sequences(np.array([0, 1, 2]), 5, 10, 4) == 20 - 3


def test_a_decision_is_one_line():
    facts = Decision(
        experiment="facts",
        after_step=40,
        until_step=60,
        value=0.0123456,
        set_point=0.016,
        texts=24,
        state={"n": 24},
    )
    said = "step 40: facts: set point 0.016, value 0.0123: 24 texts in steps 41 to 60"
    assert line(facts) == said
    begun = facts.model_copy(update={"after_step": 0, "value": None, "set_point": 0.0})
    assert "step 0: facts: set point 0, value not measured: 24 texts" in line(begun)
    assert line(facts.model_copy(update={"until_step": 40})).endswith("value 0.0123: the end")


def test_the_command_shows_the_decisions_and_names_the_eval(work, finished):
    out, _ = finished
    arguments = ["control", str(work.folder / "control.yaml"), "--out", str(out)]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert f"mixctl eval {out / 'build'} {out / 'checkpoints'}" in done.output
    printed = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(printed.stdout)["every"] == EVERY
