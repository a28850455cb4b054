"""The base stream: the base corpus as one line of tokens, cut into sequences.

Documents are put into a seeded order and laid end to end, the end-of-document token after each. The
first documents give the validation sequences; training sequences begin at the next document, so no
document is in both. Training sequences are put into a seeded order again: the run's sequence n
holds base sequence permute(n) for n below the number needed; spares come after them.

    documents A B C D, order C A D B, 1 validation sequence
    C C C A | A A (cut)  D D B B B B ...
    val      dropped     training sequences

Price: two int64 a document; a gather copies each document's part of a sequence, whatever its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixctl.pipeline.tokenize import lengths_path, open_tokens, tokens_path
from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64, stream
from mixctl.shards.errors import InputError
from mixctl.shards.permutation import permute, unpermute


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


class BaseStream:
    """The base sequences of a run, by number. Opened once per process."""

    def __init__(self, source: BaseSource) -> None:
        """Opens the token files.

        Raises:
            InputError: when the corpus is too small, with the shortfall.
        """
        self.source = source
        lengths = [np.load(lengths_path(source.folder, t)) for t in range(source.n_tasks)]
        self._files = [
            open_tokens(tokens_path(source.folder, t), source.dtype) for t in range(source.n_tasks)
        ]
        self._first = np.cumsum([0, *(len(one) for one in lengths)])
        kept = _kept(int(self._first[-1]), source.dropped)
        self._number = np.cumsum(kept) - 1
        self._number[~kept] = -1
        self._file = np.repeat(np.arange(source.n_tasks), np.diff(self._first))[kept]
        self._begin = np.concatenate([np.cumsum(one) - one for one in lengths])[kept]
        all_lengths = np.concatenate(lengths)[kept]
        self.n_documents, self.n_tokens = len(all_lengths), int(all_lengths.sum())
        numbers = np.arange(self.n_documents)
        self._order = permute(numbers, self.n_documents, stream(source.seed, "documents"))
        self._ends = np.cumsum(all_lengths[self._order])
        self._train_begin = self._end_of_validation()
        self.n_sequences = (self.n_tokens - self._train_begin) // source.sequence_tokens
        self._check_size()

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
        return self._gather(self._train_begin, self.base_sequence(sequence))

    def base_sequence(self, sequence: I64) -> I64:
        """Returns the base sequence under each sequence of the run, spares included: int64."""
        needed = self.source.n_needed
        inside = np.asarray(sequence) < needed
        base = np.array(sequence, dtype=np.int64)
        base[inside] = permute(base[inside], needed, stream(self.source.seed, "sequences"))
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
        row = np.repeat(np.arange(len(low)), count)
        turn = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self._ends[np.repeat(first, count) + turn] - 1 - low[row]

    def sequences_with(self, hits: I64) -> tuple[I64, I64]:
        """Returns (sequence, pattern), int64: the sequences, spare ones included, that hold a hit.

        A hit counts when it lies whole in one sequence. Each sequence is named once, in order, with
        the lowest pattern found in it.

        Args:
            hits: shape (n, 5): pattern, token file, document in it, offset in the document, length.
        """
        pattern, task, document, offset, length = hits.T
        number = self._number[self._first[task] + document]
        place = np.empty(self.n_documents, dtype=np.int64)
        place[self._order] = np.arange(self.n_documents)
        place = place[np.maximum(number, 0)]
        begin = np.where(place > 0, self._ends[place - 1], 0) + offset - self._train_begin
        base, inside = np.divmod(begin, self.source.sequence_tokens)
        whole = (inside + length <= self.source.sequence_tokens) & (number >= 0)
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
        held[inside] = unpermute(held[inside], needed, stream(self.source.seed, "sequences"))
        return held, labels

    def validation(self, sequence: I64) -> Tokens:
        """Returns held-out sequences by number, counted round: shape (n, sequence_tokens)."""
        return self._gather(0, np.asarray(sequence) % self.source.n_validation)

    def _gather(self, line_begin: int, base: I64) -> Tokens:
        width = self.source.sequence_tokens
        out = np.empty((len(base), width), dtype=self.source.dtype)
        flat = out.reshape(-1)
        for file, begin, target, length in zip(*self._pieces(line_begin, base), strict=True):
            flat[target : target + length] = self._files[file][begin : begin + length]
        return out

    def _pieces(self, line_begin: int, base: I64) -> tuple[list[int], ...]:
        """Returns (file, begin there, begin in the output, length) of each document's part."""
        width = self.source.sequence_tokens
        low = line_begin + base * width
        first = np.searchsorted(self._ends, low, side="right")
        last = np.searchsorted(self._ends, low + width, side="left")
        count = last - first + 1
        row = np.repeat(np.arange(len(base)), count)
        place = (
            np.repeat(first, count)
            + np.arange(len(row))
            - np.repeat(np.cumsum(count) - count, count)
        )
        document = self._order[place]
        doc_begin = np.where(place > 0, self._ends[place - 1], 0)
        begin = np.maximum(low[row], doc_begin)
        end = np.minimum(low[row] + width, self._ends[place])
        source = self._begin[document] + begin - doc_begin
        target = row * width + begin - low[row]
        parts = (self._file[document], source, target, end - begin)
        return tuple(part.tolist() for part in parts)


def _kept(n_documents: int, dropped: Path | None) -> np.ndarray:
    """Returns which documents stay: bool, shape (n_documents,)."""
    kept = np.ones(n_documents, dtype=np.bool_)
    if dropped is not None:
        kept[np.load(dropped)] = False
    return kept
