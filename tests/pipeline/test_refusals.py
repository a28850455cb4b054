"""What a mix, a corpus, a task or a build is refused for, in the words that a user reads."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from rich.console import Console

from mixctl.injections.config import Arm
from mixctl.injections.encode import load_encoder
from mixctl.pipeline import assignment, demo, demo_corpus, drafts, init, litgpt_types
from mixctl.pipeline.engines import EngineDiffers, compare
from mixctl.pipeline.finished import FinishedBuild
from mixctl.pipeline.own_corpus import corpus_sample, own_corpus
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.questions_import import Fields, import_fields, import_task
from mixctl.pipeline.readers import Corpus, find_corpus
from mixctl.pipeline.relayout import relayout
from mixctl.pipeline.tokenize_stage import engine_of
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import ITEMS, PLACEMENTS, REPLACEMENTS
from mixctl.shards.record import read_record
from tests.support.sample import record, topology
from tests.support.tokenizers import write_family
from tests.support.workspace import Workspace, documents, write_jsonl, write_tokenizer

DOCUMENT = {"id": "d", "text": "w1 w2"}
FACT = {"id": "f", "text": "w1 w2", "probes": [{"input": "w1", "target": "w2"}]}
TWO_ARMS = [{"name": "a", "items": 1, "copies": 1}, {"name": "b", "items": "rest", "copies": 2}]
ITEMS_THAT_CANNOT_BE = [
    (
        [{"id": "d", "text": " "}],
        {"copies": 1, "tokenizer": "wordpiece"},
        "item 'd': the payload is empty",
    ),
    (
        [{**DOCUMENT, "arm": "b", "cluster": "c"}, {"id": "e", "text": "w3", "arm": "a"}]
        + [{"id": "f", "text": "w5", "arm": "a", "cluster": "c"}],
        {"arms": TWO_ARMS},
        "items 'd', 'f' belong together (same payload or cluster), but their rows put them",
    ),
    (
        [FACT],
        {"kind": "knowledge", "variants": "each", "arms": [{"name": "a", "items": 1, "copies": 3}]},
        "item 'f': 3 copies, each with a payload of its own, but it has 1: add paraphrases, or say",
    ),
]


@pytest.mark.parametrize(("rows", "changes", "sentence"), ITEMS_THAT_CANNOT_BE)
def test_items_that_cannot_be(workspace, rows, changes, sentence) -> None:
    changes = dict(changes)
    copies, tokenizer = changes.pop("copies", None), changes.pop("tokenizer", "tok")
    write_family(workspace.folder / "wordpiece", "wordpiece")
    rows = [{**row, "copies": copies} if copies else row for row in rows]
    write_jsonl(workspace.folder / "rows.jsonl", rows)
    mix = workspace.mix(documents(items="rows.jsonl", **changes), tokenizer=tokenizer)
    with pytest.raises(InputError) as error:
        plan_mix(mix)
    assert sentence in str(error.value)


def test_more_payloads_with_forbidden_strings_than_are_named(workspace) -> None:
    text = "w11 w12 w13 w14 w15 w16 w17 w18 w19"
    rows = [{"id": n, "text": f"w{n} {text}", "copies": 1} for n in range(7)]
    write_jsonl(workspace.folder / "rows.jsonl", rows)
    write_jsonl(workspace.folder / "absent.jsonl", [{"id": "s", "text": f" {text}"}])
    never = {"name": "never", "kind": "verbatim", "items": "absent.jsonl", "prefix_tokens": 2}
    with pytest.raises(InputError, match="... and 2 more such payloads"):
        plan_mix(workspace.mix(never, documents(items="rows.jsonl")))


class _Item:
    item, steps, copies, arm = "d", (3, 9), 2, None


def test_a_row_that_asks_for_other_copies_than_the_arm_of_that_dose_has() -> None:
    """The arm is written out under the name that the dose would have got."""

    class Config:
        name = "docs"

    arms = [Arm(name="x2", copies=5)]
    with pytest.raises(InputError, match="item 'd' asks for 2 copies, but the arm 'x2' has 5"):
        assignment._fixed_arms(Config(), [_Item()], arms)


def test_steps_and_copies_of_an_item_that_do_not_agree() -> None:
    """A kind of another package could make one."""

    class Assigned:
        items, copies, earlier = (_Item(),), [3], None

    class Config:
        name = "docs"

    none = np.empty(0, dtype=np.int64)
    with pytest.raises(InputError, match="experiment 'docs': item .d.: steps: 2 steps for 3 co"):
        drafts._given_steps(Config(), Assigned(), None, none, none, topology(), 0)


def test_an_engine_that_loses_a_text_or_makes_other_tokens(tmp_path: Path) -> None:
    encoder = load_encoder(write_tokenizer(tmp_path / "tok"))
    with pytest.raises(EngineDiffers, match="gives 0 texts back for 1"):
        compare([], ["w1"], encoder)
    ids = encoder.text("w1 w2")
    wrong = np.append(ids[:-1], 5).astype(np.uint32)
    with pytest.raises(EngineDiffers, match=f"'w1 w2', from token {len(ids) - 1} of {len(ids)} on"):
        compare([wrong], ["w1 w2"], encoder)


def test_a_tokenizer_that_is_not_the_builds(built: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", vocab_size=300)
    empty = (ITEMS.empty_table(), PLACEMENTS.empty_table(), REPLACEMENTS.empty_table())
    found = FinishedBuild(tmp_path, read_record(built), *empty)
    with pytest.raises(InputError, match="tokenizer: not the tokenizer that mix.json names"):
        found.encoder()


def test_a_relayout_for_another_litdata(built: Path, shared: Workspace, monkeypatch) -> None:
    trainer = shared.trainer("again.yaml", devices=2)
    real = read_record(built)
    geometry = real.geometry.model_copy(update={"litdata": "0.2.1"})
    monkeypatch.setattr(
        "mixctl.pipeline.relayout.read_record",
        lambda folder: real.model_copy(update={"geometry": geometry}),
    )
    with pytest.raises(InputError, match="the installed litdata is 0.2.59, .* was built for 0.2.1"):
        relayout(built, trainer, shared.folder / "never")


def _task(**changes: Any) -> dict[str, Any]:
    task = {"task": "t", "output_type": "multiple_choice", "doc_to_text": "q"}
    return task | {"doc_to_choice": "c", "doc_to_target": "g"} | changes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"doc_to_text": 5}, "row 1: 5 is neither a field nor a template"),
    ],
)
def test_tasks_that_cannot_be_read(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(_task(**changes)))
    rows = [{"q": "Who?", "c": {"text": ["a", "b"], "label": ["A", "B"]}, "g": "C"}]
    with pytest.raises(InputError, match=sentence):
        import_task(tmp_path / "t.yaml", rows)


def test_an_answer_that_is_none_of_the_labels() -> None:
    fields = Fields(question="q", choices="c.text", gold="g", labels="c.label")
    rows = [{"q": "Who?", "c": {"text": ["a", "b"], "label": ["A", "B"]}, "g": "C"}]
    with pytest.raises(InputError, match="row 1: gold 'C' is none of the labels A, B"):
        import_fields(rows, fields, "arc")


def test_more_rows_than_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(_task()))
    with pytest.raises(InputError) as error:
        import_task(tmp_path / "t.yaml", [{"q": "Who?", "c": "a", "g": 0}] * 23)
    assert error.value.problems[-1] == "... and 3 more problems"


@pytest.mark.parametrize(
    ("address", "format_name", "glob", "sentence"),
    [
        ("corpus", "jsonl", "*.zip", "corpus: path: .*: no file in it matches '.*zip'"),
        ("foo://x", "jsonl", None, "corpus: path: foo://x: cannot be opened .*Protocol not known"),
        (
            "corpus",
            "datatrove.data.Document",
            None,
            "corpus: format: datatrove.data.Document is no datatrove reader of files",
        ),
    ],
)
def test_corpora_that_are_not_there(tmp_path, address, format_name, glob, sentence) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt").write_text("w1")
    place = address if "://" in address else str(tmp_path / address)
    with pytest.raises(InputError, match=sentence):
        find_corpus(place, format_name, "text", glob)


def test_ones_own_files_that_are_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("w1")
    with pytest.raises(InputError, match="its files end in .docx; a corpus is .jsonl, .parquet or"):
        own_corpus(str(tmp_path), "text")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(InputError, match=f"{tmp_path}: holds no text"):
        corpus_sample(Corpus(str(tmp_path), ("b.txt",), "text", "text"))


def test_a_stage_that_forgot_its_engine(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="is missing after its stage has ended"):
        engine_of(tmp_path)


def test_a_starter_that_lost_a_line() -> None:
    assert init._with_value("steps: 5  # of them\n", "steps", "7") == "steps: 7  # of them\n"
    with pytest.raises(ValueError, match="starter.yaml has no line 'batch:'"):
        init._with_value("steps: 5\n", "batch", "7")


def test_a_litgpt_without_its_files(monkeypatch) -> None:
    litgpt_types.litgpt_file.cache_clear()
    monkeypatch.setattr(importlib.util, "spec_from_file_location", lambda *given: None)
    with pytest.raises(InputError, match="litgpt is damaged: pip install --force-reinstall"):
        litgpt_types.litgpt_file("args")


def test_a_training_of_the_demo_that_fails(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "read_record", lambda folder: record())
    monkeypatch.setattr(demo, "_follow", lambda *given: [one.wait() for one in given[2]])
    one = demo.Training(
        "twin", [sys.executable, "-c", "exit('no GPU')", str(tmp_path / "a.yaml")], tmp_path / "l"
    )
    with pytest.raises(
        click.ClickException, match="(?s)litgpt pretrain of the twin failed.*no GPU"
    ):
        demo._train(Console(), tmp_path, [one])


def test_a_corpus_of_the_demo_that_is_too_small() -> None:
    with pytest.raises(InputError, match="80 questions on 'year' need 40 answers with 2 quotes"):
        demo_corpus._draw_quotes([], "year", 80)
