"""Gathered stretches against slices of the tokens themselves, over files, strides and lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline import token_files
from mixctl.pipeline.token_files import TokenFiles
from mixctl.pipeline.tokenize import tokens_path

LENGTHS = (4000, 0, 37, 1, 2500)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("stride_bytes", [token_files._STRIDE_BYTES, 1 << 10])
@pytest.mark.parametrize("read_bytes", [token_files._READ_BYTES, 100])
@given(data=st.data())
def test_stretches_are_slices_of_the_line(
    stored: Path, dtype: str, stride_bytes: int, read_bytes: int, data: st.DataObject
) -> None:
    """Short ones (which views hold themselves) among them, and some that cross a stride's end.

    With few bytes read at a time they are read in the order of the files, in many parts.
    """
    line = _write(stored, dtype)
    bounds = np.cumsum([0, *LENGTHS])
    stretches = data.draw(st.lists(_stretch(bounds.tolist()), min_size=1, max_size=30))
    begin, length = np.array(stretches).T
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(token_files, "_STRIDE_BYTES", stride_bytes)
        patched.setattr(token_files, "_READ_BYTES", read_bytes)
        files = TokenFiles(stored, len(LENGTHS), dtype)
        gathered = files.gather(begin, length)
        bounds = np.sort([0, *data.draw(st.lists(st.integers(0, len(begin)))), len(begin)])
        pieces = [piece.copy() for piece in files.pieces(begin[::-1], length[::-1], bounds)]
    expected = [line[b : b + n] for b, n in stretches]
    assert gathered.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(gathered, np.concatenate(expected))
    for piece, low, high in zip(pieces, bounds[:-1], bounds[1:], strict=True):
        none = np.empty(0, dtype=dtype)
        np.testing.assert_array_equal(piece, np.concatenate([none, *expected[::-1][low:high]]))


def test_what_is_gathered_can_be_written_to_and_the_files_stay(stored: Path) -> None:
    line = _write(stored, "uint16")
    files = TokenFiles(stored, len(LENGTHS), "uint16")
    stretches = np.array([0, 10]), np.array([3, 400])
    for gathered in (files.gather(*stretches), *files.pieces(*stretches, np.array([0, 2]))):
        gathered[:] = 0
    np.testing.assert_array_equal(files.gather(np.array([0]), np.array([410])), line[:410])


def test_no_stretches_are_no_tokens(stored: Path) -> None:
    _write(stored, "uint16")
    none = np.empty(0, dtype=np.int64)
    assert TokenFiles(stored, len(LENGTHS), "uint16").gather(none, none).shape == (0,)


def _stretch(bounds: list[int]) -> st.SearchStrategy[tuple[int, int]]:
    """Yields (begin, length) of stretches of up to 500 tokens, each in one file."""

    def inside(file: int) -> st.SearchStrategy[tuple[int, int]]:
        low, high = bounds[file : file + 2]
        return st.integers(low, high - 1).flatmap(
            lambda begin: st.tuples(
                st.just(begin),
                st.one_of(st.integers(1, 8), st.integers(1, 500)).map(
                    lambda n: min(n, high - begin)
                ),
            )
        )

    return st.sampled_from([n for n, length in enumerate(LENGTHS) if length]).flatmap(inside)


def _write(folder: Path, dtype: str) -> np.ndarray:
    """Returns the tokens of all files, one after another; every token of them is another."""
    line = np.arange(1, sum(LENGTHS) + 1, dtype=dtype)
    for task, tokens in enumerate(np.split(line, np.cumsum(LENGTHS)[:-1])):
        tokens.tofile(tokens_path(folder, task))
    return line
