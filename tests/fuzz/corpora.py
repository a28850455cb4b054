"""Corpora: JSONL (plain, gzip, zstd), parquet, text files and CSV with broken content."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from mixctl.injections.encode import load_encoder
from mixctl.pipeline.parts import corpus_tasks
from mixctl.pipeline.readers import find_corpus
from mixctl.pipeline.tokenize import ReadCorpus, TokenizeDocuments, lengths_path, tokens_path
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import ODD, mutated_bytes, mutated_tree
from tests.support.workspace import random_text, write_tokenizer

TASK_BYTES = 700
FORMATS = {"jsonl": "jsonl", "jsonl.gz": "jsonl", "jsonl.zst": "jsonl", "parquet": "parquet"}
FORMATS |= {"txt": "text", "csv": "csv"}


class Corpora:
    """A file of a few documents, read in stretches and tokenized."""

    name = "corpora"

    def __init__(self, folder: Path) -> None:
        self.encoder = load_encoder(write_tokenizer(folder / "tok"))
        self.corpus, self.stage = folder / "corpus", folder / "stage"
        self.corpus.mkdir()
        self.stage.mkdir()

    def broken(self, chance: random.Random) -> Parse:
        for path in self.corpus.iterdir():
            path.unlink()
        suffix = chance.choice(list(FORMATS))
        path = self.corpus / f"part.{suffix}"
        path.write_bytes(_content(chance, suffix))
        return lambda: self._tokenize(path, FORMATS[suffix])

    def _tokenize(self, path: Path, format_name: str) -> None:
        found = find_corpus(str(path), format_name, "text", None)
        tasks = corpus_tasks(found, TASK_BYTES)
        ended = 0
        try:
            for task in range(len(tasks)):
                step = TokenizeDocuments(self.stage, self.encoder)
                list(step.run(ReadCorpus(found, tasks).run(rank=task), rank=task))
                ended += 1
                _check(self.stage, task)
        finally:
            for task in range(ended):  # whole: a later run takes them as they are
                tokens_path(self.stage, task).unlink()
                lengths_path(self.stage, task).unlink()


def _check(stage: Path, task: int) -> None:
    """A task that ended has left all of its tokens."""
    lengths = np.load(lengths_path(stage, task))
    n_tokens = tokens_path(stage, task).stat().st_size // 2
    assert lengths.sum() == n_tokens, "lengths and tokens do not match"


def _content(chance: random.Random, suffix: str) -> bytes:
    rows = [{"id": n, "text": _text(chance)} for n in range(chance.randint(0, 12))]
    tree = mutated_tree(chance, rows) if chance.random() < 0.5 else rows
    if suffix == "parquet":
        data = _parquet(chance, tree)
        return mutated_bytes(chance, data) if chance.random() < 0.6 else data
    lines = tree if isinstance(tree, list) else [tree]
    if suffix == "txt":
        data = "\n".join(map(str, lines)).encode("utf-8", "surrogatepass")
    elif suffix == "csv":
        data = b"id,text\n" + "\n".join(f'{n},"{row}"' for n, row in enumerate(lines)).encode(
            "utf-8", "surrogatepass"
        )
    else:
        texts = [json.dumps(row, ensure_ascii=False, default=str) for row in lines]
        data = "\n".join(texts).encode("utf-8", "surrogatepass")
    if chance.random() < 0.6:
        data = mutated_bytes(chance, data)
    packed = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.ZstdCompressor().compress}
    data = packed.get(suffix, bytes)(data)
    return mutated_bytes(chance, data, 1) if suffix in packed and chance.random() < 0.5 else data


def _text(chance: random.Random) -> str:
    odd = [one for one in ODD if isinstance(one, str)]
    return (
        chance.choice(odd) if chance.random() < 0.2 else random_text(chance, chance.randint(1, 30))
    )


def _parquet(chance: random.Random, tree: object) -> bytes:
    """Returns the rows as parquet, texts of another type or broken UTF-8 among them."""
    file = io.BytesIO()
    try:
        table = pa.Table.from_pylist(tree)
    except Exception:  # of rows that make no table
        texts = [b"sound", b"\xff\xfe", b"half \xed\xa0\x80"]
        binary = pa.array(texts, pa.binary())
        table = pa.table({"text": binary.view(pa.string()) if chance.random() < 0.7 else binary})
    size = chance.choice((1, 2, 100))
    compression = chance.choice(("zstd", "none", "snappy"))
    pq.write_table(table, file, row_group_size=size, compression=compression)
    return file.getvalue()
