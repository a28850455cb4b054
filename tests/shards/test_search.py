"""The token search against looking at every place, and the stage that runs it over files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.searching import BaseDocuments, SearchTokens, hits, hits_path
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.shards import gram_table, search
from mixctl.shards.search import TokenSearch, load_patterns, save_patterns, token_strings

ALPHABETS = {
    "uint16": [[0, 1], [0, 1, 256, 257], [0x0101, 0x0100, 1, 0xFFFF]],
    "uint32": [[0, 1], [0, 1, 2**16, 2**24], [0x01010101, 0x0101, 0x01000000, 2**32 - 1]],
}


def brute_force(patterns: list[list[int]], tokens: list[int]) -> list[tuple[int, int]]:
    """Returns (begin, pattern) of every occurrence by comparing lists at every place."""
    return [
        (at, number)
        for at in range(len(tokens))
        for number, pattern in enumerate(patterns)
        if tokens[at : at + len(pattern)] == pattern
    ]


def found(patterns: list[list[int]], tokens: list[int], dtype: str) -> list[tuple[int, int]]:
    """Returns (begin, pattern) as the search gives them, in its order."""
    made = TokenSearch([np.array(p, dtype=np.uint32) for p in patterns])
    pattern, begin = made.find(np.array(tokens, dtype=dtype))
    assert pattern.dtype == begin.dtype == np.int64
    return list(zip(begin.tolist(), pattern.tolist(), strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[list[int]], list[int], int, int]:
    """Draws patterns and tokens of few distinct ids, some patterns cut out of the tokens."""
    dtype = draw(st.sampled_from(sorted(ALPHABETS)))
    letter = st.sampled_from(draw(st.sampled_from(ALPHABETS[dtype])))
    shortest = draw(st.sampled_from([1, 2, 5, 12, 17, 37, 40]))
    fewest = draw(st.sampled_from([0, 2 * shortest]))
    tokens = draw(st.lists(letter, min_size=fewest, max_size=150))
    patterns = draw(st.lists(st.lists(letter, min_size=shortest, max_size=60), max_size=5))
    for _ in range(draw(st.integers(0, 4)) if len(tokens) >= shortest else 0):
        begin = draw(st.integers(0, len(tokens) - shortest))
        patterns.append(tokens[begin : begin + draw(st.integers(shortest, 60))])
    cached = draw(st.sampled_from([0, 1 << 13, 1 << 22]))
    return dtype, patterns, tokens, draw(st.sampled_from([1, 7, 64])), cached


@settings(max_examples=300)
@given(cases())
def test_finds_what_looking_at_every_place_finds(
    case: tuple[str, list[list[int]], list[int], int, int],
) -> None:
    dtype, patterns, tokens, slice_tokens, cached_bytes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_SLICE_PLACES", slice_tokens)
        patch.setattr(search, "_SUM_TOKENS", slice_tokens)
        patch.setattr(search, "_BATCH_TOKENS", slice_tokens)
        patch.setattr(gram_table, "_CACHED_BYTES", cached_bytes)
        assert found(patterns, tokens, dtype) == brute_force(patterns, tokens)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_bytes_that_agree_between_two_tokens_are_no_match(dtype: str) -> None:
    assert found([[0x0101]], [0x0100, 0x0001, 0x0101], dtype) == [(2, 0)]
    assert found([[0x0101] * 10], [0x0101] * 12, dtype) == [(0, 0), (1, 0), (2, 0)]


def test_stretches_with_the_hash_of_a_string_are_compared_token_by_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_BASE", 1)  # every order of the same tokens has one hash
    patterns, tokens = [[1, 2, 3], [3, 2, 1, 1]], [1, 2, 3, 2, 1, 1, 2, 3, 1, 1, 2, 3]
    assert found(patterns, tokens, "uint16") == [(0, 0), (2, 1), (5, 0), (9, 0)]


def test_strings_across_slices_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_SLICE_PLACES", 1 << 12)
    slices = 7 << 12, search._SUM_TOKENS  # of a stride of 7, and of sums
    tokens = np.arange(3 * max(slices), dtype=np.uint32)
    begin = [at for size in slices for at in (size - 5, size, 2 * size - 1)]
    cut = [tokens[at:][:n] for at, n in zip(begin, [10, 30, 300] * 2, strict=True)]
    made = TokenSearch(cut)
    assert made._slice == slices[0]
    assert [column.tolist() for column in made.find(tokens)] == [list(range(6)), begin]
    everywhere = TokenSearch([np.zeros(n, dtype=np.uint32) for n in (10, 300)])
    zeros = np.zeros(3 * search._SUM_TOKENS // 2, dtype=np.uint32)  # hashed out of sums
    assert np.bincount(everywhere.find(zeros)[0]).tolist() == [len(zeros) - 9, len(zeros) - 299]


def test_nothing_to_find_or_nowhere_to_look() -> None:
    assert found([], [1, 2], "uint16") == []
    assert found([[1, 2]], [], "uint16") == []
    assert found([[1, 2]], [1], "uint16") == []
    with pytest.raises(ValueError, match="string 1 is empty"):
        found([[1], []], [1], "uint16")


def test_patterns_survive_the_disk(tmp_path: Path) -> None:
    made = token_strings([np.array([5, 6, 2**32 - 1], dtype=np.uint32), np.array([7])])
    save_patterns(made, tmp_path / "patterns.npz")
    loaded = load_patterns(tmp_path / "patterns.npz")
    assert [loaded[n].tolist() for n in range(len(loaded))] == [[5, 6, 2**32 - 1], [7]]


def write_tokens(folder: Path, files: list[list[list[int]]]) -> None:
    """Writes documents as the tokenize stage does, an end (0) after each."""
    for task, documents in enumerate(files):
        ids = [token for document in documents for token in [*document, 0]]
        np.array(ids, dtype="<u2").tofile(tokens_path(folder, task))
        lengths = np.array([len(d) + 1 for d in documents], dtype=np.int64)
        np.save(lengths_path(folder, task), lengths)


def test_the_stage_names_file_document_and_offset(tmp_path: Path) -> None:
    tokens, stage = tmp_path / "tokens", tmp_path / "search"
    tokens.mkdir()
    files = [[[1, 2, 3], [9], [5, 1, 2, 1, 2]], [], [[2, 7, 1], [1, 2]]]
    write_tokens(tokens, files)
    patterns = [[1, 2], [2, 3], [3, 0], [2, 1, 2], [9, 0, 5]]
    saved = stage / "patterns.npz"
    save_patterns(token_strings([np.array(p, dtype=np.uint32) for p in patterns]), saved)
    step = pickle.loads(pickle.dumps(SearchTokens(tokens, "uint16", saved, stage)))
    run_stage("search", [step], stage, 3, ExecutorConfig())
    one = hits(stage, 3)
    rows = np.stack([one.pattern, one.task, one.document, one.offset], axis=1).tolist()
    # [3, 0] and [9, 0, 5] hold the end of a document: they lie in two, and are not found
    assert rows == [
        [0, 0, 0, 0],
        [1, 0, 0, 1],
        [0, 0, 2, 1],
        [3, 0, 2, 2],
        [0, 0, 2, 3],
        [0, 2, 1, 0],
    ]
    assert len(one) == 6
    assert not list(stage.glob(".*partial"))
    assert np.load(hits_path(stage, 1)).shape == (0, 3)
    documents = BaseDocuments(tokens, "uint16")
    assert documents.tokens(0, 2, 1, 3).tolist() == [1, 2, 1]
    assert documents.tokens(2, 1, 0, 2).tolist() == [1, 2]
