"""The tokenize stage: base documents to token files with document ends.

A datatrove pipeline of two steps, the reader and `TokenizeDocuments`, in tasks of whole files; a
task writes `<task>.tokens` (ids of all its documents, an end-of-document token after each) and
`<task>.lengths.npy` (tokens of each document, that token included). Which files a task reads
depends on the list of files alone, so the output does not depend on workers or machine.

Price: the speed of the tokenizer; memory of one batch of documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.injections.encode import Encoder
from mixctl.pipeline.readers import Corpus, corpus_reader
from mixctl.shards.chunks import Tokens, token_dtype
from mixctl.shards.files import replacing

MAX_TASKS = 256
_BATCH_CHARACTERS = 1_000_000


def n_tokenize_tasks(corpus: Corpus) -> int:
    """Returns the number of tasks: a function of the list of files alone."""
    return min(len(corpus.files), MAX_TASKS)


class ReadCorpus(PipelineStep):
    """Yields the documents of this task's files, with the corpus's own datatrove reader."""

    name = "Read corpus"
    type = "READER"

    def __init__(self, corpus: Corpus) -> None:
        """Takes the corpus; the reader is opened in the task."""
        super().__init__()
        self.corpus = corpus

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Yields the documents of files rank, rank + world_size, ..."""
        reader = corpus_reader(self.corpus)
        for name in self.corpus.files[rank::world_size]:
            yield from reader.read_file(name)


class TokenizeDocuments(PipelineStep):
    """Writes the tokens of the documents that pass through, and passes nothing on."""

    name = "Tokenize"
    type = "TOKENIZER"

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        """Takes the stage's folder and the tokenizer with its rule."""
        super().__init__()
        self.folder = folder
        self.encoder = encoder

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Writes one token file and one file of document lengths."""
        dtype = np.dtype(token_dtype(self.encoder.vocab_size)).newbyteorder("<")
        lengths: list[int] = []
        with replacing(tokens_path(self.folder, rank)) as partial, partial.open("wb") as file:
            for texts in _batches(data):
                for ids in self.encoder.payloads(texts):
                    file.write(np.append(ids, self.encoder.eod_id).astype(dtype).tobytes())
                    lengths.append(len(ids) + 1)
        with replacing(lengths_path(self.folder, rank)) as partial, partial.open("wb") as file:
            np.save(file, np.array(lengths, dtype=np.int64))
        self.stat_update("documents", value=len(lengths), unit="task")
        yield from ()


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


def _batches(data: Iterator[Document] | None) -> Iterator[list[str]]:
    """Yields lists of texts of about a million characters."""
    texts: list[str] = []
    n_characters = 0
    for document in data or ():
        texts.append(document.text)
        n_characters += len(document.text)
        if n_characters >= _BATCH_CHARACTERS:
            yield texts
            texts, n_characters = [], 0
    if texts:
        yield texts
