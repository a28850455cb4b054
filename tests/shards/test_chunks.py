"""Chunk files against litdata's own writer and reader, and against bytes counted by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from xxhash import xxh3_64

from mixctl.shards import chunks
from mixctl.shards.errors import InputError
from tests.support.slots import coded_blocks, read_slots, write_slots

DTYPES = ["uint16", "uint32"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_index_are_those_of_litdatas_own_writer(tmp_path: Path, dtype: str) -> None:
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    blocks = coded_blocks(np.arange(6), 5, 50, dtype)
    writer = BinaryWriter(str(tmp_path), chunk_bytes=2**20, item_loader=TokensLoader(5))
    for number, rows in enumerate((blocks[:3], blocks[3:])):
        writer.add_item(number, rows.ravel())
        writer.write_chunk(on_done=True)
    written = sorted(tmp_path.glob("*.bin"))
    assert [path.read_bytes() for path in written] == [
        chunks.chunk_bytes(blocks[:3]),
        chunks.chunk_bytes(blocks[3:]),
    ]
    ours = json.loads(chunks.index_text(2, 3, 5, dtype))
    theirs = {"chunks": writer._chunks_info, "config": writer.get_config()}
    for number, chunk in enumerate(theirs["chunks"]):
        chunk["filename"] = chunks.chunk_name(number)
    theirs["config"]["chunk_bytes"] = ours["config"]["chunk_bytes"]  # the writer's target size
    assert json.loads(json.dumps(theirs)) == ours


@pytest.mark.filterwarnings("ignore:The given NumPy array")
@pytest.mark.parametrize("dtype", DTYPES)
def test_stock_litdata_reads_every_block(tmp_path: Path, dtype: str) -> None:
    from litdata.streaming import StreamingDataset, TokensLoader

    from mixctl.shards.layout import Layout

    folder = write_slots(tmp_path / "train", Layout(1, 1, 3, 4), 7, base=41, dtype=dtype)
    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=7))
    assert len(dataset) == 12
    rows = [dataset[number] for number in range(12)]
    assert rows[0].dtype == np.dtype(dtype)
    assert read_slots([np.stack(rows)], base=41, dtype=dtype).tolist() == [list(range(12))]


def test_chunk_bytes_by_hand() -> None:
    small = chunks.chunk_bytes(np.array([[1, 2, 3], [4, 5, 515]], dtype=np.uint16))
    assert small.hex() == "010000000c00000018000000010002000300040005000302"
    wide = chunks.chunk_bytes(np.array([[7, 70_000]], dtype=np.uint32))
    assert wide.hex() == "010000000c000000140000000700000070110100"


@pytest.mark.parametrize("dtype", DTYPES)
def test_big_endian_and_strided_blocks_are_written_the_same(dtype: str) -> None:
    blocks = coded_blocks(np.arange(8), 5, 50, dtype)
    assert chunks.chunk_bytes(blocks.astype(blocks.dtype.newbyteorder(">"))) == chunks.chunk_bytes(
        blocks
    )
    assert chunks.chunk_bytes(np.asfortranarray(blocks)[::2]) == chunks.chunk_bytes(
        blocks[::2].copy()
    )


@pytest.mark.parametrize(("dtype", "itemsize"), [("uint16", 2), ("uint32", 4)])
def test_token_byte_finds_the_token(dtype: str, itemsize: int) -> None:
    blocks = np.arange(1, 31, dtype=dtype).reshape(6, 5) * 7
    data = chunks.chunk_bytes(blocks)
    for block in range(6):
        for offset in range(5):
            byte = int(chunks.token_byte(np.array(block), np.array(offset), 5, dtype))
            assert byte == 12 + (block * 5 + offset) * itemsize
            found = int.from_bytes(data[byte : byte + itemsize], "little")
            assert found == blocks[block, offset]


def test_token_byte_does_not_overflow_the_manifests_int32_columns() -> None:
    block, offset = np.array([400_000], dtype=np.int32), np.array([7], dtype=np.int32)
    assert chunks.token_byte(block, offset, 2049, "uint32").tolist() == [
        12 + (400_000 * 2049 + 7) * 4
    ]


def test_open_chunk_gives_back_the_blocks(tmp_path: Path) -> None:
    blocks = coded_blocks(np.arange(6), 5, 50, "uint16")
    (tmp_path / "a.bin").write_bytes(chunks.chunk_bytes(blocks))
    opened = chunks.open_chunk(tmp_path / "a.bin", 5, "uint16")
    np.testing.assert_array_equal(opened, blocks)
    with pytest.raises(ValueError):
        opened[0, 0] = 1


@pytest.mark.parametrize("cut", [1, 2, 59, 60])
def test_open_chunk_refuses_a_cut_file(tmp_path: Path, cut: int) -> None:
    whole = chunks.chunk_bytes(coded_blocks(np.arange(6), 5, 50, "uint16"))
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[:-cut])
    with pytest.raises(ValueError, match=r"cut\.bin"):
        chunks.open_chunk(path, 5, "uint16")


def test_dtype_holds_every_token_id() -> None:
    assert [chunks.token_dtype(n) for n in (50, 65_535, 65_536)] == ["uint16"] * 3
    assert chunks.token_dtype(65_537) == "uint32"


def test_names_sort_as_their_numbers() -> None:
    numbers = np.array([0, 7, 10, 99_999, 100_000, 999_999])
    names = chunks.chunk_names(numbers)
    assert names == sorted(names) and names[1] == "chunk-000007.bin"


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_a_chunk_written_in_pieces_is_the_chunk(tmp_path, dtype, monkeypatch):
    """Sizes and digests are those of the whole file, over the file as it lies on disk."""
    monkeypatch.setattr(chunks, "_WRITE_BYTES", 3 * 50 * np.dtype(dtype).itemsize)
    blocks = coded_blocks(np.arange(8), 8, 50, dtype)
    for digest_blocks in (True, False):
        written = chunks.write_chunk(tmp_path / "a.bin", blocks, digest_blocks)
        data = (tmp_path / "a.bin").read_bytes()
        assert data == chunks.chunk_bytes(blocks)
        assert written.bytes == len(data)
        assert written.digest == blake3(data).hexdigest(length=16)
        rows = np.frombuffer(data[12:], np.uint8).reshape(8, -1)
        single = [xxh3_64(row.tobytes()).hexdigest() for row in rows]
        assert written.blocks == (single if digest_blocks else [])


@pytest.mark.parametrize("n_blocks", [7, 9])
def test_a_chunk_of_more_or_fewer_blocks_than_announced_is_not_left(tmp_path, n_blocks):
    blocks = np.zeros((9, 50), dtype="<u2")
    with pytest.raises(ValueError, match=rf"{12 + n_blocks * 100} bytes were written, not 812"):
        with chunks.chunk_writer(tmp_path / "a.bin", 8 * 100) as writer:
            for row in range(n_blocks):
                writer.write(blocks[row : row + 1], digest_blocks=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_at_once", [1, 3, 8])
def test_a_chunk_read_in_pieces_is_the_chunk(tmp_path, dtype, n_at_once):
    """Blocks as they were written, and the digest of the file as it lies on disk."""
    blocks = coded_blocks(np.arange(8), 7, 50, dtype)
    (tmp_path / "a.bin").write_bytes(chunks.chunk_bytes(blocks))
    with chunks.chunk_reader(tmp_path / "a.bin", 7, dtype, chunks.Room()) as reader:
        assert (reader.n_blocks, reader.block_bytes) == (8, 7 * np.dtype(dtype).itemsize)
        for first in range(0, 8, n_at_once):
            piece = blocks[first : first + n_at_once]
            assert np.array_equal(reader.read(len(piece)), piece)
            single = [xxh3_64(row.tobytes()).hexdigest() for row in piece]
            assert reader.block_digests(len(piece)) == single
        data = (tmp_path / "a.bin").read_bytes()
        assert reader.hexdigest() == blake3(data).hexdigest(length=16)


def test_a_room_is_good_for_chunks_of_any_shape(tmp_path):
    """Larger pieces than before, smaller ones, blocks of another width; all by one room."""
    room = chunks.Room()
    for width, n_blocks in ((7, 2), (7, 6), (5, 3), (9, 6), (7, 1)):
        blocks = coded_blocks(np.arange(n_blocks), width, 50, "uint16")
        (tmp_path / "a.bin").write_bytes(chunks.chunk_bytes(blocks))
        with chunks.chunk_reader(tmp_path / "a.bin", width, "uint16", room) as reader:
            assert np.array_equal(reader.read(n_blocks), blocks)
            assert reader.block_digests(n_blocks) == chunks.block_digests(blocks)


def test_what_is_no_chunk_is_not_read(tmp_path):
    path, data = tmp_path / "a.bin", chunks.chunk_bytes(np.zeros((3, 50), dtype="<u2"))
    for wrong in (data[:-1], data + b"\0", data[:12], data[:5], b""):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{len(wrong)} bytes are not whole blocks"):
            with chunks.chunk_reader(path, 50, "uint16", chunks.Room()):
                pass
    path.write_bytes(b"\2" + data[1:])
    with pytest.raises(InputError, match="its header is not that of a chunk of tokens"):
        with chunks.chunk_reader(path, 50, "uint16", chunks.Room()):
            pass


def test_a_chunk_that_becomes_shorter_meanwhile_is_said(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(chunks.chunk_bytes(np.zeros((3, 50_000), dtype="<u2")))
    with chunks.chunk_reader(path, 50_000, "uint16", chunks.Room()) as reader:
        reader.read(1)
        os.truncate(path, 12 + 150_000)
        with pytest.raises(ValueError, match=r"a\.bin: ends before its last block"):
            reader.read(2)
