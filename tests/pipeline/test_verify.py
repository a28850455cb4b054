"""Verification finds every flipped byte of every file, and says where."""

import json
import os
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixctl.pipeline.build import build
from mixctl.shards import verify_chunks, verify_loader
from mixctl.shards.chunks import block_digests, chunk_bytes, open_chunk
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_file
from mixctl.shards.manifest import write_table
from mixctl.shards.reading import read_batches
from mixctl.shards.record import read_record, write_record
from mixctl.shards.verify import verify
from mixctl.shards.verify_files import check_files
from mixctl.shards.verify_manifest import chunk_numbers, holds
from tests.support.workspace import Workspace, documents


@pytest.fixture
def copy(built, tmp_path):
    """Returns a copy of the build that says it lives where it does."""
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        text = (out / name).read_text().replace(str(built.resolve()), str(out.resolve()))
        (out / name).write_text(text)
    reseal(out)
    return out


def reseal(out):
    """Writes the digests of the files as they are into mix.json, as a forger would."""
    record = read_record(out)
    files = {
        name: file.model_copy(
            update={"bytes": (out / name).stat().st_size, "digest": digest_file(out / name)}
        )
        for name, file in record.files.items()
    }
    write_record(out, record.model_copy(update={"files": files}))


def reseal_block(out, chunk, block):
    """Writes the digest of a block as it is into the manifest, then reseals."""
    path = out / "manifest/blocks.parquet"
    rows = pq.read_table(path).to_pylist()
    (digest,) = block_digests(open_chunk(out / "train" / chunk, 65, "uint16")[block : block + 1])
    for row in rows:
        if (row["chunk"], row["block"]) == (chunk, block):
            row["digest"] = digest
    write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    reseal(out)


def flip(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(bytes(data))


def test_a_sound_build_verifies_and_everything_is_looked_at(built):
    record = read_record(built)
    report = verify(built, full=True)
    geometry = record.geometry
    assert report.files == len(record.files)
    assert report.placements == pq.read_metadata(built / "manifest/placements.parquet").num_rows
    assert report.blocks == geometry.layout().n_blocks
    per_rank = geometry.layout().n_blocks // geometry.micro_batch
    val = geometry.val_layout().n_blocks // geometry.micro_batch
    sample = verify(built)
    assert 0 < sample.batches < report.batches
    of_twin = report.batches - per_rank - val  # its order is the run's: sampled
    assert 0 < of_twin < per_rank


def test_more_workers_than_cores_are_no_warning(tmp_path):
    workspace = Workspace(tmp_path / "work")
    workspace.trainer(max_tokens=8 * 64 * 60, workers=len(os.sched_getaffinity(0)) + 2)
    build(workspace.mix(documents()), tmp_path / "build")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verify(tmp_path / "build")


def test_any_flipped_byte_of_any_file_is_found(copy):
    record = read_record(copy)
    chance = np.random.default_rng(0)
    for name in [*sorted(record.files), "mix.json"]:
        path = copy / name
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *chance.integers(0, len(whole), 3).tolist()}
        for byte in places:
            flip(path, byte)
            if name == "mix.json":
                with pytest.raises(VerificationError) as error:
                    verify(copy, full=True)
                assert "mix.json" in str(error.value)
            else:  # the part of verify that is about files; the whole is tried below
                findings, _ = check_files(copy, record, full=True)
                assert any(str(path) in finding for finding in findings), (name, byte)
            path.write_bytes(whole)


@pytest.mark.parametrize(
    "name",
    ["train/chunk-000003.bin", "val/chunk-000000.bin", "control/train/chunk-000000.bin"]
    + [
        "train/index.json",
        "manifest/placements.parquet",
        "litgpt.yaml",
        "tokenizer/tokenizer.json",
    ],
)
def test_verify_full_fails_and_names_the_file(copy, name):
    flip(copy / name, (copy / name).stat().st_size // 2)
    with pytest.raises(VerificationError, match=name.replace(".", r"\.")):
        verify(copy, full=True)


def test_missing_extra_and_truncated_files_are_named(copy):
    (copy / "train/chunk-000001.bin").unlink()
    (copy / "train/chunk-999999.bin").write_bytes(b"x")
    with (copy / "val/index.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(VerificationError) as error:
        verify(copy)
    text = str(error.value)
    assert "train/chunk-000001.bin: missing" in text
    assert "train/chunk-999999.bin: not part of the build" in text
    assert "val/index.json: has" in text


def test_a_record_that_lies_consistently_is_still_caught(copy):
    """Digests resealed after the change: only the meaning is wrong."""
    path = copy / "manifest/placements.parquet"
    table = pq.read_table(path)
    sound = table

    def tampered(column, change):
        values = sound[column].to_numpy().copy()
        values[3] += change
        number = sound.column_names.index(column)
        return sound.set_column(number, column, pa.array(values, sound.schema.field(column).type))

    for column, message in (
        ("step", "not where the training order puts its sequence"),
        ("block", "not where the training order puts its sequence"),
        ("byte", "not where the training order puts its sequence"),
        ("length", "the tokens are not the payload|leaves its sequence|totals of"),
    ):
        write_table(tampered(column, 1), path)
        reseal(copy)
        with pytest.raises(VerificationError, match=message):
            verify(copy, full=True)
    write_table(sound.slice(1), path)
    reseal(copy)
    with pytest.raises(VerificationError, match="9 copies placed, 10 asked for") as error:
        verify(copy)
    totals = read_record(copy).totals["canaries"]
    said = f"totals of 'canaries' are {totals.items} items, {totals.placements} placements, "
    said += f"{totals.tokens} tokens; the manifest has {totals.items}, {totals.placements - 1}, "
    assert said in str(error.value)


def test_a_block_too_many_and_the_first_wrong_row_are_named(copy):
    path = copy / "manifest/blocks.parquet"
    table = pq.read_table(path)
    write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    places = copy / "manifest/placements.parquet"
    rows = pq.read_table(places)
    wrong = pa.array([1] * len(rows), rows.schema.field("step").type)
    write_table(rows.set_column(rows.column_names.index("step"), "step", wrong), places)
    reseal(copy)
    with pytest.raises(VerificationError) as error:
        verify(copy)
    assert f"blocks.parquet: {len(table) + 1} rows, train/ has {len(table)} blocks" in str(
        error.value
    )
    assert "placements.parquet: row 0 (experiment 'canaries', item '" in str(error.value)
    assert " such rows)" in str(error.value)


def test_a_changed_base_token_is_found_by_the_twin(copy):
    """A byte outside every placement, with all digests resealed, differs from the control twin."""
    record = read_record(copy)
    rows = pq.read_table(copy / "manifest/placements.parquet").to_pylist()
    used = {(r["chunk"], r["block"]) for r in rows}
    chunk, block = next(
        (f"chunk-{c:06d}.bin", b)
        for c in range(3)
        for b in range(50)
        if (f"chunk-{c:06d}.bin", b) not in used
    )
    flip(copy / "train" / chunk, 12 + block * 65 * 2 + 20)
    reseal_block(copy, chunk, block)
    assert record.control
    with pytest.raises(
        VerificationError, match="differs from the twin, and nothing was placed there"
    ):
        verify(copy, full=True)


def test_a_config_for_another_topology_is_found(copy):
    text = (copy / "litgpt.yaml").read_text()
    (copy / "litgpt.yaml").write_text(text.replace("devices: 1", "devices: 2"))
    reseal(copy)
    with pytest.raises(VerificationError, match="devices is 2, the build needs 1"):
        verify(copy)


def test_swapped_chunks_are_found(copy):
    a, b = copy / "control/train/chunk-000000.bin", copy / "control/train/chunk-000001.bin"
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)
    reseal(copy)
    with pytest.raises(VerificationError, match="differs from the twin"):
        verify(copy, full=True)


def test_what_is_no_build_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="is not a finished build"):
        verify(tmp_path)
    with pytest.raises(InputError, match="is not a finished build"):
        verify(tmp_path / "nowhere")


def test_a_record_that_leads_out_of_the_build_is_refused(copy):
    raw = json.loads((copy / "mix.json").read_text())
    raw["files"]["../secret"] = {"bytes": 1, "digest": "x"}
    (copy / "mix.json").write_text(json.dumps(raw))
    with pytest.raises(VerificationError, match="leaves the build"):
        verify(copy)


def test_a_moved_build_verifies_and_says_where_it_came_from(built, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(built, moved)
    assert verify(moved).moved_from == str(built.resolve())
    assert verify(built).moved_from is None


def test_an_index_that_lists_chunks_in_another_order_is_found(copy):
    """Every byte of every chunk is as recorded, but the loader would read them in another order."""
    path = copy / "train/index.json"
    index = json.loads(path.read_text())
    index["chunks"][0], index["chunks"][1] = index["chunks"][1], index["chunks"][0]
    path.write_text(json.dumps(index, sort_keys=True))
    reseal(copy)
    with pytest.raises(VerificationError, match="train/index.json: is not the index of"):
        verify(copy)


def test_a_loader_that_reads_in_another_order_is_found(built, monkeypatch):
    def swapped(*arguments):
        first, second, *rest = read_batches(*arguments)
        yield from [second, first, *rest]

    monkeypatch.setattr(verify_loader, "read_batches", swapped)
    with pytest.raises(VerificationError, match="another micro-batch 0 than the training order"):
        verify(built)
    monkeypatch.setattr(verify_loader, "read_batches", lambda *a: list(read_batches(*a))[:-1])
    with pytest.raises(VerificationError, match="micro-batches from 0 on, 4 were expected"):
        verify(built)


def test_a_changed_base_token_beside_a_payload_is_found_by_the_twin(copy):
    """The block holds a placement; the changed token lies outside of it."""
    row = pq.read_table(copy / "manifest/placements.parquet").to_pylist()[0]
    begin, end = row["changed_offset"], row["changed_offset"] + row["changed_length"]
    offset = end + 2 if end + 2 < 65 else begin - 3
    place = 12 + 2 * (row["block"] * 65 + offset)
    flip(copy / "train" / row["chunk"], place)
    reseal_block(copy, row["chunk"], row["block"])
    with pytest.raises(VerificationError) as error:
        verify(copy, full=True)
    (finding,) = error.value.findings
    where = f"{row['chunk']}: block {row['block']}, offset {offset} differs from the twin"
    assert where in finding or "are not the payload" in finding


@pytest.mark.parametrize("piece_bytes", [1, 1000, 1 << 22])
def test_two_blocks_in_each_others_places_are_found(copy, monkeypatch, piece_bytes):
    """Of run and twin alike, with all digests of files as they are now."""
    monkeypatch.setattr(verify_chunks, "_PIECE_BYTES", piece_bytes)
    rows = pq.read_table(copy / "manifest/placements.parquet").to_pylist()
    used = {r["block"] for r in rows if r["chunk"] == "chunk-000002.bin"}
    last = read_record(copy).geometry.blocks_per_chunk - 1
    one, other = (b for b in (min({*range(last)} - used), max({*range(last + 1)} - used)))
    for part in ("train", "control/train"):
        path = copy / part / "chunk-000002.bin"
        blocks = np.array(open_chunk(path, 65, "uint16"))
        blocks[[one, other]] = blocks[[other, one]]
        path.write_bytes(path.read_bytes()[:12] + blocks.tobytes())
    reseal(copy)
    with pytest.raises(VerificationError) as error:
        verify(copy, full=True)
    said = f"train/chunk-000002.bin: block {one} does not match its digest in blocks.parquet"
    assert [one for one in error.value.findings] == [f"{copy}/{said}"]


@pytest.mark.parametrize("parts", [["train", "control/train"], ["train"], ["control/train"]])
def test_a_chunk_of_another_length_is_found(copy, parts):
    """A whole chunk file, and recorded so, without the last block of what should be there."""
    n_blocks = read_record(copy).geometry.blocks_per_chunk
    for part in parts:
        path = copy / part / "chunk-000001.bin"
        path.write_bytes(chunk_bytes(np.array(open_chunk(path, 65, "uint16")[:-1])))
    reseal(copy)
    for full in (False, True):
        with pytest.raises(VerificationError) as error:
            verify(copy, full=full)
        for part in parts:
            said = f"{part}/chunk-000001.bin: holds {n_blocks - 1} blocks, mix.json says {n_blocks}"
            assert f"{copy}/{said}" in error.value.findings


def test_names_are_compared_by_number():
    columns = {"chunk": ["chunk-000001.bin", None, "chunk-1.bin", "chunk-000000.bin"] * 2}
    half = pa.table(columns)
    table = pa.concat_tables([half, half.slice(2)])
    expected = [1, -1, -1, 0, 1, -1, -1, 0, -1, 0, 1, -1, -1, 0]
    assert chunk_numbers(table, 2).tolist() == expected
    assert chunk_numbers(table.slice(0, 0), 2).tolist() == []
    found = holds(table, "chunk", "chunk-1.bin", "other").tolist()
    assert found == [row in (2, 6, 8, 12) for row in range(14)]
    assert not holds(table, "chunk").any()
