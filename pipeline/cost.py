"""What a build will cost: disk by arithmetic, time by a measurement on a sample of the corpus.

The sample is stretches of a megabyte, spread over the corpus, read and tokenized for some two
seconds by the engine that the build would take; then sequences of it are gathered at random and
written as chunks are. Both rates are those of one worker on this machine; workers on cores of their
own divide the time.

    seconds = corpus bytes / (bytes tokenized a second) + run tokens / (tokens written a second)

Reading for the corpus's digest, starting workers and sealing come on top: some seconds.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from datatrove.data import Document

from mixctl.pipeline.engines import choose_engine
from mixctl.pipeline.parts import Part, corpus_tasks, read_part
from mixctl.pipeline.plan import Plan
from mixctl.pipeline.prepare import choose_layouts
from mixctl.pipeline.readers import Corpus, corpus_reader, find_corpus
from mixctl.pipeline.tokenize import TokenizeDocuments, lengths_path, open_tokens, tokens_path
from mixctl.shards.chunks import HEADER_BYTES, token_dtype, write_chunk
from mixctl.shards.layout import Layout

Task = tuple[Part, ...]
_TASK_BYTES = 1_000_000
_MOST_TASKS = 64
_LARGEST_TASK = 64_000_000
"""bytes; a larger file that cannot be cut would take too long to read for a sample"""
_SECONDS = 2.0


@dataclass(frozen=True)
class Disk:
    """Bytes of the build's token files, and of what it needs besides while it is made."""

    train: int
    val: int
    control: int
    working: int | None
    """of the tokenized corpus; None where the corpus is only a number of tokens"""


@dataclass(frozen=True)
class Measured:
    """What the sample gave.

    Attributes:
        documents, tokens, bytes: of the sample.
        corpus_bytes: of all files.
        tokenized: bytes of corpus a second, one worker.
        written: tokens a second, one worker.
        seconds: of a build without the twin; `with_control` of one with it.
    """

    documents: int
    tokens: int
    bytes: int
    corpus_bytes: int
    tokenized: float
    written: float
    seconds: float
    with_control: float

    @property
    def corpus_tokens(self) -> int:
        """Returns the tokens that the whole corpus is expected to have."""
        return round(self.tokens * self.corpus_bytes / self.bytes)


def disk(plan: Plan, corpus_tokens: int | None) -> Disk:
    """Returns what the build takes on disk, the twin counted apart."""
    train, val = choose_layouts(plan)
    token_bytes = np.dtype(token_dtype(plan.encoder.vocab_size)).itemsize
    width = plan.topology.sequence_tokens * token_bytes
    working = None if corpus_tokens is None else corpus_tokens * token_bytes
    return Disk(_part(train, width), _part(val, width), _part(train, width), working)


def _part(layout: Layout, sequence_bytes: int) -> int:
    return layout.n_chunks * (HEADER_BYTES + layout.blocks_per_chunk * sequence_bytes)


def measure(plan: Plan) -> Measured | None:
    """Returns what a build costs in time; None where there is nothing to sample.

    Raises:
        InputError: when the corpus cannot be read.
    """
    config = plan.mix.config.corpus
    if config.path is None:
        return None
    where = plan.mix.resolve(config.path)
    corpus = find_corpus(where, config.format, config.text_key, config.glob)
    tasks = corpus_tasks(corpus, _TASK_BYTES)
    sample = _spread([task for task in tasks if _size(task) <= _LARGEST_TASK])
    if not sample:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_documents, n_bytes, seconds = _tokenize(plan, corpus, sample, folder)
        dtype = token_dtype(plan.encoder.vocab_size)
        found = [open_tokens(path, dtype) for path in sorted(folder.glob("*.tokens"))]
        tokens = np.concatenate(found) if found else np.empty(0, dtype=dtype)
        if not len(tokens):
            return None
        written = _write(tokens, plan.topology.sequence_tokens, folder)
    total = sum(map(_size, tasks))
    run = plan.topology.sequences * plan.topology.sequence_tokens
    reading, writing = total * seconds / n_bytes, run / written
    return Measured(
        documents=n_documents,
        tokens=len(tokens),
        bytes=n_bytes,
        corpus_bytes=total,
        tokenized=n_bytes / seconds,
        written=written,
        seconds=reading + writing,
        with_control=reading + 2 * writing,
    )


def _size(task: Task) -> int:
    return sum(part.n_bytes for part in task)


def _spread(tasks: list[Task]) -> list[Task]:
    """Returns some of the tasks, evenly spread."""
    step = max(1, len(tasks) // _MOST_TASKS)
    return tasks[step // 2 :: step]


def _tokenize(
    plan: Plan, corpus: Corpus, tasks: list[Task], folder: Path
) -> tuple[int, int, float]:
    """Returns (documents, bytes, seconds) of the tasks that fitted into the time, one at least."""
    engine = choose_engine(plan.mix.config.engine, plan.encoder)
    step = TokenizeDocuments(folder, plan.encoder, engine.name)
    reader, n_bytes = corpus_reader(corpus), 0
    list(step.run(iter([Document(text="warm", id="0")]), rank=0))  # loads the engine
    tokens_path(folder, 0).unlink()
    lengths_path(folder, 0).unlink()
    start = time.perf_counter()
    for number, task in enumerate(tasks, start=1):
        documents = chain.from_iterable(read_part(reader, part) for part in task)
        list(step.run(documents, rank=number))
        n_bytes += _size(task)
        if time.perf_counter() - start > _SECONDS:
            break
    seconds = time.perf_counter() - start
    n_documents = sum(len(np.load(path)) for path in folder.glob("*.lengths.npy"))
    return n_documents, max(n_bytes, 1), seconds


def _write(tokens: np.ndarray, sequence_tokens: int, folder: Path) -> float:
    """Returns the tokens a second at which sequences are gathered and written as a chunk."""
    width = min(sequence_tokens, len(tokens))
    n_blocks = len(tokens) // width
    order = np.random.default_rng(0).permutation(n_blocks)
    start = time.perf_counter()
    blocks = tokens[: n_blocks * width].reshape(n_blocks, width)[order]
    write_chunk(folder / "chunk.bin", blocks, digest_blocks=True)
    return n_blocks * width / (time.perf_counter() - start)
