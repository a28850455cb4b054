"""The base stream on token files made by hand."""

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
