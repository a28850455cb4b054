"""Builds: same bytes whatever the workers, folder and topology; exact against a plain
reconstruction."""

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from tokenizers import Tokenizer

from mixctl.pipeline import stages
from mixctl.pipeline.build import build
from mixctl.shards.chunks import chunk_name, open_chunk
from mixctl.shards.errors import InputError
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import read_record
from tests.support.workspace import Workspace, canaries, documents, quiz, write_jsonl

SAME_BYTES = ("train", "val", "control", "manifest", "tokenizer")


def assert_same(a, b):
    for part in SAME_BYTES:
        names = sorted(p.relative_to(a).as_posix() for p in (a / part).rglob("*") if p.is_file())
        assert names
        assert names == sorted(
            p.relative_to(b).as_posix() for p in (b / part).rglob("*") if p.is_file()
        )
        for name in names:
            assert filecmp.cmp(a / name, b / name, shallow=False), name


def sequences(out, split="train"):
    """Returns the sequences of the run in the order of training: shape (sequences, tokens)."""
    geometry = read_record(out).geometry
    order = TrainingOrder(geometry.topology(), geometry.layout())
    chunk, block = order.slots(np.arange(geometry.sequences))
    width, dtype = geometry.sequence_tokens, geometry.dtype
    chunks = [open_chunk(out / split / chunk_name(c), width, dtype) for c in range(geometry.chunks)]
    return np.stack([chunks[c][b] for c, b in zip(chunk, block, strict=True)])


def test_same_bytes_with_two_workers_from_another_folder(built, tmp_path):
    other = Workspace(tmp_path / "elsewhere" / "deep")
    out = tmp_path / "out"
    build(other.mix(name="built.yaml"), out, control=True, workers=2)
    assert_same(built, out)


def test_every_sequence_is_the_same_for_four_devices_and_three_workers(shared, built, tmp_path):
    shared.trainer("four.yaml", devices=4, micro_batch_size=1, workers=3)
    out = tmp_path / "out"
    build(shared.mix(name="four-mix.yaml", trainer="four.yaml"), out, control=True)
    assert np.array_equal(sequences(built), sequences(out))
    assert np.array_equal(sequences(built, "control/train"), sequences(out, "control/train"))
    one, four = (pq.read_table(o / "manifest/placements.parquet") for o in (built, out))
    for column in ("item", "copy", "step", "sequence", "offset", "digest"):
        assert one[column].equals(four[column])


def test_run_and_twin_differ_nowhere_outside_the_changed_ranges(built):
    run, twin = sequences(built), sequences(built, "control/train")
    allowed = np.zeros(run.shape, dtype=bool)
    for row in pq.read_table(built / "manifest/placements.parquet").to_pylist():
        begin = row["changed_offset"]
        allowed[row["sequence"], begin : begin + row["changed_length"]] = True
    assert (run != twin).any()
    assert not ((run != twin) & ~allowed).any()


def test_any_row_looked_up_by_hand_is_the_payload(built, shared):
    """Reads the bytes at `byte` with open(), and compares with the tokenizer's own ids of the
    text."""
    tokenizer = Tokenizer.from_file(str(shared.folder / "tok/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    items = {
        (r["experiment"], r["item"]): r
        for r in pq.read_table(built / "manifest/items.parquet").to_pylist()
    }
    rows = pq.read_table(built / "manifest/placements.parquet").to_pylist()
    for row in rows:
        item = items[row["experiment"], row["item"]]
        with open(built / "train" / row["chunk"], "rb") as file:
            file.seek(row["byte"] - 2)
            data = np.frombuffer(file.read(2 * (row["length"] + 2)), dtype="<u2")
        assert data[0] == data[-1] == tokenizer.token_to_id("<|endoftext|>")
        assert data[1:-1].tolist() == item["tokens"]
        if row["experiment"] != "canaries":  # a canary's secret is drawn as tokens
            assert (
                data[1:-1].tolist() == tokenizer.encode(item["text"], add_special_tokens=False).ids
            )


def test_base_sequences_are_the_corpus_cut_into_rows(built, shared):
    """Whole documents in the shards are the corpus's own, and none is both in train/ and val/."""
    tokenizer = Tokenizer.from_file(str(shared.folder / "tok/tokenizer.json"))
    lines = (shared.folder / "corpus.jsonl").read_text().splitlines()
    docs = {tuple([*tokenizer.encode(json.loads(line)["text"]).ids, 0]) for line in lines}
    twin = sequences(built, "control/train")
    record = read_record(built)
    val = [open_chunk(p, 65, "uint16") for p in sorted((built / "val").glob("*.bin"))]
    val = np.concatenate(val)[: record.geometry.val_sequences]
    held_out = val.reshape(1, -1)  # validation sequences follow each other in the base stream
    whole = {"twin": _whole_documents(twin), "val": _whole_documents(held_out)}
    assert len(whole["twin"]) > 50
    assert len(whole["val"]) > 5
    assert whole["twin"] | whole["val"] <= docs
    assert not whole["twin"] & whole["val"], "a document is both trained on and held out"
    assert len({tuple(r.tolist()) for r in twin}) == len(twin), "no sequence is trained on twice"


def _whole_documents(rows):
    """Returns the documents that lie whole inside a row, with their end."""
    found = set()
    for row in rows:
        ends = np.flatnonzero(row == 0)
        found |= {tuple(row[a + 1 : b + 1].tolist()) for a, b in zip(ends, ends[1:], strict=False)}
    return found


def test_special_token_strings_in_text_stay_text(built):
    run = sequences(built)
    rows = pq.read_table(built / "manifest/placements.parquet").to_pylist()
    docs = [r for r in rows if r["experiment"] == "docs"]
    assert docs
    for row in docs:
        payload = run[row["sequence"], row["offset"] : row["offset"] + row["length"]]
        assert 0 not in payload.tolist()


def test_tokens_are_stored_as_uint32_when_the_vocabulary_needs_it(workspace, tmp_path):
    path = workspace.folder / "tok/tokenizer.json"
    raw = json.loads(path.read_text())
    raw["added_tokens"].append(
        {"id": 70_000, "content": "<far>", "special": True, "single_word": False, "lstrip": False}
        | {"rstrip": False, "normalized": False}
    )
    raw["model"]["vocab"] |= {f"unused{n}": n for n in range(600, 70_000)}
    path.write_text(json.dumps(raw))
    workspace.trainer(model_config={"block_size": 64, "padded_vocab_size": 70_016})
    out = tmp_path / "out"
    record = build(workspace.mix(canaries()), out)
    assert record.geometry.dtype == "uint32"
    row = pq.read_table(out / "manifest/placements.parquet").to_pylist()[0]
    tokens = pq.read_table(out / "manifest/items.parquet").to_pylist()
    wanted = next(i["tokens"] for i in tokens if i["item"] == row["item"])
    data = (out / "train" / row["chunk"]).read_bytes()[row["byte"] :][: 4 * row["length"]]
    assert np.frombuffer(data, "<u4").tolist() == wanted


def test_bos_rule(workspace, tmp_path):
    out = tmp_path / "out"
    record = build(workspace.mix(documents(), bos=True), out, control=True)
    assert (record.tokenizer.bos_id, record.tokenizer.eod_id) == (1, 0)
    after_end = [
        r[i + 1] for r in sequences(out, "control/train") for i in np.flatnonzero(r[:-1] == 0)
    ]
    assert set(map(int, after_end)) == {1}
    for item in pq.read_table(out / "manifest/items.parquet").to_pylist():
        assert item["tokens"][0] == 1


def test_a_corpus_that_is_too_small_says_by_how_much_and_leaves_nothing(workspace, tmp_path):
    workspace.trainer(max_tokens=8 * 64 * 2000)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"the run needs 16000: \d+ tokens are missing"):
        build(workspace.mix(canaries()), out)
    assert not out.exists()


def test_a_corpus_is_repeated_when_asked(workspace, tmp_path):
    workspace.trainer(max_tokens=8 * 64 * 1000)
    corpus = {"path": "corpus.jsonl", "repeat": True}
    record = build(workspace.mix(canaries(), corpus=corpus), tmp_path / "out", control=True)
    twin = sequences(tmp_path / "out", "control/train")
    _, counts = np.unique(twin, axis=0, return_counts=True)
    n_base = record.corpus["training_sequences"]
    assert n_base < len(twin)
    assert len(counts) == n_base
    assert set(counts.tolist()) <= {len(twin) // n_base, len(twin) // n_base + 1}


def test_another_build_in_the_folder_is_refused_and_the_same_one_is_done(shared, built, workspace):
    before = (built / "mix.json").read_bytes()
    with pytest.raises(InputError, match="already holds another build"):
        build(workspace.mix(canaries()), built)
    with pytest.raises(InputError, match="already holds another build"):
        build(shared.mix(name="built.yaml"), built, control=False)
    build(shared.mix(name="built.yaml"), built, control=True)
    assert (built / "mix.json").read_bytes() == before
    assert not (built / ".work").exists()


def test_a_folder_with_other_things_is_refused(workspace, tmp_path):
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no build"):
        build(workspace.mix(canaries()), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.jpg", "work"]


def start_build(shared, out):
    """Returns a running `mixctl build` in a process group of its own."""
    command = [sys.executable, "-m", "mixctl.pipeline.cli", "build"]
    command += [str(shared.mix(name="built.yaml")), "--out", str(out), "--control"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [*command, "--workers", "2"], stdout=quiet, stderr=quiet, start_new_session=True
    )


def test_killed_builds_continue_to_the_same_bytes(shared, built, tmp_path):
    """SIGKILL at moments spread over the run; each next build continues, the last one ends."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from mixctl.pipeline.cli import run; run()", "build"]
    command += [
        str(shared.mix(name="built.yaml")),
        "--out",
        str(out),
        "--control",
        "--workers",
        "2",
    ]
    for seconds in (1.5, 3, 4.5, 6):
        child = subprocess.Popen(command, stdout=-3, stderr=-3, start_new_session=True)
        time.sleep(seconds)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    build(shared.mix(name="built.yaml"), out, control=True)
    assert_same(built, out)
    assert not (out / ".work").exists()


def test_a_second_build_is_kept_out_of_the_folder_and_the_first_ends(shared, built, tmp_path):
    out = tmp_path / "out"
    first = start_build(shared, out)
    while first.poll() is None and not list(out.glob(".work/tokens-*")):
        time.sleep(0.02)
    assert first.poll() is None, "ended too early to try anything"
    os.killpg(first.pid, signal.SIGSTOP)  # however slow the second is
    with pytest.raises(InputError, match="another mixctl is at work in this folder"):
        build(shared.mix(name="built.yaml"), out, control=True)
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert_same(built, out)


def test_what_a_killed_write_left_is_removed(shared, built, tmp_path):
    """Killed while mixing, half a chunk under its temporary name: the next build ends clean."""
    out = tmp_path / "out"
    child = start_build(shared, out)
    while child.poll() is None and not list(out.glob(".work/mix-*/overlay/tokens.npy")):
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert list(out.glob(".work/mix-*")), "killed too late to try anything"
    (out / "train").mkdir(exist_ok=True)
    (out / "train" / ".chunk-000001.bin.999999.partial").write_bytes(b"half")
    build(shared.mix(name="built.yaml"), out, control=True)
    assert_same(built, out)


def test_a_changed_mix_does_not_reuse_an_interrupted_build(shared, built, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / "mix.json").unlink()
    (out / ".work").mkdir()
    build(shared.mix(canaries(), name="less.yaml"), out)
    assert not (out / "control").exists()
    assert set(read_record(out).totals) == {"canaries"}
    fresh = tmp_path / "fresh"
    build(shared.mix(canaries(), name="less.yaml"), fresh)
    for part in ("train", "val", "manifest"):
        assert not filecmp.dircmp(out / part, fresh / part).diff_files


def test_what_was_tokenized_before_is_searched_for_other_items(shared, tmp_path, monkeypatch):
    """A build is stopped behind its search; another mix goes on with its tokens and searches."""
    rows = [json.loads(line) for line in (shared.folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = [row["text"] for row in rows if 8 <= len(row["text"].split()) <= 14][:3]
    write_jsonl(shared.folder / "leaked.jsonl", [{"text": text, "copies": 2} for text in texts])
    leaked = documents(name="leaked", items="leaked.jsonl")
    mix = shared.mix(leaked, name="leaked.yaml", decontamination={"action": "drop"})
    out, fresh, ran = tmp_path / "out", tmp_path / "fresh", []
    with monkeypatch.context() as patch:
        patch.setattr("mixctl.pipeline.build.lay", None)
        with pytest.raises(TypeError):
            build(shared.mix(canaries(), name="before.yaml"), out)
    stage = stages.run_stage
    monkeypatch.setattr(stages, "run_stage", lambda *a: ran.append(a[0]) or stage(*a))
    build(mix, out)
    build(mix, fresh)
    assert ran == ["search", "mix", "mix"]
    found = pq.read_table(fresh / "manifest/decontamination.parquet")["document"].to_pylist()
    assert {rows[document]["text"] for document in found} == set(texts)
    for part in ("train", "val", "manifest"):
        assert not filecmp.dircmp(out / part, fresh / part).diff_files


def test_the_trainer_configs_read_the_build(built):
    for name, split in (("litgpt.yaml", "train"), ("litgpt-control.yaml", "control/train")):
        config = yaml.safe_load((built / name).read_text())
        arguments = config["data"]["init_args"]
        assert arguments["data_path"] == str(built.resolve())
        assert arguments["split_names"] == [split, "val"]
    assert config["out_dir"] == "out-control"


def test_other_formats_of_the_same_documents_give_the_same_base(shared, built, tmp_path):
    """The same documents as jsonl.gz, jsonl.zst and parquet give the same twin."""
    import gzip

    import pyarrow as pa
    import zstandard

    data = (shared.folder / "corpus.jsonl").read_bytes()
    texts = [json.loads(line)["text"] for line in data.splitlines()]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(data))
    pq.write_table(pa.table({"body": texts}), tmp_path / "c.parquet", row_group_size=500)
    expected = sequences(built, "control/train")
    for number, corpus in enumerate(
        (
            {"path": str(tmp_path / "c.jsonl.gz")},
            {"path": str(tmp_path / "c.jsonl.zst")},
            {"path": str(tmp_path / "c.parquet"), "format": "parquet", "text_key": "body"},
        )
    ):
        out = tmp_path / f"out{number}"
        build(shared.mix(quiz(), name=f"format{number}.yaml", corpus=corpus), out, control=True)
        assert np.array_equal(sequences(out, "control/train"), expected)
