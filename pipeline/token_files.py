"""All token files as one line of stored tokens: stretches gathered by their place on it.

    files of 5 and 3 tokens: stretches (6, 2) and (0, 3) are the last two tokens of the second file
    and the first three of the first

The stretches are given to Arrow as an array of binary views, which is 16 bytes a stretch that say
where it lies: its length, and the number and offset of a buffer, or, of up to 12 bytes, the bytes
themselves. Casting it to plain binary copies all of them end to end, without Python in between.
Source of the layout: "Variable-size Binary View Layout" of the Arrow columnar format.

Many stretches are read in the order of the files, a megabyte at a time, and what was read is given
back before the next; then they are put into the order asked for, in memory. So what is mapped
is a few times what is read at a time, however far apart the stretches lie. Whoever works on them a
piece at a time (`pieces`) has them in the processor's cache, and Arrow only ever makes some
megabytes, which it has at hand again for the next ones; what is larger is kept from call to call,
since memory that the system has to give takes as long as the copies.

Price: some tens of nanoseconds a stretch, and one copy; three where there are many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.pipeline.mapped import release
from mixctl.pipeline.tokenize import open_tokens, tokens_path
from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64

_INLINE_BYTES = 12
"""of a view: up to so many bytes lie in it"""
_READ_BYTES = 1 << 20
"""of the stretches that are read before what was mapped is given back: the processor has them still
when they are copied"""
_STRIDE_BYTES = 1 << 30
"""a view counts from the beginning of a buffer in 32 bits, so a large file is several buffers"""


class TokenFiles:
    """The token files of the tokenize stage, mapped into memory."""

    def __init__(self, folder: Path, n_tasks: int, dtype: str) -> None:
        """Opens the files."""
        self._dtype = np.dtype(dtype)
        self._paths = [tokens_path(folder, task) for task in range(n_tasks)]
        self._files = [np.asarray(open_tokens(path, dtype)) for path in self._paths]
        self._line = _Line(self._files, self._dtype)
        self._held = np.empty(0, dtype=self._dtype)

    def gather(self, begin: I64, length: I64) -> Tokens:
        """Returns the tokens of all stretches, one after another, as an array of its own.

        Args:
            begin: int64, of each stretch, counted over all files.
            length: int64, of each stretch, below 2**28; it lies in one file.
        """
        found = np.empty(int(length.sum()), dtype=self._dtype)
        n_pieces = max(1, found.nbytes // _READ_BYTES)
        bounds, first = np.arange(n_pieces + 1) * len(begin) // n_pieces, 0
        for piece in self.pieces(begin, length, bounds):
            found[first : first + len(piece)] = piece
            first += len(piece)
        return found

    def pieces(self, begin: I64, length: I64, bounds: I64) -> Iterator[Tokens]:
        """Yields the tokens of some of the stretches after another, each time in an array anew.

        Args:
            begin: int64, of each stretch, counted over all files.
            length: int64, of each stretch, below 2**28; it lies in one file.
            bounds: int64; the n-th array is of the stretches bounds[n] <= m < bounds[n + 1].
        """
        n_tokens = int(length.sum())
        if n_tokens * self._dtype.itemsize < 2 * _READ_BYTES:
            yield from self._line.pieces(begin, length, bounds)
            return
        held, self._held = self._held, self._held[:0]  # whoever gathers meanwhile has other room
        if len(held) < n_tokens:
            held = np.empty(n_tokens, dtype=self._dtype)
        where = self._read(begin, length, held)
        yield from _Line([held], self._dtype).pieces(where, length, bounds)
        self._held = held  # new memory takes its time

    def _read(self, begin: I64, length: I64, held: Tokens) -> I64:
        """Returns where each stretch begins in `held`, after reading all there, in file order."""
        order = np.argsort(begin)
        sorted_length = length[order]
        end = np.cumsum(sorted_length)
        parts = np.array_split(order, int(end[-1]) * self._dtype.itemsize // _READ_BYTES)
        first = 0
        for some in parts:
            read = self._line.gather(begin[some], length[some])
            held[first : first + len(read)] = read
            first += len(read)
            self.release()
        where = np.empty_like(begin)
        where[order] = end - sorted_length
        return where

    def release(self) -> None:
        """Gives back the memory of what was read; it stays in the page cache."""
        release(self._files)

    def will_need(self, spans: I64) -> None:
        """Asks the system to read these spans (shape (n, 2), from and to) into the page cache."""
        if not hasattr(os, "posix_fadvise"):
            return  # macOS reads ahead by itself or not at all
        itemsize = self._dtype.itemsize
        for file, path in enumerate(self._paths):
            low, high = self._line.first[file : file + 2]
            inside = np.clip(spans, low, high) - low
            inside = inside[inside[:, 1] > inside[:, 0]] * itemsize
            if not len(inside):
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                for begin, end in inside.tolist():
                    os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)


class _Line:
    """Arrays in memory, or mapped, end to end."""

    def __init__(self, arrays: list[Tokens], dtype: np.dtype[np.unsignedinteger]) -> None:
        """Makes them known to Arrow; they stay where they are."""
        self._arrays = arrays
        self._dtype = dtype
        self.first = np.cumsum([0, *(len(one) for one in arrays)])
        self._buffers, self._first_buffer = _buffers(arrays)

    def gather(self, begin: I64, length: I64) -> Tokens:
        """Returns the tokens of all stretches, each in one array, one after another."""
        which = np.searchsorted(self.first, begin, side="right") - 1
        views = self._views(which, begin - self.first[which], length)
        buffers = [None, pa.py_buffer(views), *self._buffers]
        stretches = pa.Array.from_buffers(pa.binary_view(), len(begin), buffers)
        content = stretches.cast(pa.large_binary()).buffers()[2]
        return np.frombuffer(content, dtype=self._dtype, count=int(length.sum()))

    def pieces(self, begin: I64, length: I64, bounds: I64) -> Iterator[Tokens]:
        """Yields the tokens of the stretches from one bound to the next."""
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield self.gather(begin[low:high], length[low:high])

    def _views(self, which: I64, low: I64, length: I64) -> np.ndarray:
        """Returns the binary views of stretches of an array each: shape (n, 4), int32."""
        itemsize = self._dtype.itemsize
        stride, offset = np.divmod(low * itemsize, _STRIDE_BYTES)
        views = np.zeros((len(which), 4), dtype=np.int32)
        views[:, 0] = length * itemsize
        views[:, 2] = self._first_buffer[which] + stride
        views[:, 3] = offset
        short = np.flatnonzero(views[:, 0] <= _INLINE_BYTES)
        if len(short):
            views[short, 1:] = self._inline(which[short], low[short], length[short])
        return views

    def _inline(self, which: I64, low: I64, length: I64) -> np.ndarray:
        """Returns the tokens of short stretches as views hold them: shape (n, 3), int32."""
        offset = np.arange(_INLINE_BYTES // self._dtype.itemsize)
        held = np.zeros((len(which), len(offset)), dtype=self._dtype)
        for number in np.unique(which).tolist():
            here, array = which == number, self._arrays[number]
            held[here] = array[np.minimum(low[here, None] + offset, len(array) - 1)]
        held[offset >= length[:, None]] = 0
        return held.view(np.int32)


def _buffers(files: list[Tokens]) -> tuple[list[pa.Buffer], I64]:
    """Returns (buffers, first buffer of each file): each of two strides, and one further on."""
    buffers: list[pa.Buffer] = []
    first = []
    for file in files:
        step = _STRIDE_BYTES // file.itemsize
        first.append(len(buffers))
        buffers += [pa.py_buffer(file[at : at + 2 * step]) for at in range(0, len(file), step)]
    return buffers, np.array(first, dtype=np.int64)
