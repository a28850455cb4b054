"""Amendments against the manifest, and against what their sequences held before.

With a twin the comparison of run and twin covers amended sequences like any others. Without one,
manifest/before-0001.parquet, ... hold what each amendment changed; there, too, run and original may
differ only in the changed ranges of placements.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mixctl.shards.columns import arrow_column, token_values
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import before_name, read_before
from mixctl.shards.reading import read_sequences
from mixctl.shards.record import RECORD_NAME, Amendment, BuildRecord
from mixctl.shards.verify_manifest import column
from mixctl.shards.verify_twin import check_twin

_COMPARED = 4096
"""sequences that are compared at a time"""


def check_amendments(build: Path, record: BuildRecord, placements: pa.Table) -> list[str]:
    """Returns what is wrong with the amendments of a build."""
    place = build / RECORD_NAME
    findings = [
        f"{place}: amendment {one.number} is the {number}th"
        for number, one in enumerate(record.amendments, start=1)
        if one.number != number
    ]
    findings += [
        f"{place}: amendment {one.number}: first_step {one.first_step} is not after step "
        f"{one.after_step}"
        for one in record.amendments
        if one.first_step <= one.after_step
    ]
    for one in [] if record.control else record.amendments:
        try:
            findings += _check_before(build, record, placements, one)
        except InputError as error:
            findings += error.problems
    return findings


def _check_before(
    build: Path, record: BuildRecord, placements: pa.Table, amendment: Amendment
) -> list[str]:
    """Compares what an amendment changed with what stood there."""
    path, before = build / before_name(amendment.number), read_before(build, amendment.number)
    sequence = column(before, "sequence")
    if len(sequence) != amendment.sequences:
        return [f"{path}: {len(sequence)} sequences, {RECORD_NAME} says {amendment.sequences}"]
    placed = column(placements, "sequence")
    findings: list[str] = []
    for first in range(0, len(sequence), _COMPARED):
        some = sequence[first : first + _COMPARED]
        rows = placements.filter(arrow_column(np.isin(placed, some), pa.bool_()))
        block = np.searchsorted(some, column(rows, "sequence"))
        at = rows.column_names.index("block")
        rows = rows.set_column(at, "block", arrow_column(block, pa.int32()))
        tokens = before["tokens"].slice(first, len(some)).combine_chunks().flatten()
        was = token_values(tokens).reshape(len(some), -1)
        now = read_sequences(build, record.geometry, some)
        findings += check_twin(path, now, was, rows, record.tokenizer.eod_id)
    return findings
