"""All token files as one line of stored tokens: stretches gathered by their place on it.

    files of 5 and 3 tokens: stretches (6, 2) and (0, 3) are the last two tokens of the second file
    and the first three of the first

The stretches are given to Arrow as an array of binary views, which is 16 bytes a stretch that say
where it lies: its length, and the number and offset of a buffer, or, of up to 12 bytes, the bytes
themselves. Casting it to plain binary copies all of them end to end, without Python in between.
Source of the layout: "Variable-size Binary View Layout" of the Arrow columnar format.

Many stretches are read in the order of the files, some megabytes at a time, and what was read is
given back before the next; then they are put into the order asked for, in memory. So what is mapped
is a few times what is read at a time, however far apart the stretches lie. Arrow only ever makes
some megabytes, which it has at hand again for the next ones; what is larger is kept from call to
call, since memory that the system has to give takes as long as the copies.

Price: some tens of nanoseconds a stretch, and two copies; four where there are many.
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
_READ_BYTES = 1 << 23
"""of the stretches that are read before what was mapped is given back"""
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

    def gather(self, begin: I64, length: I64, out: Tokens | None = None) -> Tokens:
        """Returns the tokens of all stretches, one after another, as an array of its own.

        Args:
            begin: int64, of each stretch, counted over all files.
            length: int64, of each stretch, below 2**28; it lies in one file.
            out: as many tokens as the stretches have together; what to write to, and return.
        """
        n_tokens = int(length.sum())
        n_parts = n_tokens * self._dtype.itemsize // _READ_BYTES
        if n_parts < 2:
            found = self._line.gather(begin, length)
            if out is not None:
                out[:] = found
            return found if out is None else out
        order = np.argsort(begin, kind="stable")
        held = self._room(n_tokens)
        for part, some in _parts(order, length[order], n_parts):
            held[part] = self._line.gather(begin[some], length[some])
            self.release()
        where = np.empty_like(begin)
        where[order] = np.cumsum(length[order]) - length[order]
        line = _Line([held], self._dtype)
        found = np.empty(n_tokens, dtype=self._dtype) if out is None else out
        for part, some in _parts(np.arange(len(begin)), length, n_parts):
            found[part] = line.gather(where[some], length[some])
        return found

    def _room(self, n_tokens: int) -> Tokens:
        """Returns room for so many tokens, the same each time: new memory takes its time."""
        if len(self._held) < n_tokens:
            self._held = np.empty(n_tokens, dtype=self._dtype)
        return self._held[:n_tokens]

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
        columns = zip(which.tolist(), low.tolist(), (low + length).tolist(), strict=True)
        held = np.zeros((len(which), _INLINE_BYTES // self._dtype.itemsize), dtype=self._dtype)
        inside = np.arange(held.shape[1]) < length[:, None]
        held[inside] = np.concatenate([self._arrays[n][begin:end] for n, begin, end in columns])
        return held.view(np.int32)


def _parts(stretches: I64, length: I64, n_parts: int) -> Iterator[tuple[slice, I64]]:
    """Yields (place of their tokens, some of the stretches), which follow each other."""
    end = np.cumsum(length)
    first = 0
    for some in np.array_split(np.arange(len(stretches)), n_parts):
        if len(some):
            stop = int(end[some[-1]])
            yield slice(first, stop), stretches[some]
            first = stop


def _buffers(files: list[Tokens]) -> tuple[list[pa.Buffer], I64]:
    """Returns (buffers, first buffer of each file): each of two strides, and one further on."""
    buffers: list[pa.Buffer] = []
    first = []
    for file in files:
        step = _STRIDE_BYTES // file.itemsize
        first.append(len(buffers))
        buffers += [pa.py_buffer(file[at : at + 2 * step]) for at in range(0, len(file), step)]
    return buffers, np.array(first, dtype=np.int64)
