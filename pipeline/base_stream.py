"""The base stream: the base corpus as one line of tokens, cut into sequences.

Documents are put into a seeded order (`base_order.py`) and laid end to end, the end-of-document
token after each. The first documents give the validation sequences; training sequences begin at the
next document, so no document is in both. Training sequences are put into a seeded order again,
inside each window of the document order: the run's sequence n holds base sequence permute(n) for n
below the number needed; spares come after them.

    documents A B C D, order C A D B, 1 validation sequence
    C C C A | A A (cut)  D D B B B B ...
    val      dropped     training sequences

Price: the tables of the order are mapped, not loaded; a gather copies each document's part of a
sequence out of the page cache, where the window was read in long stretches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from mixctl.pipeline.base_order import (
    STRIP_TOKENS,
    WINDOW_STRIPS,
    open_order,
    write_order,
)
from mixctl.pipeline.mapped import map_array, release
from mixctl.pipeline.token_files import TokenFiles
from mixctl.pipeline.tokenize import lengths_path
from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64, stream
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes
from mixctl.shards.permutation import permute_windows
from mixctl.shards.search import expand

_PIECE_BYTES = 1 << 22
"""of the sequences that are gathered at a time: what is done to them finds them in the cache"""


@dataclass(frozen=True)
class BaseSource:
    """The tokenized documents, and how they are laid out. Picklable; files are opened when read.

    Attributes:
        folder: of the tokenize stage.
        n_tasks: its number of files.
        dtype: of the token files.
        sequence_tokens: tokens of a sequence.
        seed: of the mix.
        n_validation: sequences held out.
        n_needed: training sequences of the run.
        repeat: whether a base corpus that is too small is gone through again.
        dropped: a file with the numbers of the documents that are left out (int64, sorted), counted
            over all token files; None leaves none out.
        strip_tokens: of the order of the documents, tokens of a strip.
        window_strips: of the order of the documents, strips of a window.
    """

    folder: Path
    n_tasks: int
    dtype: str
    sequence_tokens: int
    seed: int
    n_validation: int
    n_needed: int
    repeat: bool
    dropped: Path | None = None
    strip_tokens: int = STRIP_TOKENS
    window_strips: int = WINDOW_STRIPS

    @property
    def order_folder(self) -> Path:
        """Returns where the order of the documents is: named by all that it depends on."""
        dropped = None if self.dropped is None else self.dropped.name
        parts = (self.seed, dropped, self.strip_tokens, self.window_strips)
        return self.folder / f"order-{digest_bytes(repr(parts).encode())}"


def lay(source: BaseSource) -> BaseStream:
    """Returns the base stream, after putting its documents into order where that is not done yet.

    Raises:
        InputError: when the corpus is too small, with the shortfall.
    """
    write_order(
        [lengths_path(source.folder, task) for task in range(source.n_tasks)],
        source.dropped,
        source.seed,
        source.order_folder,
        source.strip_tokens,
        source.window_strips,
    )
    return BaseStream(source)


class BaseTokens(Protocol):
    """Whoever knows the base tokens of sequences."""

    def training(self, sequence: I64) -> Tokens:
        """Returns the base tokens of these sequences, shape (n, sequence_tokens)."""


class BaseStream:
    """The base sequences of a run, by number. Opened once per process."""

    def __init__(self, source: BaseSource) -> None:
        """Opens the token files and the order of the documents that `lay` wrote.

        Raises:
            InputError: when the corpus is too small, with the shortfall.
        """
        self.source = source
        self._order = open_order(source.order_folder)
        self._ends = self._order.ends
        self.n_documents = len(self._ends)
        self.n_tokens = int(self._ends[-1]) if self.n_documents else 0
        self._train_begin = self._end_of_validation()
        self.n_sequences = (self.n_tokens - self._train_begin) // source.sequence_tokens
        self._check_size()
        self._files = TokenFiles(source.folder, source.n_tasks, source.dtype)
        self._key = stream(source.seed, "sequences")
        self._asked: I64 = np.empty(0, dtype=np.int64)

    @cached_property
    def _first_document(self) -> I64:
        """Returns the number of the first document of each token file: int64."""
        folder, n_tasks = self.source.folder, self.source.n_tasks
        counts = [len(map_array(lengths_path(folder, task))) for task in range(n_tasks)]
        return np.cumsum([0, *counts])

    @cached_property
    def _windows(self) -> I64:
        """Returns the bounds of the windows of the run's sequences, by their first tokens."""
        behind = self._order.window_ends[:-1] - self._train_begin
        first = np.clip(-(-behind // self.source.sequence_tokens), 0, self.n_sequences)
        needed = self.source.n_needed
        turns = np.arange(-(-needed // self.n_sequences)) * self.n_sequences
        bounds = (np.append(0, first) + turns[:, None]).ravel()
        return np.unique(np.append(bounds[bounds < needed], needed))

    def _end_of_validation(self) -> int:
        """Returns where training begins on the line: the end of the last document held out."""
        held_out = self.source.n_validation * self.source.sequence_tokens
        document = int(np.searchsorted(self._ends, held_out))
        return int(self._ends[document]) if document < self.n_documents else self.n_tokens

    def _check_size(self) -> None:
        source = self.source
        if self.n_documents == 0:
            raise InputError("corpus: holds no documents with text")
        held_out = source.n_validation * source.sequence_tokens
        if self.n_tokens < held_out or self.n_sequences == 0:
            raise InputError(
                f"corpus: {self.n_tokens} tokens are too few: validation takes {held_out}, and "
                f"nothing is left to train on"
            )
        if self.n_sequences < source.n_needed and not source.repeat:
            short = (source.n_needed - self.n_sequences) * source.sequence_tokens
            raise InputError(
                f"corpus: {self.n_tokens} tokens give {self.n_sequences} training sequences after "
                "validation, "
                f"the run needs {source.n_needed}: {short} tokens are missing; lower max_tokens, "
                "add text, "
                "or say corpus.repeat: true to go through it "
                f"{source.n_needed / self.n_sequences:.2f} times"
            )

    def training(self, sequence: I64) -> Tokens:
        """Returns the base tokens of sequences of the run: shape (n, sequence_tokens)."""
        begin, length, _ = self._stretches(self._train_begin, self.base_sequence(sequence))
        return self._files.gather(begin, length).reshape(-1, self.source.sequence_tokens)

    def training_pieces(self, sequence: I64) -> Iterator[Tokens]:
        """Yields the same, some megabytes of rows after another, each time in an array anew."""
        yield from self._pieces(self._train_begin, self.base_sequence(sequence))

    def read_ahead(self, sequence: I64) -> None:
        """Asks for the windows of these sequences of the run, in long stretches of the files.

        Those that the last call asked for are not asked for again: the system looks for every page.
        """
        order, width = self._order, self.source.sequence_tokens
        low = self._train_begin + self.base_sequence(sequence) * width
        touched = np.searchsorted(order.window_ends, np.append(low, low + width - 1), side="right")
        windows = np.unique(touched)
        new, self._asked = np.setdiff1d(windows, self._asked), windows
        for window in new.tolist():
            first, stop = order.first_strip[window : window + 2]
            self._files.will_need(order.strips[first:stop])

    def release(self) -> None:
        """Gives back the memory of what was read; it stays in the page cache."""
        self._files.release()
        release((self._order.ends, self._order.begin, self._order.place))

    def base_sequence(self, sequence: I64) -> I64:
        """Returns the base sequence under each sequence of the run, spares included: int64."""
        needed = self.source.n_needed
        inside = np.asarray(sequence) < needed
        base = np.array(sequence, dtype=np.int64)
        base[inside] = permute_windows(base[inside], self._windows, self._key)
        return base % self.n_sequences

    @property
    def n_spare(self) -> int:
        """Returns how many base sequences there are beyond those of the run."""
        return max(self.n_sequences - self.source.n_needed, 0)

    def document_ends(self, sequence: I64) -> tuple[I64, I64]:
        """Returns (row, offset), int64: the end-of-document tokens in these sequences, in order."""
        width = self.source.sequence_tokens
        low = self._train_begin + self.base_sequence(sequence) * width
        first = np.searchsorted(self._ends, low, side="right")
        count = np.searchsorted(self._ends, low + width, side="right") - first
        row, place = expand(first, count)
        return row, self._ends[place] - 1 - low[row]

    def sequences_with(self, hits: I64) -> tuple[I64, I64]:
        """Returns (sequence, pattern), int64: the sequences, spare ones included, that hold a hit.

        A hit counts when it lies whole in one sequence. Each sequence is named once, in order, with
        the lowest pattern found in it.

        Args:
            hits: shape (n, 5): pattern, token file, document in it, offset in the document, length.
        """
        pattern, task, document, offset, length = hits.T
        place = self._order.place[self._first_document[task] + document]
        begin = np.where(place > 0, self._ends[place - 1], 0) + offset - self._train_begin
        base, inside = np.divmod(begin, self.source.sequence_tokens)
        whole = (inside + length <= self.source.sequence_tokens) & (place >= 0)
        whole &= (begin >= 0) & (base < self.n_sequences)
        sequence, pattern = self._sequences_of(base[whole], pattern[whole])
        order = np.lexsort([pattern, sequence])
        found, first = np.unique(sequence[order], return_index=True)
        return found, pattern[order][first]

    def _sequences_of(self, base: I64, label: I64) -> tuple[I64, I64]:
        """Returns the sequences that hold these base sequences, in every turn, and their labels."""
        needed = self.source.n_needed
        turns = -(-needed // self.n_sequences) if self.source.repeat else 1
        held = base[:, None] + np.arange(turns) * self.n_sequences
        labels = np.broadcast_to(label[:, None], held.shape)[held < max(needed, self.n_sequences)]
        held = held[held < max(needed, self.n_sequences)]
        inside = held < needed
        held[inside] = permute_windows(held[inside], self._windows, self._key, inverse=True)
        return held, labels

    def validation_pieces(self, sequence: I64) -> Iterator[Tokens]:
        """Yields held-out sequences by number, counted round, as `training_pieces` does."""
        yield from self._pieces(0, np.asarray(sequence) % self.source.n_validation)

    def _pieces(self, line_begin: int, base: I64) -> Iterator[Tokens]:
        """Yields the tokens of base sequences, some rows after another."""
        width = self.source.sequence_tokens
        begin, length, first = self._stretches(line_begin, base)
        n_rows = max(1, _PIECE_BYTES // (width * np.dtype(self.source.dtype).itemsize))
        bounds = np.append(first[::n_rows], len(begin))
        for piece in self._files.pieces(begin, length, bounds):
            yield piece.reshape(-1, width)

    def _stretches(self, line_begin: int, base: I64) -> tuple[I64, I64, I64]:
        """Returns (stored token, length) of each document's part of base sequences, and firsts.

        Parts follow each other as the tokens of the sequences do; the third array has the number of
        each sequence's first.
        """
        low = line_begin + base * self.source.sequence_tokens
        high = low + self.source.sequence_tokens
        first = _searched(self._ends, low, "right")
        count = _searched(self._ends, high, "left") - first + 1
        row, place = expand(first, count)
        doc_begin = np.where(place > 0, self._ends[place - 1], 0)
        begin = np.maximum(low[row], doc_begin)
        length = np.minimum(high[row], self._ends[place]) - begin
        return self._order.begin[place] + begin - doc_begin, length, np.cumsum(count) - count


def _searched(ends: I64, token: I64, side: Literal["left", "right"]) -> I64:
    """Returns what searchsorted does; many tokens are found four times as fast when sorted."""
    order = np.argsort(token)
    place = np.empty_like(order)
    place[order] = np.searchsorted(ends, token[order], side=side)
    return place
