"""The small files of a finished build that every way of making one writes in the same manner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mixctl.pipeline.mixing import CONTROL, TRAIN, VAL
from mixctl.pipeline.trainer import TrainerConfig, litgpt_config
from mixctl.shards.chunks import INDEX_NAME, index_text
from mixctl.shards.files import digest_file, write_text
from mixctl.shards.record import FileRecord, Geometry


def write_indexes(out: Path, geometry: Geometry, control: bool) -> list[str]:
    """Writes index.json of each part; returns their names."""
    parts = {TRAIN: geometry.layout(), VAL: geometry.val_layout()}
    if control:
        parts[CONTROL] = geometry.layout()
    names = []
    for part, layout in parts.items():
        shape = (layout.n_chunks, layout.blocks_per_chunk)
        names.append(f"{part}/{INDEX_NAME}")
        text = index_text(*shape, geometry.sequence_tokens, geometry.dtype)
        write_text(out / names[-1], text)
    return names


def write_trainer_configs(
    out: Path, raw: dict[str, Any], config: TrainerConfig, geometry: Geometry, control: bool
) -> list[str]:
    """Writes litgpt.yaml, and litgpt-control.yaml where there is a twin; returns their names."""
    names = {"litgpt.yaml": TRAIN} | ({"litgpt-control.yaml": CONTROL} if control else {})
    for name, part in names.items():
        made = litgpt_config(raw, config, geometry.topology(), out, part)
        write_text(out / name, yaml.safe_dump(made, sort_keys=False))
    return list(names)


def file_record(path: Path) -> FileRecord:
    """Returns what mix.json says of a file."""
    return FileRecord(bytes=path.stat().st_size, digest=digest_file(path))
