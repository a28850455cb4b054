"""The LitData chunk format for tokens: what a chunk file and its index.json look like.

A chunk is one item, a row of blocks of `max_seq_length + 1` tokens each, so the file is a header of
three uint32 (number of items = 1, where the item begins = 12, where it ends) and the tokens, little
endian. `TokensLoader` cuts it into blocks by itself.

    token `offset` of block `block` lies at byte 12 + (block * (max_seq_length + 1) + offset) *
    itemsize

Source of the format: litdata 0.2.59, `streaming/writer.py` and `streaming/item_loader.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from xxhash import xxh3_64_hexdigest

from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.files import EarlySync, FileDigest, replacing

HEADER_BYTES = 12
_WRITE_BYTES = 1 << 20
INDEX_NAME = "index.json"
_NUMPY_FORMAT = {"uint16": "no_header_numpy:5", "uint32": "no_header_numpy:6"}

Tokens = NDArray[np.unsignedinteger]


def token_dtype(vocab_size: int) -> str:
    """Returns 'uint16' when every token id of the vocabulary fits, else 'uint32'."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def chunk_name(chunk: int) -> str:
    """Returns the file name of a chunk: chunk-000042.bin."""
    return f"chunk-{chunk:06d}.bin"


def chunk_names(chunks: I64) -> list[str]:
    """Returns the file name of each chunk of the array."""
    return [chunk_name(int(chunk)) for chunk in chunks]


def token_byte(block: I64, offset: I64, sequence_tokens: int, dtype: str) -> I64:
    """Returns the byte in the chunk file at which token `offset` of `block` begins: int64."""
    blocks = np.asarray(block, dtype=np.int64)  # the manifest's columns are int32
    return HEADER_BYTES + (blocks * sequence_tokens + offset) * np.dtype(dtype).itemsize


def header(n_token_bytes: int) -> bytes:
    """Returns the 12 bytes that stand before the tokens of a chunk."""
    return np.array([1, HEADER_BYTES, HEADER_BYTES + n_token_bytes], dtype="<u4").tobytes()


def chunk_bytes(blocks: Tokens) -> bytes:
    """Returns the content of a chunk file for blocks of shape (C, sequence_tokens)."""
    tokens = np.ascontiguousarray(blocks, dtype=blocks.dtype.newbyteorder("<"))
    return header(tokens.nbytes) + tokens.tobytes()


@dataclass(frozen=True)
class WrittenChunk:
    """A chunk file as written: its size, its digest, and the digest of each block where asked."""

    bytes: int
    digest: str
    blocks: list[str]


class ChunkWriter:
    """Writes the blocks of one chunk file, some at a time, and digests them on the way."""

    def __init__(self, file: BufferedWriter, early: EarlySync, n_token_bytes: int) -> None:
        """Takes the new file, and how many bytes all its blocks have; writes the header."""
        self._file, self._early = file, early
        self._n_bytes = HEADER_BYTES + n_token_bytes
        self._n_written = 0
        self._digest = FileDigest()
        self._blocks: list[str] = []
        self._take(header(n_token_bytes))

    def write(self, blocks: Tokens, digest_blocks: bool) -> None:
        """Writes the next blocks, shape (n, sequence_tokens), a megabyte at a time.

        Args:
            blocks: what to write.
            digest_blocks: whether the digest of each of them is wanted too.
        """
        little = np.ascontiguousarray(blocks, dtype=blocks.dtype.newbyteorder("<"))
        some = max(1, _WRITE_BYTES // little[0].nbytes)
        for first in range(0, len(little), some):
            part = little[first : first + some]
            self._take(part.data)
            self._blocks += block_digests(part) if digest_blocks else []

    def _take(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        n_bytes = memoryview(data).nbytes
        self._n_written += n_bytes
        self._early.wrote(n_bytes)
        self._digest.update(data)

    def written(self) -> WrittenChunk:
        """Returns the size and the digests of the file.

        Raises:
            ValueError: when more or fewer blocks were written than announced.
        """
        if self._n_written != self._n_bytes:
            raise ValueError(
                f"{self._file.name}: {self._n_written} bytes were written, not {self._n_bytes}"
            )
        return WrittenChunk(self._n_bytes, self._digest.hexdigest(), self._blocks)


@contextmanager
def chunk_writer(path: Path, n_token_bytes: int) -> Iterator[ChunkWriter]:
    """Yields the writer of a chunk file, which is in its place at the end, all or nothing.

    Args:
        path: of the file.
        n_token_bytes: of all blocks that will be written.

    Raises:
        ValueError: when more or fewer were.
    """
    with replacing(path) as partial, partial.open("wb") as file, EarlySync(file) as early:
        writer = ChunkWriter(file, early, n_token_bytes)
        yield writer
        writer.written()  # a file that lacks blocks never comes into its place


def write_chunk(path: Path, blocks: Tokens, digest_blocks: bool) -> WrittenChunk:
    """Returns the size and digests of a chunk file, after writing it, all or nothing.

    Args:
        path: of the file.
        blocks: shape (C, sequence_tokens).
        digest_blocks: whether the digest of each block is wanted too.
    """
    with chunk_writer(path, blocks.nbytes) as writer:
        writer.write(blocks, digest_blocks)
    return writer.written()


def block_digests(blocks: Tokens) -> list[str]:
    """Returns the hex XXH3-64 digest of each block's bytes on disk.

    It says which block was damaged, or changed by an amendment, six times as fast as BLAKE3, whose
    cost at this length is not the bytes. Whether files are what they were is BLAKE3's to say.
    """
    little = np.ascontiguousarray(blocks, dtype=blocks.dtype.newbyteorder("<"))
    data, size = little.data.cast("B"), little.nbytes // len(little)
    return [xxh3_64_hexdigest(data[at : at + size]) for at in range(0, len(data), size)]


def index_text(n_chunks: int, blocks_per_chunk: int, sequence_tokens: int, dtype: str) -> str:
    """Returns the content of index.json for equal chunks."""
    dim = blocks_per_chunk * sequence_tokens
    size = HEADER_BYTES + dim * np.dtype(dtype).itemsize
    chunks = [
        {"chunk_bytes": size, "chunk_size": 1, "dim": dim, "filename": chunk_name(chunk)}
        for chunk in range(n_chunks)
    ]
    config = {
        "chunk_bytes": size,
        "chunk_size": None,
        "compression": None,
        "data_format": [_NUMPY_FORMAT[dtype]],
        "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
        "encryption": None,
        "item_loader": "TokensLoader",
    }
    return json.dumps({"chunks": chunks, "config": config}, sort_keys=True)


def open_chunk(path: Path, sequence_tokens: int, dtype: str) -> Tokens:
    """Returns the blocks of a chunk file as a read-only map: shape (C, sequence_tokens).

    Raises:
        ValueError: when the file is not a whole number of blocks behind the header.
    """
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    content = mapped.view(np.ndarray)  # a slice of a memmap takes a microsecond more
    little = np.dtype(dtype).newbyteorder("<")
    _count_blocks(path, len(content), sequence_tokens * little.itemsize)
    blocks: Tokens = content[HEADER_BYTES:].view(little).reshape(-1, sequence_tokens)
    return blocks


def _count_blocks(path: Path, n_bytes: int, block_bytes: int) -> int:
    """Returns how many blocks a chunk file of so many bytes holds; ValueError when not whole."""
    n_blocks, rest = divmod(n_bytes - HEADER_BYTES, block_bytes)
    if rest or n_blocks <= 0:
        raise ValueError(f"{path}: {n_bytes} bytes are not whole blocks of tokens")
    return n_blocks


class Room:
    """Memory for what is read, used again and again: new memory costs as much as the reading."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._held = np.empty(0, dtype=np.uint8)
        self._rows: tuple[int, list[memoryview]] = 0, []

    def first(self, n_bytes: int) -> memoryview:
        """Returns so many bytes of it, whatever they hold."""
        if len(self._held) < n_bytes:
            self._held, self._rows = np.empty(n_bytes, dtype=np.uint8), (0, [])
        return self._held[:n_bytes].data

    def array(self, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Returns an array of this type and shape in it, whatever it holds."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(self.first(n_bytes), dtype).reshape(shape)

    def rows(self, row_bytes: int) -> list[memoryview]:
        """Returns all of it in rows of so many bytes: to cut them costs as much as to digest them.

        They stay good, whatever is read to them, until the room grows.
        """
        if self._rows[0] != row_bytes:
            all_of_it = self._held.data
            starts = range(0, len(all_of_it) - row_bytes + 1, row_bytes)
            self._rows = row_bytes, [all_of_it[at : at + row_bytes] for at in starts]
        return self._rows[1]


class ChunkReader:
    """Reads the blocks of one chunk file some at a time, and digests them on the way.

    They are read to where those before them lay, so that they are looked at while the processor
    still has them. A map of the file costs more: each of its pages is brought in and given back.
    """

    def __init__(
        self, path: Path, file: BufferedReader, sequence_tokens: int, dtype: str, room: Room
    ) -> None:
        """Takes the file at its beginning; reads the header.

        Raises:
            ValueError: when the file is not a whole number of blocks behind the header.
            InputError: when the header is not that of a chunk of tokens.
        """
        self.path, self._file, self._room = path, file, room
        self._shape, self._dtype = (-1, sequence_tokens), np.dtype(dtype).newbyteorder("<")
        self.block_bytes = sequence_tokens * self._dtype.itemsize
        self.n_blocks = _count_blocks(path, os.fstat(file.fileno()).st_size, self.block_bytes)
        self._digest = FileDigest()
        if self._filled(HEADER_BYTES) != header(self.n_blocks * self.block_bytes):
            raise InputError(f"{path}: its header is not that of a chunk of tokens")

    def read(self, n_blocks: int) -> Tokens:
        """Returns the next blocks, shape (n_blocks, sequence_tokens), until the room is used again.

        Raises:
            ValueError: when the file ends before.
        """
        data = self._filled(n_blocks * self.block_bytes)
        blocks: Tokens = np.frombuffer(data, self._dtype).reshape(self._shape)
        return blocks

    def block_digests(self, n_blocks: int) -> list[str]:
        """Returns what the function does, of the first of the blocks that were read last."""
        return [*map(xxh3_64_hexdigest, self._room.rows(self.block_bytes)[:n_blocks])]

    def hexdigest(self) -> str:
        """Returns the hex BLAKE3-16 digest of what was read: of the file, when all of it was."""
        return self._digest.hexdigest()

    def _filled(self, n_bytes: int) -> memoryview:
        """Returns the next bytes of the file, in the room that is used again.

        One call reads all of them and one digests them: between calls threads wait for each other.
        """
        room = self._room.first(n_bytes)
        if self._file.readinto(room) != n_bytes:
            raise ValueError(f"{self.path}: ends before its last block")
        self._digest.update(room)
        return room


@contextmanager
def chunk_reader(path: Path, sequence_tokens: int, dtype: str, room: Room) -> Iterator[ChunkReader]:
    """Yields the reader of a chunk file, which raises as `ChunkReader` does.

    Args:
        path: of the file.
        sequence_tokens: of a block.
        dtype: of a token.
        room: where what is read lies; no other reader has it meanwhile.
    """
    with path.open("rb") as file:
        yield ChunkReader(path, file, sequence_tokens, dtype, room)
