"""The digest of a corpus depends on every byte, every name and their order, and on nothing else."""

from concurrent.futures import CancelledError
from threading import Event

import numpy as np
import pytest
from blake3 import blake3

from mixctl.pipeline import corpus_digest as module
from mixctl.pipeline.corpus_digest import DigestAhead, corpus_digest
from mixctl.pipeline.readers import Corpus


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "_PIECE_BYTES", 100)
    monkeypatch.setattr(module, "_READ_BYTES", 33)


def written(folder, contents):
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return Corpus(str(folder), tuple(contents), "jsonl", "text")


def by_hand(contents):
    """Returns the digest as the module's text says it is made."""
    names = "".join(f"{len(name)}:{name}:{len(data)}" for name, data in contents.items())
    pieces = [
        blake3(data[begin : begin + 100]).digest(length=16)
        for data in contents.values()
        for begin in range(0, max(len(data), 1), 100)
    ]
    return blake3(names.encode() + b"".join(pieces)).hexdigest(length=16)


def contents():
    rng = np.random.default_rng(0)
    return {f"f{n}": rng.bytes(n) for n in (0, 1, 99, 100, 101, 250, 1000)}


def test_it_is_that_of_the_pieces_in_order(tmp_path):
    assert corpus_digest(written(tmp_path / "a", contents())) == by_hand(contents())


def test_every_byte_and_every_name_counts_and_the_folder_does_not(tmp_path):
    seen = {corpus_digest(written(tmp_path / "a", contents()))}
    assert corpus_digest(written(tmp_path / "b", contents())) in seen
    for number, at in enumerate((0, 99, 100, 249, 299, 999)):
        changed = contents()
        data = bytearray(changed["f1000"])
        data[at] ^= 1
        changed["f1000"] = bytes(data)
        seen.add(corpus_digest(written(tmp_path / f"c{number}", changed)))
    moved = contents()
    moved["f99"], moved["f100"] = moved["f99"] + moved["f100"][:1], moved["f100"][1:]
    seen.add(corpus_digest(written(tmp_path / "moved", moved)))
    renamed = {f"{name}x" if name == "f1" else name: data for name, data in contents().items()}
    seen.add(corpus_digest(written(tmp_path / "renamed", renamed)))
    turned = dict(reversed(contents().items()))
    seen.add(corpus_digest(written(tmp_path / "turned", turned)))
    assert len(seen) == 10


def test_it_is_made_ahead_and_given_up(tmp_path, monkeypatch):
    corpus = written(tmp_path / "a", contents())
    with DigestAhead() as ahead:
        ahead.begin(corpus)
        assert ahead.result() == by_hand(contents())
    read, stop = [], Event()
    monkeypatch.setattr(module.FileDigest, "update", lambda *a: read.append(a) or stop.set())
    with pytest.raises(CancelledError):
        corpus_digest(corpus, stop)
    assert len(read) <= 2  # the names, and a piece that was being read
