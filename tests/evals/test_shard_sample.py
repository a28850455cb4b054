"""Placements whose bytes are not in the shards are named before anything is scored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mixctl.evals import shard_sample
from mixctl.evals.shard_sample import check_shards
from mixctl.shards.chunks import HEADER_BYTES
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_placements
from mixctl.shards.record import read_record
from tests.evals import tiny


@pytest.fixture
def build(tmp_path):
    """Returns a build with 6 sequences of base data placed twice, in one chunk."""
    items = tiny.documents({"x2": (6, 2)})
    rng = np.random.default_rng(5)
    for item in items:
        item.tokens = rng.integers(1, tiny.VOCABULARY, 33).tolist()
    build = tiny.make_build(tmp_path / "build", {"again": ("iid", items)})
    tiny.into_shards(build, "again")
    return build


def check(build):
    return check_shards(build, read_record(build))


def spoil(build, row):
    """Changes a byte of the row's payload."""
    (chunk,) = (build / "train").iterdir()
    place = read_placements(build).to_pylist()[row]
    data = bytearray(chunk.read_bytes())
    data[HEADER_BYTES + 2 * 33 * place["block"] + 4] ^= 1
    chunk.write_bytes(bytes(data))
    return place


def test_a_build_as_it_was_written_passes_without_a_note(build):
    assert check(build) == []


def test_other_bytes_are_named_by_row(build):
    place = spoil(build, 4)
    with pytest.raises(InputError) as caught:
        check(build)
    text = "\n".join(caught.value.problems)
    assert f"row 4 (experiment again, item {place['item']}, copy 0)" in text
    assert f"block {place['block']}, offset 0 holds other tokens" in text
    assert "2 of 12 placements that were looked up do not match" in text


def test_large_tables_are_sampled_from_end_to_end(build, monkeypatch):
    monkeypatch.setattr(shard_sample, "SAMPLE_ROWS", 2)
    spoil(build, 5)
    assert check(build) == []
    spoil(build, 11)
    with pytest.raises(InputError, match="row 11 .*copy 1"):
        check(build)


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_chunk_that_is_not_there(build, how):
    (chunk,) = (build / "train").iterdir()
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-66]) if how == "truncated" else chunk.unlink()
    (build / "train" / "index.json").touch()
    with pytest.raises(InputError, match=r"block \d+ cannot be read"):
        check(build)


def test_a_manifest_alone_is_enough_and_said(build):
    shutil.rmtree(build / "train")
    (note,) = check(build)
    assert "train/ is not here" in note


def test_more_chunks_than_files_may_be_open(tmp_path, few_descriptors):
    items = tiny.documents({"x1": (100, 1)})
    rng = np.random.default_rng(6)
    for item in items:
        item.tokens = rng.integers(1, tiny.VOCABULARY, 33).tolist()
    build = tiny.make_build(tmp_path / "build", {"again": ("iid", items)})
    tiny.into_shards(build, "again")
    tiny.a_block_a_chunk(build)
    assert check(build) == []
