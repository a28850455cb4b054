"""Small made-up topologies, layouts and records that many tests share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mixctl.shards.layout import Layout
from mixctl.shards.record import BuildRecord
from mixctl.shards.topology import Topology


def topology(**changes: Any) -> Topology:
    """Returns a sound topology: 2 ranks, 20 iterations a rank, 10 steps, 160 sequences."""
    fields: dict[str, Any] = {
        "devices": 2,
        "nodes": 1,
        "workers": 2,
        "micro_batch": 4,
        "global_batch": 16,
        "max_seq_length": 8,
        "max_tokens": 16 * 8 * 10,
        "data_seed": 42,
    }
    return Topology(**(fields | changes))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Draws sound topologies small enough to enumerate every sequence."""
    devices, nodes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    micro_batch, accumulation = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    global_batch, length = devices * nodes * micro_batch * accumulation, draw(st.integers(2, 9))
    steps = draw(st.integers(2, 12))
    spill = draw(st.integers(0, global_batch * length - 1))
    return Topology(
        devices=devices,
        nodes=nodes,
        workers=draw(st.integers(0, 5)),
        micro_batch=micro_batch,
        global_batch=global_batch,
        max_seq_length=length,
        max_tokens=steps * global_batch * length + spill,
        data_seed=draw(st.integers(0, 2**32 - 1)),
    )


@st.composite
def topologies_with_layouts(draw: st.DrawFn) -> tuple[Topology, Layout]:
    """Draws a topology and any aligned layout for it, whether or not it holds the whole run."""
    made_for = draw(topologies())
    chunks, micro_batches = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    layout = Layout(
        ranks=made_for.ranks,
        workers=made_for.loader_workers,
        chunks_per_worker=chunks,
        blocks_per_chunk=max(2, micro_batches) * made_for.micro_batch,
    )
    return made_for, layout


CONFIG: dict[str, Any] = {
    "seed": 17,
    "chunk_bytes": 2**20,
    "trainer_config": {},
    "experiments": [
        {
            "name": "arc-leak",
            "kind": "contamination",
            "during": ["25%", "75%"],
            "arms": [{"name": "x4", "items": 3, "copies": 4, "tokens": None, "share": None}],
        }
    ],
}


def record(**changes: Any) -> BuildRecord:
    """Returns a small build record; `changes` replace whole fields."""
    fields: dict[str, Any] = {
        "config": CONFIG,
        "geometry": _GEOMETRY,
        "tokenizer": {
            "digest": "ab" * 16,
            "vocab_size": 50,
            "eod": "<|endoftext|>",
            "eod_id": 0,
            "bos_id": None,
        },
        "control": True,
        "corpus": {"documents": 12, "tokens": 4000},
        "digests": {"config": "cd" * 16},
        "versions": {"litdata": "0.2.59"},
        "files": {"train/index.json": {"bytes": 10, "digest": "ef" * 16}},
        "totals": {"arc-leak": {"items": 3, "placements": 5, "tokens": 40, "share": 0.0125}},
    }
    return BuildRecord.model_validate(fields | changes)


_GEOMETRY: dict[str, Any] = {
    "max_seq_length": 8,
    "sequence_tokens": 9,
    "micro_batch": 4,
    "global_batch": 16,
    "devices": 2,
    "nodes": 1,
    "workers": 0,
    "data_seed": 42,
    "max_tokens": 1280,
    "steps": 10,
    "sequences": 160,
    "chunks": 4,
    "chunks_per_worker": 2,
    "blocks_per_chunk": 44,
    "val_sequences": 16,
    "val_chunks": 2,
    "val_chunks_per_worker": 1,
    "val_blocks_per_chunk": 8,
    "dtype": "uint16",
    "litdata": "0.2.59",
}
