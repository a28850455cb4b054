"""The search stage: token strings in the token files of the tokenize stage.

    save_patterns(strings, folder / "patterns.npz")
    step = SearchTokens(tokens, dtype, folder / "patterns.npz", folder)
    run_stage("search", [step], folder, n_tasks, workers)
    found = hits(folder, n_tasks)

Where the token files are being written, the step stands behind the one that writes them instead.
Task t searches token file t and writes `<t>.hits.npy`, a row (pattern, document, offset) for each
occurrence that lies inside one document; one that holds an end-of-document token does not. Patterns
are numbered as they were saved, documents from 0 in their file, offsets in tokens from the
document's first, its BOS token included.

Price: shards/search.py; each process loads and hashes the patterns, a second for a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from mixctl.pipeline.tokenize import lengths_path, open_tokens, tokens_path
from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64
from mixctl.shards.files import replacing
from mixctl.shards.search import TokenSearch, load_patterns


@dataclass(frozen=True)
class Hits:
    """Occurrences of patterns in the base corpus, a row each; int64 arrays of shape (n,).

    Attributes:
        pattern: its number.
        task: of the tokenize stage, whose file holds the document.
        document: its number in that file.
        offset: of the first token of the occurrence in the document.
    """

    pattern: I64
    task: I64
    document: I64
    offset: I64

    def __len__(self) -> int:
        """Returns the number of occurrences."""
        return len(self.pattern)


class SearchTokens(PipelineStep):
    """Writes where the patterns occur in the token file of the task, and passes nothing on.

    After `TokenizeDocuments` in a pipeline, it begins when that has written the file.
    """

    name = "Search"
    type = "SEARCH"

    def __init__(self, tokens: Path, dtype: str, patterns: Path, folder: Path) -> None:
        """Takes the tokenize stage's folder and token type, the saved patterns, its own folder."""
        super().__init__()
        self.tokens = tokens
        self.dtype = dtype
        self.patterns = patterns
        self.folder = folder

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """Writes one file of occurrences."""
        for _ in data or ():
            pass  # the steps before this one run while they are asked for documents
        found = self._find(rank)
        with replacing(hits_path(self.folder, rank)) as partial, partial.open("wb") as file:
            np.save(file, found)
        self.stat_update("occurrences", value=len(found), unit="task")
        yield from ()

    def _find(self, task: int) -> I64:
        """Returns (pattern, document, offset) of each occurrence: shape (n, 3)."""
        search = _search(self.patterns)
        ends = np.cumsum(np.load(lengths_path(self.tokens, task)))
        tokens = open_tokens(tokens_path(self.tokens, task), self.dtype)
        pattern, begin = search.find(tokens)
        document = np.searchsorted(ends, begin, side="right")
        inside = (
            begin + search.strings.length[pattern] < ends[document]
        )  # the last token is the end
        pattern, begin, document = pattern[inside], begin[inside], document[inside]
        doc_begin = np.concatenate([[0], ends])[document]
        return np.stack([pattern, document, begin - doc_begin], axis=1)


@lru_cache(maxsize=1)
def _search(patterns: Path) -> TokenSearch:
    """Returns the saved patterns, hashed once for all tasks of a process."""
    return TokenSearch(load_patterns(patterns))


def hits_path(folder: Path, task: int) -> Path:
    """Returns the file with the occurrences that a task found."""
    return folder / f"{task:05d}.hits.npy"


def hits(folder: Path, n_tasks: int) -> Hits:
    """Returns the occurrences that all tasks found, sorted by task and place in the file."""
    found = [np.load(hits_path(folder, task)) for task in range(n_tasks)]
    task = np.repeat(np.arange(n_tasks), [len(one) for one in found])
    rows = np.concatenate([np.empty((0, 3), dtype=np.int64), *found])
    return Hits(rows[:, 0], task, rows[:, 1], rows[:, 2])


def first_documents(folder: Path, n_tasks: int) -> I64:
    """Returns the number of each task's first document, at last how many there are: int64.

    Documents are counted over all files of the corpus in order; shape (n_tasks + 1,).
    """
    paths = [lengths_path(folder, task) for task in range(n_tasks)]
    counts = [len(np.load(path, mmap_mode="r")) for path in paths]
    return np.cumsum([0, *counts], dtype=np.int64)


class BaseDocuments:
    """The tokenized base documents by task and number, to show what was found."""

    def __init__(self, folder: Path, dtype: str) -> None:
        """Takes the tokenize stage's folder and token type; files are opened when asked for."""
        self._folder = folder
        self._dtype = dtype
        self._opened: dict[int, tuple[Tokens, I64]] = {}

    def number(self, task: I64, document: I64) -> I64:
        """Returns the numbers of documents, counted over all files in order: int64."""
        return first_documents(self._folder, int(task.max(initial=-1)) + 1)[task] + document

    def tokens(self, task: int, document: int, offset: int, length: int) -> Tokens:
        """Returns `length` tokens of a document from `offset` on."""
        if task not in self._opened:
            lengths = np.load(lengths_path(self._folder, task))
            mapped = open_tokens(tokens_path(self._folder, task), self._dtype)
            self._opened[task] = mapped, np.cumsum(lengths) - lengths
        mapped, begin = self._opened[task]
        first = int(begin[document]) + offset
        return np.asarray(mapped[first : first + length])
