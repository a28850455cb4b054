"""The base stream on token files made by hand."""

import random

import numpy as np
import pytest

from mixctl.pipeline.base_stream import BaseSource, BaseStream
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.shards.errors import InputError

WIDTH = 7


def source(folder, documents, n_tasks=2, **changes):
    """Returns a source of documents (lists of ids), dealt to the token files in turn."""
    for task in range(n_tasks):
        mine = documents[task::n_tasks]
        tokens = np.array([t for d in mine for t in d], dtype="<u2")
        tokens.tofile(tokens_path(folder, task))
        np.save(lengths_path(folder, task), np.array([len(d) for d in mine], dtype=np.int64))
    settings = {"seed": 1, "n_validation": 3, "n_needed": 10, "repeat": False} | changes
    return BaseSource(folder, n_tasks, "uint16", WIDTH, **settings)


def made_documents(n=60):
    """Returns documents of 1 to 9 tokens and an end: 1000 + number first, then ones."""
    return [[1000 + d] + [1] * (d % 9) + [0] for d in range(n)]


def line_of(stream):
    """Returns the base line by hand: documents in the stream's order, end to end."""
    documents = made_documents()
    order = [documents[int(n)] for n in _numbers(stream)]
    return [t for d in order for t in d]


def _numbers(stream):
    """Returns the documents in order, as numbers of `made_documents` (dealt to two files)."""
    dealt = [*range(0, 60, 2), *range(1, 60, 2)]
    return [dealt[n] for n in stream._order]


@pytest.mark.parametrize("seed", range(8))
def test_training_begins_with_the_first_document_after_validation(tmp_path, seed):
    stream = BaseStream(source(tmp_path, made_documents(), seed=seed))
    line = line_of(stream)
    held_out = 3 * WIDTH
    val = stream.validation(np.arange(3))
    assert val.ravel().tolist() == line[:held_out]
    begin = held_out if line[held_out - 1] == 0 else line.index(0, held_out) + 1
    assert line[begin] >= 1000, "a document begins here"
    rows = [line[b : b + WIDTH] for b in range(begin, len(line) - WIDTH + 1, WIDTH)]
    assert stream.n_sequences == len(rows)
    run = stream.training(np.arange(10))
    base = stream.base_sequence(np.arange(10))
    assert sorted(base) == list(range(10)), "the needed sequences are a permutation of themselves"
    assert [r.tolist() for r in run] == [rows[b] for b in base]


def test_spares_follow_the_needed_sequences(tmp_path):
    stream = BaseStream(source(tmp_path, made_documents()))
    n = stream.n_sequences
    spare = stream.base_sequence(np.arange(10, n + 4))
    assert spare.tolist() == [*range(10, n), 0, 1, 2, 3]


def test_validation_is_counted_round(tmp_path):
    stream = BaseStream(source(tmp_path, made_documents()))
    assert np.array_equal(stream.validation(np.array([0, 1])), stream.validation(np.array([3, 4])))


def test_the_seed_changes_the_order_of_documents_and_of_sequences(tmp_path):
    one = BaseStream(source(tmp_path, made_documents(), seed=1))
    two = BaseStream(source(tmp_path, made_documents(), seed=2))
    assert one._order.tolist() != two._order.tolist()
    assert one.base_sequence(np.arange(10)).tolist() != two.base_sequence(np.arange(10)).tolist()


def test_how_much_is_missing_is_said(tmp_path):
    stream = BaseStream(source(tmp_path, made_documents()))
    asked = stream.n_sequences + 5
    with pytest.raises(InputError, match=f"the run needs {asked}: {5 * WIDTH} tokens are missing"):
        BaseStream(source(tmp_path, made_documents(), n_needed=asked))
    again = BaseStream(source(tmp_path, made_documents(), n_needed=2 * asked, repeat=True))
    counts = np.bincount(again.base_sequence(np.arange(2 * asked)))
    assert counts.min() >= 2
    assert counts.max() <= 3
    with pytest.raises(InputError, match="validation takes 700, and nothing is left"):
        BaseStream(source(tmp_path, made_documents(), n_validation=100))
    with pytest.raises(InputError, match="holds no documents with text"):
        BaseStream(source(tmp_path, []))


def small_documents(chance, n=70):
    """Returns documents of two letters, so that short strings occur everywhere, and an end."""
    return [chance.choices([1, 2], k=chance.randint(1, 12)) + [0] for _ in range(n)]


def occurrences(row, string):
    """Returns where a list holds another, place by place."""
    return [n for n in range(len(row) - len(string) + 1) if row[n : n + len(string)] == string]


def hits_of(strings, documents, n_tasks):
    """Returns the hits of the strings in the documents as the search stage numbers them."""
    rows = [
        (pattern, number % n_tasks, number // n_tasks, offset, len(string))
        for number, document in enumerate(documents)
        for pattern, string in enumerate(strings)
        for offset in occurrences(document, string)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def scanned(stream, strings):
    """Returns {sequence: lowest string in it}, spares included, by looking at every sequence."""
    every = np.arange(max(stream.source.n_needed, stream.n_sequences))
    found = {}
    for sequence, row in enumerate(stream.training(every).tolist()):
        held = [n for n, string in enumerate(strings) if occurrences(row, string)]
        if held:
            found[sequence] = held[0]
    return found


CASES = {
    "spares": {"n_needed": 20},
    "no spares": {"n_needed": 60},
    "gone through two and a half times": {"n_needed": 150, "repeat": True},
    "repeat that is not needed": {"n_needed": 20, "repeat": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_sequences_with_a_string_are_those_that_a_scan_finds(tmp_path, case, drop, seed):
    chance = random.Random(seed)
    documents = small_documents(chance)
    strings = [chance.choices([1, 2], k=k) for k in (6, 4, 5, 7)]
    changes = {"seed": seed, "n_validation": 2, **CASES[case]}
    if drop:
        left_out = sorted(chance.sample(range(70), 9))  # counted over all token files
        np.save(tmp_path / "dropped.npy", np.array(left_out, dtype=np.int64))
        changes["dropped"] = tmp_path / "dropped.npy"
    if case == "no spares":
        changes["n_needed"] = BaseStream(
            source(tmp_path, documents, **changes | {"n_needed": 20})
        ).n_sequences
    stream = BaseStream(source(tmp_path, documents, **changes))
    hits = hits_of(strings, documents, 2)
    assert len(hits) >= 20
    shuffled = hits[np.random.default_rng(seed).permutation(len(hits))]
    sequence, pattern = stream.sequences_with(shuffled)
    expected = scanned(stream, strings)
    assert dict(zip(sequence.tolist(), pattern.tolist(), strict=True)) == expected
    assert sequence.tolist() == sorted(expected)
    assert 0 < len(expected) < max(stream.source.n_needed, stream.n_sequences)


def test_no_hits_are_no_sequences(tmp_path):
    stream = BaseStream(source(tmp_path, made_documents()))
    sequence, pattern = stream.sequences_with(np.empty((0, 5), dtype=np.int64))
    assert (len(sequence), len(pattern)) == (0, 0)


@pytest.mark.parametrize("repeat", [False, True])
def test_document_ends_are_the_end_tokens_of_each_sequence(tmp_path, repeat):
    changes = {"n_needed": 90, "repeat": True} if repeat else {"n_needed": 20}
    stream = BaseStream(source(tmp_path, made_documents(), **changes))
    asked = np.array([3, 0, 3, 19, stream.n_sequences - 1, 90])
    row, offset = stream.document_ends(asked)
    tokens = stream.training(asked)
    expected = [
        (r, o)
        for r, line in enumerate(tokens.tolist())
        for o in np.flatnonzero(~np.array(line, bool))
    ]
    assert list(zip(row.tolist(), offset.tolist(), strict=True)) == expected
    assert len(expected) > len(asked) / 2


def test_dropped_documents_are_nowhere(tmp_path):
    documents = made_documents()
    np.save(tmp_path / "dropped.npy", np.array([0, 7, 8, 59], dtype=np.int64))
    stream = BaseStream(source(tmp_path, documents, dropped=tmp_path / "dropped.npy"))
    dealt = [*documents[::2], *documents[1::2]]
    kept = [d for n, d in enumerate(dealt) if n not in (0, 7, 8, 59)]
    assert (stream.n_documents, stream.n_tokens) == (56, sum(map(len, kept)))
    line = [t for n in stream._order for t in kept[n]]
    begin = stream._train_begin
    rows = [line[b : b + WIDTH] for b in range(begin, len(line) - WIDTH + 1, WIDTH)]
    run = stream.training(np.arange(10))
    assert [r.tolist() for r in run] == [rows[b] for b in stream.base_sequence(np.arange(10))]
    assert stream.validation(np.arange(3)).ravel().tolist() == line[: 3 * WIDTH]
