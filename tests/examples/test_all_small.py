"""The example with every kind, as a clone holds it: built, verified, searched and trained on."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mixctl.injections.registry import kind_names
from mixctl.pipeline.build import build
from mixctl.shards.verify import verify

EXAMPLES = Path(__file__).parents[2] / "examples"
MIX = EXAMPLES / "all-small.yaml"
LITGPT = Path(sys.executable).with_name("litgpt")
SEQUENCE_TOKENS = 257
HEADER_BYTES = 12
MADE = {
    "small": {
        *("corpus.jsonl.gz", "questions.jsonl", "facts.jsonl", "documents.jsonl"),
        *("articles.jsonl", "canaries.jsonl", "essays.jsonl", "diaries.jsonl"),
        *("prompts.jsonl", "strings.jsonl", "notices.jsonl"),
    },
    "tokenizer": {"tokenizer.json", "tokenizer_config.json"},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Returns the build, with the twin."""
    out = tmp_path_factory.mktemp("all-small") / "build"
    build(MIX, out, control=True)
    return out


@pytest.fixture(scope="module")
def experiments():
    return yaml.safe_load(MIX.read_text(encoding="utf-8"))["experiments"]


def rows(out, table):
    return pq.read_table(out / "manifest" / f"{table}.parquet").to_pylist()


def blocks(folder):
    """Returns the blocks of all chunks of a split, as bytes; read without mixctl."""
    found = []
    for path in sorted(folder.glob("*.bin")):
        data = path.read_bytes()[HEADER_BYTES:]
        size = 2 * SEQUENCE_TOKENS
        assert len(data) % size == 0
        found += [data[n : n + size] for n in range(0, len(data), size)]
    return found


def occurrences(needle, found):
    """Returns how often the token string stands in the blocks, at whole tokens."""
    total = 0
    for block in found:
        at = block.find(needle)
        while at >= 0:
            total += at % 2 == 0
            at = block.find(needle, at + 1)
    return total


def uint16(tokens):
    return np.array(tokens, dtype="<u2").tobytes()


def contents(path):
    """Returns the bytes; of a gzip file the unpacked ones, for zlib's versions pack differently."""
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    assert data[4:8] == bytes(4), f"{path} holds a time"
    return gzip.decompress(data)


def test_make_writes_the_files_that_are_there(tmp_path):
    subprocess.run([sys.executable, EXAMPLES / "small/make.py", tmp_path], check=True)
    made = {f.name: {p.name for p in f.iterdir()} for f in tmp_path.iterdir()}
    assert made == MADE
    for folder, names in MADE.items():
        for name in names:
            assert contents(tmp_path / folder / name) == contents(EXAMPLES / folder / name), name
    assert (EXAMPLES / "small/corpus.jsonl.gz").stat().st_size < 600_000


def test_every_kind_mode_and_schedule_is_shown(out, experiments):
    assert {one["kind"] for one in experiments} == set(kind_names())
    assert {row["kind"] for row in rows(out, "items")} == set(kind_names())
    modes = {row["mode"] for row in rows(out, "placements")}
    assert modes == {"overwrite", "boundary", "sequence", "batch", "mark"}
    said = [part.get("schedule") for one in experiments for part in (one, *one.get("arms", []))]
    names = {next(iter(one)) if isinstance(one, dict) else one for one in said if one}
    assert names == {"uniform", "even", "ramp", "windows", "every", "steps"}


def test_the_build_verifies_on_every_byte(out):
    report = verify(out, full=True)
    assert report.placements == len(rows(out, "placements")) > 1000
    assert report.moved_from is None


@pytest.mark.parametrize("kind", kind_names())
def test_every_kind_has_placements_and_holdouts(out, kind):
    items = [row for row in rows(out, "items") if row["kind"] == kind]
    experiments = {row["experiment"] for row in items}
    placed = [row for row in rows(out, "placements") if row["experiment"] in experiments]
    assert [row for row in items if row["copies"] == 0]
    if kind != "verbatim":
        with_copies = {row["item"] for row in items if row["copies"]}
        assert {row["item"] for row in placed} == with_copies != set()
        return
    assert not placed
    reasons = {row["reason"] for row in rows(out, "replacements")}
    assert reasons == {f"purge:{name}" for name in experiments}


def test_no_purged_string_is_in_the_run_and_all_are_in_the_twin(out):
    run, twin = blocks(out / "train"), blocks(out / "control/train")
    assert len(run) == len(twin) >= 1600
    lines = (EXAMPLES / "small/strings.jsonl").read_text(encoding="utf-8").splitlines()
    strings = [uint16(json.loads(line)["tokens"]) for line in lines]
    assert len(strings) == 12
    assert [occurrences(one, run) for one in strings] == [0] * 12
    assert min(occurrences(one, twin) for one in strings) >= 30


def test_run_and_twin_differ_in_injected_and_purged_sequences_alone(out):
    run, twin = blocks(out / "train"), blocks(out / "control/train")
    changed = [n for n, (one, other) in enumerate(zip(run, twin, strict=True)) if one != other]
    per_chunk = len(run) // len(list((out / "train").glob("*.bin")))
    placed = {
        int(row["chunk"].removeprefix("chunk-").removesuffix(".bin")) * per_chunk + row["block"]
        for row in rows(out, "placements")
        if row["mode"] != "mark"
    }
    assert placed <= set(changed)
    assert 0 < len(set(changed) - placed) <= len(rows(out, "replacements"))


def test_overwritten_payloads_of_first_variants_are_where_the_manifest_says(out):
    items = {(row["experiment"], row["item"]): row["tokens"] for row in rows(out, "items")}
    first = [
        row
        for row in rows(out, "placements")
        if row["mode"] in ("overwrite", "boundary") and row["variant"] == 0
        if row["experiment"] != "articles"  # cut into pieces
    ]
    assert len(first) > 500
    for row in first:
        data = (out / "train" / row["chunk"]).read_bytes()
        payload = uint16(items[row["experiment"], row["item"]])
        assert data[row["byte"] : row["byte"] + len(payload)] == payload


def test_the_leaked_question_was_found_and_dropped(out):
    (found,) = rows(out, "decontamination")
    assert (found["experiment"], found["item"], found["dropped"]) == ("quiz", "home-000", True)


def test_rows_that_fix_their_steps_are_placed_there(out):
    placed = [row for row in rows(out, "placements") if row["experiment"] == "asides"]
    steps = {}
    for row in placed:
        steps.setdefault(row["item"], []).append(row["step"])
    given = [
        json.loads(line)
        for line in (EXAMPLES / "small/documents.jsonl").open()
        if '"steps"' in line
    ]
    assert len(given) == 2
    for row in given:
        assert sorted(steps[row["id"]]) == row["steps"]


def test_stock_litgpt_trains_on_it(out, tmp_path):
    """Thirty steps of the eight hundred."""
    few = ["--train.max_tokens", str(30 * 2 * 256), "--train.save_interval", "20"]
    command = [LITGPT, "pretrain", "--config", out / "litgpt.yaml", "--out_dir", tmp_path, *few]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "LITDATA_DISABLE_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "step-00000020/lit_model.pth").exists()
    assert (tmp_path / "final/lit_model.pth").exists()
