"""README.md of a build: a dataset card, so that the folder can be pushed to a hub as it is.

The metadata names the tables of the manifest as configurations: `load_dataset(DIR, "placements")`.
What the card says follows from the mix file and the geometry alone; numbers that an amendment
changes are left to mix.json. The licence is not ours to state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mixctl.evals.templating import environment
from mixctl.pipeline.sealing import file_record
from mixctl.shards.files import write_text
from mixctl.shards.record import BuildRecord

CARD_NAME = "README.md"
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
_SIZES |= {10**7: "1M<n<10M", 10**8: "10M<n<100M", 10**9: "100M<n<1B"}
_TABLES = ("items", "placements", "replacements", "blocks", "decontamination")


def with_card(build: Path, record: BuildRecord) -> BuildRecord:
    """Returns the record with README.md among its files, after writing it."""
    write_text(build / CARD_NAME, card(record))
    files = {**record.files, CARD_NAME: file_record(build / CARD_NAME)}
    return record.model_copy(update={"files": files})


def card(record: BuildRecord) -> str:
    """Returns the text of README.md: metadata in YAML, then markdown."""
    # markdown, of names that the mix file's rules let pass
    made = environment("mixctl.pipeline", escape=False)
    return made.get_template("card.md.j2").render(
        metadata=yaml.safe_dump(_metadata(record), sort_keys=False).strip(),
        geometry=record.geometry,
        tokenizer=record.tokenizer,
        versions=record.versions,
        control=record.control,
        experiments=[_experiment(one) for one in record.config["experiments"]],
    )


def _metadata(record: BuildRecord) -> dict[str, Any]:
    tables = [name for name in _TABLES if f"manifest/{name}.parquet" in record.files]
    n = record.geometry.sequences
    size = next((name for below, name in _SIZES.items() if n < below), "n>1T")
    return {
        "pretty_name": "mixctl build",
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": ["mixctl", "pretraining", "litdata", "litgpt"],
        "configs": [
            {"config_name": name, "data_files": f"manifest/{name}.parquet"} for name in tables
        ],
    }


def _experiment(section: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": section["name"],
        "kind": section["kind"],
        "arms": ", ".join(_arm(arm) for arm in section["arms"]) or "as its kind or its rows say",
    }


def _arm(arm: dict[str, Any]) -> str:
    """Returns an arm in words: x16 (200 items, 16 copies)."""
    doses = (
        (arm["copies"], "copies"),
        (arm["tokens"], "tokens"),
        (arm["share"], "of the run"),
    )
    dose = next(f"{value} {unit}" for value, unit in doses if value is not None)
    items = "" if arm["items"] is None else f"{arm['items']} items, "
    return f"{arm['name']} ({items}{dose})"
