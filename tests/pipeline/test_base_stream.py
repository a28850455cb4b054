"""The base stream on token files made by hand."""

import os
import random

import numpy as np
import pytest

from mixctl.pipeline import base_stream, token_files
from mixctl.pipeline.base_stream import BaseSource, lay
from mixctl.pipeline.tokenize import lengths_path, tokens_path
from mixctl.shards import draws
from mixctl.shards.draws import bits, shuffled
from mixctl.shards.errors import InputError

WIDTH = 7


def source(folder, documents, n_tasks=2, **changes):
    """Returns a source of documents (lists of ids), dealt to the token files in turn."""
    folder.mkdir(exist_ok=True)
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


def dealt(documents):
    """Returns the documents as they are stored in two files."""
    return [*documents[::2], *documents[1::2]]


SHAPES = {
    "one window": {},
    "windows of two strips": {"strip_tokens": 20, "window_strips": 2},
    "windows of five strips": {"strip_tokens": 11, "window_strips": 5},
}
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def windows_of(stored, stream, dropped=()):
    """Returns the documents of each window, in order: the rule of base_order.py in plain lists."""
    of = stream.source
    strips, begin = {}, 0
    for number, document in enumerate(stored):
        strips.setdefault(begin // of.strip_tokens, []).append(number)
        begin += len(document)
    strips = list(strips.values())
    n_windows = -(-len(strips) // of.window_strips)
    windows = [[] for _ in range(n_windows)]
    for segment in range(0, len(strips), n_windows):
        key = int(bits(draws.stream(of.seed, "strips"), segment // n_windows))
        turns = sorted(range(n_windows), key=lambda n, key=key: int(bits(key, n)))
        for window, turn in enumerate(turns):
            windows[window] += strips[segment + turn] if segment + turn < len(strips) else []
    for number, window in enumerate(windows):
        kept = [d for d in window if d not in dropped]
        order = shuffled(len(kept), draws.stream(of.seed, "documents", number))
        windows[number] = [stored[kept[n]] for n in order]
    return windows


def line_of(stream, dropped=()):
    """Returns the base line by hand: documents in order, end to end."""
    windows = windows_of(dealt(made_documents()), stream, dropped)
    return [t for window in windows for d in window for t in d]


def validation(stream, sequence):
    """Returns held-out sequences, whatever pieces they come in."""
    return np.concatenate([*stream.validation_pieces(sequence)])


@SHAPE
@pytest.mark.parametrize("seed", range(4))
def test_training_begins_with_the_first_document_after_validation(tmp_path, seed, shape):
    stream = lay(source(tmp_path, made_documents(), seed=seed, **shape))
    line = line_of(stream)
    held_out = 3 * WIDTH
    val = validation(stream, np.arange(3))
    assert val.ravel().tolist() == line[:held_out]
    begin = held_out if line[held_out - 1] == 0 else line.index(0, held_out) + 1
    assert line[begin] >= 1000, "a document begins here"
    rows = [line[b : b + WIDTH] for b in range(begin, len(line) - WIDTH + 1, WIDTH)]
    assert stream.n_sequences == len(rows)
    run = stream.training(np.arange(10))
    base = stream.base_sequence(np.arange(10))
    assert sorted(base) == list(range(10)), "the needed sequences are a permutation of themselves"
    assert [r.tolist() for r in run] == [rows[b] for b in base]


@SHAPE
def test_any_sequences_in_any_order_are_those_read_alone(tmp_path, monkeypatch, shape):
    """The files are read in their own order, a few bytes at a time: the order is the caller's."""
    monkeypatch.setattr(token_files, "_READ_BYTES", 64)
    stream = lay(source(tmp_path, made_documents(), **shape))
    asked = np.random.default_rng(0).permutation(stream.n_sequences)
    alone = [stream.training(np.array([n]))[0].tolist() for n in asked]
    assert stream.training(asked).tolist() == alone
    monkeypatch.setattr(
        base_stream, "_PIECE_BYTES", 3 * WIDTH * np.dtype(stream.source.dtype).itemsize
    )
    pieces = [piece.tolist() for piece in stream.training_pieces(asked)]
    assert pieces == [alone[n : n + 3] for n in range(0, len(alone), 3)]


def test_spares_follow_the_needed_sequences(tmp_path):
    stream = lay(source(tmp_path, made_documents()))
    n = stream.n_sequences
    spare = stream.base_sequence(np.arange(10, n + 4))
    assert spare.tolist() == [*range(10, n), 0, 1, 2, 3]


def test_validation_is_counted_round(tmp_path):
    stream = lay(source(tmp_path, made_documents()))
    assert np.array_equal(
        validation(stream, np.array([0, 1])), validation(stream, np.array([3, 4]))
    )


def test_the_seed_changes_the_order_of_documents_and_of_sequences(tmp_path):
    one = lay(source(tmp_path, made_documents(), seed=1))
    two = lay(source(tmp_path, made_documents(), seed=2))
    assert sorted(line_of(one)) == sorted(line_of(two))
    assert validation(one, np.arange(3)).tolist() != validation(two, np.arange(3)).tolist()
    assert one.base_sequence(np.arange(10)).tolist() != two.base_sequence(np.arange(10)).tolist()


def test_how_much_is_missing_is_said(tmp_path):
    stream = lay(source(tmp_path, made_documents()))
    asked = stream.n_sequences + 5
    with pytest.raises(InputError, match=f"the run needs {asked}: {5 * WIDTH} tokens are missing"):
        lay(source(tmp_path, made_documents(), n_needed=asked))
    again = lay(source(tmp_path, made_documents(), n_needed=2 * asked, repeat=True))
    counts = np.bincount(again.base_sequence(np.arange(2 * asked)))
    assert counts.min() >= 2
    assert counts.max() <= 3
    with pytest.raises(InputError, match="validation takes 700, and nothing is left"):
        lay(source(tmp_path, made_documents(), n_validation=100))
    with pytest.raises(InputError, match="holds no documents with text"):
        lay(source(tmp_path / "nothing", []))


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
    "windows": {"n_needed": 40, "strip_tokens": 30, "window_strips": 4},
    "windows, repeat": {"n_needed": 150, "repeat": True, "strip_tokens": 30, "window_strips": 4},
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
        changes["n_needed"] = lay(
            source(tmp_path, documents, **changes | {"n_needed": 20})
        ).n_sequences
    stream = lay(source(tmp_path, documents, **changes))
    hits = hits_of(strings, documents, 2)
    assert len(hits) >= 20
    shuffled = hits[np.random.default_rng(seed).permutation(len(hits))]
    sequence, pattern = stream.sequences_with(shuffled)
    expected = scanned(stream, strings)
    assert dict(zip(sequence.tolist(), pattern.tolist(), strict=True)) == expected
    assert sequence.tolist() == sorted(expected)
    assert 0 < len(expected) < max(stream.source.n_needed, stream.n_sequences)


def test_no_hits_are_no_sequences(tmp_path):
    stream = lay(source(tmp_path, made_documents()))
    sequence, pattern = stream.sequences_with(np.empty((0, 5), dtype=np.int64))
    assert (len(sequence), len(pattern)) == (0, 0)


@SHAPE
@pytest.mark.parametrize("repeat", [False, True])
def test_document_ends_are_the_end_tokens_of_each_sequence(tmp_path, repeat, shape):
    changes = {"n_needed": 90, "repeat": True} if repeat else {"n_needed": 20}
    stream = lay(source(tmp_path, made_documents(), **changes, **shape))
    asked = np.array([3, 0, 3, 19, stream.n_sequences - 1, 90])
    row, offset = stream.document_ends(asked)
    tokens = stream.training(asked)
    expected = [
        (r, o)
        for r, line in enumerate(tokens.tolist())
        for o in np.flatnonzero(~np.array(line, bool))
    ]
    assert list(zip(row.tolist(), offset.tolist(), strict=True)) == expected
    assert len(expected) >= 3


@SHAPE
def test_dropped_documents_are_nowhere(tmp_path, shape):
    documents, dropped = made_documents(), (0, 7, 8, 59)
    np.save(tmp_path / "dropped.npy", np.array(dropped, dtype=np.int64))
    stream = lay(source(tmp_path, documents, dropped=tmp_path / "dropped.npy", **shape))
    kept = [d for n, d in enumerate(dealt(documents)) if n not in dropped]
    assert (stream.n_documents, stream.n_tokens) == (56, sum(map(len, kept)))
    line = line_of(stream, dropped)
    assert sorted(line) == sorted(t for d in kept for t in d)
    begin = stream._train_begin
    rows = [line[b : b + WIDTH] for b in range(begin, len(line) - WIDTH + 1, WIDTH)]
    run = stream.training(np.arange(10))
    assert [r.tolist() for r in run] == [rows[b] for b in stream.base_sequence(np.arange(10))]
    assert validation(stream, np.arange(3)).ravel().tolist() == line[: 3 * WIDTH]


def test_the_order_does_not_depend_on_how_documents_are_dealt_to_files(tmp_path):
    """The same stored line in one file, and cut into five, one of them empty."""
    stored, shape = made_documents(), {"strip_tokens": 25, "window_strips": 3}
    one = lay(source(tmp_path / "one", stored, n_tasks=1, **shape))
    many = source(tmp_path / "many", [], n_tasks=5, **shape)
    for task, (first, stop) in enumerate([(0, 1), (1, 20), (20, 20), (20, 21), (21, 60)]):
        tokens = [t for d in stored[first:stop] for t in d]
        np.array(tokens, dtype="<u2").tofile(tokens_path(tmp_path / "many", task))
        lengths = np.array([len(d) for d in stored[first:stop]], dtype=np.int64)
        np.save(lengths_path(tmp_path / "many", task), lengths)
    asked = np.arange(one.n_sequences)
    assert np.array_equal(one.training(asked), lay(many).training(asked))
    assert np.array_equal(validation(one, asked), validation(lay(many), asked))


def test_a_window_holds_its_sequences_and_reads_its_strips(tmp_path, monkeypatch):
    """Sequences of the run stay in the window of their first token; what is asked for is enough."""
    shape = {"strip_tokens": 30, "window_strips": 3}
    stream = lay(source(tmp_path, made_documents(), n_needed=30, **shape))
    windows = windows_of(dealt(made_documents()), stream)
    assert len(windows) > 3
    ends = np.cumsum([sum(map(len, window)) for window in windows])
    line = stream._train_begin + stream.base_sequence(np.arange(30)) * WIDTH
    held = np.searchsorted(ends, line, side="right")
    assert np.array_equal(held, np.sort(held))
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, begin, n, __: asked.append((begin, n)))
    stream.read_ahead(np.array([4]))
    first = int(line[4])
    needed = {t for t in line_of(stream)[first : first + WIDTH] if t >= 1000}
    read = {int(t) for file in stream._files._files for t in _stretches(file, asked)}
    assert needed <= read
    assert len(read) < len(made_documents())
    of_the_first = asked.copy()
    stream.read_ahead(np.array([4]))
    assert asked == of_the_first, "nothing is asked for twice"
    stream.read_ahead(np.arange(30))
    everything = {int(t) for file in stream._files._files for t in _stretches(file, asked)}
    assert {*stream.training(np.arange(30)).ravel().tolist()} <= everything
    stream.read_ahead(np.array([29]))
    stream.read_ahead(np.array([4]))
    assert asked[-len(of_the_first) :] == of_the_first, "others have been asked for since"


def _stretches(file, asked):
    """Returns the tokens of a file in these stretches of bytes."""
    return np.concatenate([file[begin // 2 : (begin + n) // 2] for begin, n in asked])
