"""All token files as one line of stored tokens: stretches gathered by their place on it.

    files of 5 and 3 tokens: stretches (6, 2) and (0, 3) are the last two tokens of the second file
    and the first three of the first


Price: about a quarter of a microsecond a stretch, and the copy.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mixctl.pipeline.mapped import release
from mixctl.pipeline.tokenize import open_tokens, tokens_path
from mixctl.shards.chunks import Tokens
from mixctl.shards.draws import I64


class TokenFiles:
    """The token files of the tokenize stage, mapped into memory."""

    def __init__(self, folder: Path, n_tasks: int, dtype: str) -> None:
        """Opens the files."""
        self._dtype = np.dtype(dtype)
        self._paths = [tokens_path(folder, task) for task in range(n_tasks)]
        self._files = [np.asarray(open_tokens(path, dtype)) for path in self._paths]
        self._first = np.cumsum([0, *(len(file) for file in self._files)])

    def gather(self, begin: I64, length: I64) -> Tokens:
        """Returns the tokens of all stretches, one after another.

        Args:
            begin: int64, of each stretch, counted over all files.
            length: int64, of each stretch; it lies in one file.
        """
        file = np.searchsorted(self._first, begin, side="right") - 1
        low = begin - self._first[file]
        columns = (file.tolist(), low.tolist(), (low + length).tolist())
        parts = [self._files[f][b:e] for f, b, e in zip(*columns, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self._dtype)

    def release(self) -> None:
        """Gives back the memory of what was read; it stays in the page cache."""
        release(self._files)

    def will_need(self, spans: I64) -> None:
        """Asks the system to read these spans (shape (n, 2), from and to) into the page cache."""
        if not hasattr(os, "posix_fadvise"):
            return  # macOS reads ahead by itself or not at all
        itemsize = self._dtype.itemsize
        for file, path in enumerate(self._paths):
            low, high = self._first[file], self._first[file + 1]
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
