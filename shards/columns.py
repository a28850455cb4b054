"""Columns of Arrow tables, from numpy arrays and lists of texts, and whole numbers out of them.

`pa.array` and `to_numpy` do the same; but when they are first called they import pandas, where that
is installed: 0.1 to 0.25 s of a command, and nothing here needs it. So numbers are handed over as
numpy has them, texts as UTF-8 end to end with where each of them ends.

    arrow_column(["a", None, "bc"], pa.string())    text "abc", ends 0 1 1 3, there: yes no yes
    whole_numbers(column 5, null, 7, missing=-1)    5 -1 7

Price: a twentieth of a microsecond a text of ASCII, more for others, and the texts once more in
memory; for pieces of some thousand rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixctl.shards.draws import I64

_MOST_TEXT_BYTES = 2**31 - 1
"""that the ends of a string column can say"""

Flags = NDArray[np.bool_]


def arrow_column(
    values: Sequence[object] | NDArray[np.generic], kind: pa.DataType, missing: Flags | None = None
) -> pa.Array | pa.ChunkedArray:
    """Returns the values as a column; in pieces where texts are over two gigabytes together.

    Args:
        values: texts or None for strings; else booleans or whole numbers.
        kind: string, bool, or a type of whole numbers.
        missing: bool of shape (n,): which numbers are no value.

    Raises:
        OverflowError: when a number is none of that type.
    """
    if pa.types.is_string(kind):
        return _texts(values)
    if pa.types.is_boolean(kind):
        flags = np.asarray(values, dtype=np.bool_)
        return pa.Array.from_buffers(kind, len(flags), [None, _bits(flags)])
    there = None if missing is None or not missing.any() else _bits(~missing)
    numbers = _numbers(np.asarray(values), np.dtype(str(kind)))
    return pa.Array.from_buffers(kind, len(numbers), [there, pa.py_buffer(numbers)])


def whole_numbers(column: pa.Array | pa.ChunkedArray, missing: int) -> I64:
    """Returns a column of whole numbers as int64, shape (n,); `missing` where there is none."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = np.empty(len(column), dtype=np.int64)
    end = 0
    for piece in filter(len, pieces):
        begin, end = end, end + len(piece)
        found[begin:end] = _filled(piece)
        if piece.null_count:
            found[begin:end][np.from_dlpack(piece.is_null().cast(pa.uint8())) != 0] = missing
    return found


def token_values(tokens: pa.Array) -> NDArray[np.uint32]:
    """Returns tokens of the manifest, uint32 and none of them missing, without a copy: (n,)."""
    return np.asarray(np.from_dlpack(tokens), dtype=np.uint32)


def _filled(numbers: pa.Array) -> NDArray[np.generic]:
    """Returns the numbers without a copy; anything stands where there is none."""
    buffers = [None, numbers.buffers()[1]]
    whole = pa.Array.from_buffers(numbers.type, len(numbers), buffers, offset=numbers.offset)
    return np.from_dlpack(whole)


def _texts(values: Sequence[object] | NDArray[np.generic]) -> pa.Array | pa.ChunkedArray:
    """Returns the texts; where all are ASCII, none of them is looked at but for its length."""
    column = list(values)
    there = np.ones(len(column), dtype=np.bool_)
    if column.count(None):
        there[:] = [value is not None for value in column]
    texts = cast(list[str], [value for value in column if value is not None])
    joined = "".join(texts)
    ends = np.zeros(len(column) + 1, dtype=np.int64)
    ends[1:][there] = [*map(len, texts if joined.isascii() else map(str.encode, texts))]
    np.cumsum(ends, out=ends)
    if ends[-1] > _MOST_TEXT_BYTES:
        return pa.array(values, pa.string())
    buffers = [
        None if there.all() else _bits(there),
        pa.py_buffer(ends.astype(np.int32)),
        pa.py_buffer(joined.encode()),
    ]
    return pa.Array.from_buffers(pa.string(), len(column), buffers)


def _numbers(values: NDArray[np.generic], dtype: np.dtype) -> NDArray[np.generic]:
    """Returns the numbers, none of them changed."""
    numbers = np.ascontiguousarray(values, dtype=dtype)
    if (changed := np.flatnonzero(numbers != values)).size:
        raise OverflowError(f"{values[changed[0]]} is no {dtype}")
    return numbers


def _bits(flags: Flags) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))
