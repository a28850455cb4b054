"""The tokenize stage: base documents to token files with document ends.

A datatrove pipeline of two steps, the reader and `TokenizeDocuments`. A task reads its parts of the
corpus (parts.py) and writes `<task>.tokens` (ids of all its documents, an end-of-document token
after each) and `<task>.lengths.npy` (tokens of each document, that token included). The files one
after another are the documents of the corpus in order, wherever it was cut into tasks.

Ids go from the engine to the file as arrays. While one batch is encoded, the batch before it is
written and the next one read.

The steps serve in a pipeline of one's own as well, any datatrove reader and filters before them:

    LocalPipelineExecutor(
        [ParquetReader("docs"), GopherQualityFilter(), TokenizeDocuments(folder, encoder)], tasks=8
    ).run()

Price: the speed of the engine; memory of three batches of a million characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.injections.encode import Encoder
from mixctl.pipeline.engines import EngineDiffers, TokenBatch, compare, load_engine
from mixctl.pipeline.parts import Part, read_part
from mixctl.pipeline.readers import Corpus, corpus_reader
from mixctl.shards.chunks import Tokens, token_dtype
from mixctl.shards.draws import I64
from mixctl.shards.files import replacing, write_text

DIFFERENCE_NAME = "engine-differs.txt"
_BATCH_CHARACTERS = 1_000_000
_SAMPLED = 1_000
"""one document of so many is encoded by `tokenizers` too"""
_SAMPLED_CHARACTERS = 1_000_000
"""longer documents are not"""


class ReadCorpus(PipelineStep):
    """Yields the documents of this task's parts, with the corpus's own datatrove reader."""

    name = "Read corpus"
    type = "READER"

    def __init__(self, corpus: Corpus, tasks: Sequence[Sequence[Part]]) -> None:
        """Takes the corpus and the parts of every task; the reader is opened in the task."""
        super().__init__()
        self.corpus = corpus
        self.tasks = tasks

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Yields the documents of task `rank`."""
        reader = corpus_reader(self.corpus)
        for part in self.tasks[rank]:
            yield from read_part(reader, part)


class TokenizeDocuments(PipelineStep):
    """Writes the tokens of the documents that pass through, and passes nothing on."""

    name = "Tokenize"
    type = "TOKENIZER"

    def __init__(self, folder: Path, encoder: Encoder, engine: str = "tokenizers") -> None:
        """Takes the stage's folder, the tokenizer with its rule, and `fast` or `tokenizers`."""
        super().__init__()
        self.folder = folder
        self.encoder = encoder
        self.engine = engine

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Writes one token file and one file of document lengths.

        Raises:
            EngineDiffers: when the engine does on the sample; the stage's folder says where.
        """
        with replacing(tokens_path(self.folder, rank)) as partial, partial.open("wb") as file:
            try:
                lengths = self._write(file, data or iter(()))
            except EngineDiffers as difference:
                write_text(self.folder / DIFFERENCE_NAME, str(difference))
                raise
        with replacing(lengths_path(self.folder, rank)) as partial, partial.open("wb") as file:
            np.save(file, lengths)
        self.stat_update("documents", value=len(lengths), unit="task")
        yield from ()

    def _write(self, file: BinaryIO, data: Iterator[Document]) -> I64:
        """Writes the tokens of the documents; returns the length of each, int64."""
        dtype = np.dtype(token_dtype(self.encoder.vocab_size)).newbyteorder("<")
        engine = load_engine(self.engine, self.encoder)
        lengths = [np.empty(0, dtype=np.int64)]
        n_documents = 0
        for texts, batch in _encoded(_batches(data), engine.encode):
            if self.engine != "tokenizers":
                _compare_sample(batch, texts, n_documents, self.encoder)
            tokens = with_control_tokens(batch, self.encoder, dtype)
            file.write(tokens.data)
            lengths.append(np.diff(batch.ends, prepend=0) + 1 + (self.encoder.bos_id is not None))
            n_documents += len(texts)
        return np.concatenate(lengths)


def with_control_tokens(batch: TokenBatch, encoder: Encoder, dtype: np.dtype) -> Tokens:
    """Returns the ids as they are written: BOS where the mix says so, end of document."""
    ids = batch.ids.astype(dtype)
    if encoder.bos_id is None:
        return np.insert(ids, batch.ends, encoder.eod_id)
    begins = np.concatenate([[0], batch.ends[:-1]])
    places = np.stack([begins, batch.ends], axis=1).reshape(-1)
    both = np.tile([encoder.bos_id, encoder.eod_id], len(batch.ends))
    return np.insert(ids, places, both)


def tokens_path(folder: Path, task: int) -> Path:
    """Returns the file with the tokens of a task."""
    return folder / f"{task:05d}.tokens"


def lengths_path(folder: Path, task: int) -> Path:
    """Returns the file with the document lengths of a task."""
    return folder / f"{task:05d}.lengths.npy"


def open_tokens(path: Path, dtype: str) -> Tokens:
    """Returns the tokens of a file, mapped into memory."""
    little = np.dtype(dtype).newbyteorder("<")
    if path.stat().st_size == 0:
        return np.empty(0, dtype=little)
    return np.memmap(path, dtype=little, mode="r")


def _encoded(
    batches: Iterator[list[str]], encode: Callable[[Sequence[str]], TokenBatch]
) -> Iterator[tuple[list[str], TokenBatch]]:
    """Yields (texts, their ids); the next batch is encoded while the caller has this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: tuple[list[str], Future[TokenBatch]] | None = None
        for texts in batches:
            coming = texts, pool.submit(encode, texts)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = coming
        if pending is not None:
            yield pending[0], pending[1].result()


def _batches(data: Iterator[Document]) -> Iterator[list[str]]:
    """Yields lists of texts of about a million characters."""
    texts: list[str] = []
    n_characters = 0
    for document in data:
        texts.append(document.text)
        n_characters += len(document.text)
        if n_characters >= _BATCH_CHARACTERS:
            yield texts
            texts, n_characters = [], 0
    if texts:
        yield texts


def _compare_sample(
    batch: TokenBatch, texts: Sequence[str], n_before: int, encoder: Encoder
) -> None:
    """Returns nothing: the ids of the sampled documents are those of `tokenizers`.

    Raises:
        EngineDiffers: when one has others.
    """
    sampled = [
        number
        for number in range(-n_before % _SAMPLED, len(texts), _SAMPLED)
        if len(texts[number]) <= _SAMPLED_CHARACTERS
    ]
    if sampled:
        compare([batch.of(n) for n in sampled], [texts[n] for n in sampled], encoder)
