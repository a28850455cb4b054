"""Base data comes from the shards, and only if they hold what the manifest says."""

from __future__ import annotations

import numpy as np
import pytest

from mixctl.evals.experiments import read_experiments
from mixctl.shards.chunks import HEADER_BYTES
from mixctl.shards.errors import InputError
from mixctl.shards.record import read_record
from tests.evals import tiny


def _sequences(n_items, n_sequences, arm, copies, seed=0):
    rng = np.random.default_rng(seed)
    return [
        tiny.TinyItem(
            f"{arm}-{n}",
            arm,
            rng.integers(0, 64, 33 * n_sequences).tolist(),
            "{}",
            steps=[3 + copy for copy in range(copies)],
        )
        for n in range(n_items)
    ]


@pytest.fixture
def items():
    return _sequences(3, 4, "fresh", 2) + _sequences(2, 4, "holdout", 0, seed=1)


@pytest.fixture
def build(tmp_path, items):
    folder = tiny.make_build(
        tmp_path / "build",
        {"batches": ("forgetting", items), "docs": ("documents", tiny.documents({"x1": (2, 1)}))},
    )
    tiny.into_shards(folder, "batches")
    return folder


def _read(build):
    return read_experiments(build, read_record(build))


def test_tokens_are_those_of_the_first_copy_all_parts_in_order(build, items):
    batches, docs = _read(build)
    of = {item.name: item.tokens for item in items}
    for item in batches.items:
        assert item.tokens.dtype == np.int64 and item.sequence_tokens == 33
        assert item.tokens.tolist() == of[item.name]
    assert batches.seen(None).tolist() == [2, 2, 2, 0, 0]
    assert docs.items[0].tokens.dtype == np.int64 and len(docs.items[0].tokens) == 12


def test_every_wrong_block_is_named(build):
    path = build / "train/chunk-000000.bin"
    data = bytearray(path.read_bytes())
    for block in (1, 6):  # of fresh-0 and fresh-1
        data[HEADER_BYTES + block * 66 + 10] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError) as caught:
        _read(build)
    assert [p.split(":")[0] for p in caught.value.problems] == [
        "experiment batches, item fresh-0",
        "experiment batches, item fresh-1",
    ]
    assert "block 1 does not hold the tokens" in caught.value.problems[0]


def test_a_missing_or_truncated_chunk_is_named(build):
    path = build / "train/chunk-000000.bin"
    data = path.read_bytes()
    path.write_bytes(data[: HEADER_BYTES + 66])
    with pytest.raises(InputError, match="block 11 cannot be read"):
        _read(build)
    path.write_bytes(data[:100])
    with pytest.raises(InputError, match="not whole blocks"):
        _read(build)
    path.unlink()
    with pytest.raises(
        InputError, match=r"train/chunk-000000\.bin is missing, which holds its tokens"
    ):
        _read(build)


def test_many_sequences_are_mapped_not_held(tmp_path):
    items = _sequences(1000, 1, "x1", 1)
    build = tiny.make_build(tmp_path / "build", {"again": ("iid", items)})
    tiny.into_shards(build, "again")
    (experiment,) = _read(build)
    assert not any(isinstance(v, np.ndarray) for v in vars(experiment.items[0]).values())
    of = {item.name: item.tokens for item in items}
    assert all(item.tokens.tolist() == of[item.name] for item in experiment.items[::97])


def test_more_chunks_than_files_may_be_open(tmp_path, few_descriptors):
    items = _sequences(2, 60, "fresh", 1)
    build = tiny.make_build(tmp_path / "build", {"batches": ("forgetting", items)})
    tiny.into_shards(build, "batches")
    tiny.a_block_a_chunk(build)
    (batches,) = _read(build)
    of = {item.name: item.tokens for item in items}
    assert all(item.tokens.tolist() == of[item.name] for item in batches.items)
