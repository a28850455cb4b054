"""What the lowest layer refuses, in the words that a user reads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixctl.shards import dependence_record, manifest, marks
from mixctl.shards.addresses import listing
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.layout import Layout, train_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.permutation import permute
from mixctl.shards.record import Amendment, parse_record, record_text
from mixctl.shards.verify import VerifyReport
from mixctl.shards.verify_amendments import check_amendments
from mixctl.shards.verify_chunks import _check_blocks
from mixctl.shards.verify_twin import check_twin
from mixctl.shards.yamlfile import read_yaml
from tests.support.sample import record, topology

ORDER = TrainingOrder(topology(), Layout(2, 2, 2, 8))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ORDER.slots(np.array([-1])), r"sequences must lie in \[0, 64\)"),
        (lambda: ORDER.slots(np.array([64])), r"sequences must lie in \[0, 64\)"),
        (lambda: ORDER.sequences(np.array([8]), np.array([0])), r"slots must lie in \[0, 8\) x"),
        (lambda: permute(np.array([0, 7]), 7, 1), r"values must lie in \[0, 7\), got 0..7"),
        (
            lambda: TrainingOrder(
                topology(devices=1, workers=0, micro_batch=1, global_batch=2), Layout(1, 1, 1, 1)
            ),
            "litdata needs at least 2 blocks in a chunk",
        ),
        (
            lambda: TrainingOrder(topology(litdata="0.2.76"), Layout(2, 2, 2, 8)),
            "litdata 0.2.76 may shuffle differently: the order is proven for 0.2.59 only",
        ),
    ],
)
def test_places_that_are_none(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_share_that_no_worker_can_hold_open() -> None:
    huge = topology(max_seq_length=2**20, max_tokens=16 * 2**20 * 10**9)
    with pytest.raises(
        InputError, match="needs more than 500 chunks of .* use more workers or dev"
    ):
        train_layout(huge, 2, 2**26)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: &a [*a]", "holds itself: it has no end"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice"),
        ("a: " + "9" * 4000, "a whole number may have at most"),
        (
            "a: &a [x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join(['*' + a] * 8)}]\n"
                for a, b in itertools.pairwise("abcdefg")
            ),
            "its aliases make more than .* values of it",
        ),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(InputError, match=f"mix.yaml: .*{sentence}"):
        read_yaml(tmp_path / "mix.yaml")


def test_records_of_another_version_are_named(tmp_path: Path) -> None:
    raw = {**json.loads(record_text(record())), "format_version": 99}
    with pytest.raises(InputError, match="mix.json: format_version is 99, this mixctl reads ."):
        parse_record(json.dumps(raw).encode(), "mix.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not a record of dependence runs .Expecting property name"),
        ("[]", "not a record of dependence runs .*valid dictionary"),
        ('{"format_version": 99}', "format_version is 99, this mixctl reads 1"),
    ],
)
def test_records_of_dependence_runs(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / dependence_record.RECORD_NAME).write_text(text)
    with pytest.raises(InputError, match=f"{dependence_record.RECORD_NAME}: {sentence}"):
        dependence_record.read_dependence(tmp_path)


def test_tables_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    for name, read in (("blocks", manifest.read_blocks), ("items", manifest.read_items)):
        path = tmp_path / f"manifest/{name}.parquet"
        path.write_bytes(b"PAR1 no more")
        with pytest.raises(InputError, match=f"{name}.parquet: not a manifest table .*arquet"):
            read(tmp_path)
        pq.write_table(pa.table({"a": [1]}), path)
        with pytest.raises(InputError, match=f"{name}.parquet: not a manifest table"):
            read(tmp_path)


def _marks(build: Path, placed: list[tuple[str, int]], items: list[str]) -> None:
    """Writes a manifest of marks: (item, sequence) of each, and the items there are."""
    blank = {name: 0 for name in manifest.PLACEMENTS.names}
    blank |= {"experiment": "noise", "arm": "x", "chunk": "chunk-0-0.bin", "digest": ""}
    rows = [
        {**blank, "item": item, "sequence": sequence, "mode": "mark", "source_sequence": None}
        for item, sequence in placed
    ]
    meta = marks.GaussianMeta(
        unit="sequence", n_sequences=1, sigma=0.1, noise_seed=1, null_seeds=[2]
    )
    table = pa.Table.from_pylist(rows, schema=manifest.PLACEMENTS)
    manifest.write_table(table, build / "manifest/placements.parquet")
    row = {name: None for name in manifest.ITEMS.names} | {"experiment": "noise", "arm": "x"}
    row |= {"kind": "watermark", "stratum": "", "copies": 1, "meta": meta.model_dump_json()}
    made = [{**row, "item": item, "cluster": item} for item in items]
    table = pa.Table.from_pylist(made, schema=manifest.ITEMS)
    manifest.write_table(table, build / "manifest/items.parquet")


def test_marks_that_contradict_the_manifest(tmp_path: Path) -> None:
    _marks(tmp_path, [("a", 0), ("a", 0)], ["a"])
    with pytest.raises(InputError, match="the manifest marks sequence 0 twice"):
        marks.read_marks(tmp_path, 1)
    _marks(tmp_path, [("b", 0)], ["a"])
    with pytest.raises(InputError, match="marks of b, which is not in items.parquet"):
        marks.read_marks(tmp_path, 1)


def test_an_address_that_cannot_be_reached(monkeypatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def down(self, *arguments, **options):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "find", down)
    with pytest.raises(InputError, match=r"memory://build: cannot be reached \(no credentials\)"):
        listing("memory://build")


def test_findings_beyond_the_first_are_counted() -> None:
    report = VerifyReport(findings=[f"finding number {n}" for n in range(33)])
    with pytest.raises(VerificationError) as error:
        report.raise_findings()
    assert error.value.findings[-1] == "... and 3 more findings"


def test_an_amendment_of_steps_that_were_over() -> None:
    one = Amendment(
        number=2,
        after_step=5,
        first_step=5,
        time="2026-01-01T00:00:00+00:00",
        experiments=[],
        folder=".",
        inputs={},
        kinds={},
        placements=0,
        tokens=0,
        sequences=0,
    )
    found = check_amendments(Path("b"), record(amendments=[one.model_dump()]), _no_placements())
    assert found[:2] == [
        "b/mix.json: amendment 2 is the 1th",
        "b/mix.json: amendment 2: first_step 5 is not after step 5",
    ]


def _no_placements() -> pa.Table:
    return manifest.PLACEMENTS.empty_table()


def test_chunks_that_do_not_go_with_what_is_written_of_them() -> None:
    tokens, path = np.zeros((3, 9), np.uint16), Path("chunk-0-0.bin")
    assert _check_blocks(path, ["0"], []) == [
        "chunk-0-0.bin: blocks.parquet has no digest of its last blocks"
    ]
    assert check_twin(path, tokens, tokens[:2], _no_placements(), 0) == [
        "chunk-0-0.bin: has another size than its twin"
    ]
