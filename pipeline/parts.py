"""Which parts of the corpus each tokenize task reads: a function of files and sizes alone.

The corpus is one line of documents: files by name, in each file as they stand. It is cut into
parts, whole files or stretches of one (bytes of JSONL, row groups of parquet), and a task reads
parts that follow one another, about 32 MB of them. So one big file feeds all cores, a thousand
small ones are a few tasks, and document n is the same document however the line is cut.

    a.jsonl 70 MB, b.jsonl.gz 90 MB, c.jsonl 1 MB
    task 0: a, first half    1: a, second half    2: b    3: c     (a compressed file is not cut)

Price: a look at the size of every file, and at the footer of every large parquet file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec
from datatrove.data import Document
from datatrove.pipeline.readers.base import BaseDiskReader

from mixctl.pipeline.readers import Corpus, corpus_reader
from mixctl.pipeline.strict_readers import Stretch, StretchReader, readable

TASK_BYTES = 32_000_000
MOST_TASKS = 1024


@dataclass(frozen=True)
class Part:
    """A corpus file, or a stretch of one."""

    file: str
    n_bytes: int
    stretch: Stretch | None = None


def corpus_tasks(corpus: Corpus, task_bytes: int = TASK_BYTES) -> tuple[tuple[Part, ...], ...]:
    """Returns the parts that each task reads, in the order of documents.

    Args:
        corpus: its files.
        task_bytes: what a task should read; more of a corpus that would give over 1,024 tasks.
    """
    sizes = _sizes(corpus)
    task_bytes = max(task_bytes, -(-sum(sizes) // MOST_TASKS))
    reader = corpus_reader(corpus)
    parts: list[Part] = []
    for file, n_bytes in zip(corpus.files, sizes, strict=True):
        cuts = (
            reader.stretches(file, n_bytes, task_bytes) if isinstance(reader, StretchReader) else []
        )
        parts += [Part(file, n, stretch) for n, stretch in cuts] or [Part(file, n_bytes)]
    return grouped(parts, task_bytes)


def _sizes(corpus: Corpus) -> list[int]:
    filesystem, root = fsspec.core.url_to_fs(corpus.folder)
    return [filesystem.size(f"{root}/{name}") or 0 for name in corpus.files]


def grouped(parts: Sequence[Part], task_bytes: int) -> tuple[tuple[Part, ...], ...]:
    """Returns the parts in runs: a part joins the run before it while both fit into a task."""
    runs: list[list[Part]] = []
    n_bytes = 0
    for part in parts:
        if not runs or n_bytes + part.n_bytes > task_bytes:
            runs.append([])
            n_bytes = 0
        runs[-1].append(part)
        n_bytes += part.n_bytes
    return tuple(tuple(run) for run in runs)


def read_part(reader: BaseDiskReader, part: Part) -> Iterator[Document]:
    """Yields the documents of a part, read by the reader of its corpus.

    Raises:
        InputError: naming the file, when it is damaged.
    """
    with readable(posixpath.join(reader.data_folder.path, part.file)):
        if part.stretch is None:
            yield from reader.read_file(part.file)
        else:
            yield from reader.read_stretch(part.file, part.stretch)
