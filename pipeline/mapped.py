"""Arrays on disk that are mapped into memory, and given back when they have been used.

What is read through a map counts as the memory of the process until it is released; the pages stay
in the page cache, where the system may take them. So a process that walks through a large file
holds only what it works on.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def map_array(path: Path) -> np.ndarray:
    """Returns the array of a .npy file, mapped into memory, read-only."""
    return np.asarray(np.load(path, mmap_mode="r"))


def new_array(path: Path, n: int) -> np.ndarray:
    """Returns an int64 array of shape (n,) that is a new .npy file."""
    made: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(n,))
    return made


def release(arrays: Iterable[np.ndarray]) -> None:
    """Gives back the memory of mapped arrays; whoever reads them again finds the same content."""
    for array in arrays:
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)
