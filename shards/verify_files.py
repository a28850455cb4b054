"""Files of a build against its record, the trainer configs against its geometry."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mixctl.shards.chunks import INDEX_NAME, index_text
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_mapped
from mixctl.shards.record import BuildRecord
from mixctl.shards.yamlfile import read_yaml

_PARTS = ("train", "val", "control", "manifest", "tokenizer")


def check_files(
    build: Path, record: BuildRecord, full: bool, elsewhere: tuple[str, ...] = ()
) -> tuple[list[str], int]:
    """Returns (findings, number of files looked at).

    Args:
        build: the folder.
        record: its mix.json.
        full: whether chunk files are digested, too.
        elsewhere: of which parts (`train/`) the chunk files are digested by somebody else.
    """
    findings: list[str] = []
    digested: dict[Path, str] = {}
    for name, expected in sorted(record.files.items()):
        path = build / name
        if not path.is_file():
            findings.append(f"{path}: missing")
        elif path.stat().st_size != expected.bytes:
            findings.append(
                f"{path}: has {path.stat().st_size} bytes, the record says {expected.bytes}"
            )
        elif not name.endswith(".bin") or (full and not name.startswith(elsewhere)):
            digested[path] = expected.digest
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing lets other threads work
        checked = threads.map(check_digest, digested, digested.values())
        findings += [finding for found in checked for finding in found]
    findings += _check_indexes(build, record)
    findings += [f"{build / name}: not part of the build" for name in _strangers(build, record)]
    return findings, len(record.files)


def check_digest(path: Path, expected: str) -> list[str]:
    """Returns what is wrong with the content of a file, if anything is."""
    if digest_mapped(path) == expected:
        return []
    return [f"{path}: its content does not match the digest in mix.json"]


def _check_indexes(build: Path, record: BuildRecord) -> list[str]:
    """Returns the index files that are not those of equal chunks in the order of their names."""
    geometry = record.geometry
    layouts = {"train": geometry.layout(), "val": geometry.val_layout()}
    if record.control:
        layouts["control/train"] = geometry.layout()
    found = []
    for part, layout in layouts.items():
        shape = (layout.n_chunks, layout.blocks_per_chunk)
        path = build / part / INDEX_NAME
        expected = index_text(*shape, geometry.sequence_tokens, geometry.dtype)
        if not path.is_file() or path.read_bytes() != expected.encode():
            found.append(f"{path}: is not the index of {shape[0]} chunks of {shape[1]} blocks")
    return found


def _strangers(build: Path, record: BuildRecord) -> list[str]:
    """Returns files in the build's own folders that the record does not know."""
    found = [p for part in _PARTS for p in (build / part).rglob("*") if p.is_file()]
    names = [p.relative_to(build).as_posix() for p in found]
    return sorted(set(names) - set(record.files))


def check_trainer(build: Path, record: BuildRecord) -> list[str]:
    """Returns where a config or the installed litdata differs from the record."""
    from importlib.metadata import version

    findings = []
    if version("litdata") != record.geometry.litdata:
        findings.append(
            f"litdata {version('litdata')} is installed, the build was made for "
            f"{record.geometry.litdata}: "
            f"it may shuffle differently"
        )
    splits = {"litgpt.yaml": "train"} | (
        {"litgpt-control.yaml": "control/train"} if record.control else {}
    )
    for name, split in splits.items():
        findings += _check_config(build / name, build, record, split)
    return findings


def _check_config(path: Path, build: Path, record: BuildRecord, split: str) -> list[str]:
    try:
        found = _geometry_of(read_yaml(path))
    except InputError as error:
        return error.problems
    except (KeyError, TypeError, AttributeError) as error:
        return [f"{path}: cannot be read as a LitGPT config ({error!r})"]
    geometry = record.geometry
    expected = {
        "devices": geometry.devices,
        "num_nodes": geometry.nodes,
        "train.micro_batch_size": geometry.micro_batch,
        "train.global_batch_size": geometry.global_batch,
        "train.max_tokens": geometry.max_tokens,
        "data.seed": geometry.data_seed,
        "data.num_workers": geometry.workers,
        "data.split_names": [split, "val"],
        "train.max_seq_length": geometry.max_seq_length,
    }
    return [
        f"{path}: {key} is {found[key]!r}, the build needs {value!r}"
        for key, value in expected.items()
        if found[key] != value
    ]


def moved_from(build: Path) -> str | None:
    """Returns the folder that litgpt.yaml names, when the build has been moved or copied since."""
    config = read_yaml(build / "litgpt.yaml")
    named = str(config["data"]["init_args"]["data_path"])
    return named if named != str(build.resolve()) else None


def _geometry_of(config: dict[str, Any]) -> dict[str, Any]:
    data = config["data"]["init_args"]
    return {
        "devices": config["devices"],
        "num_nodes": config.get("num_nodes", 1),
        "train.micro_batch_size": config["train"]["micro_batch_size"],
        "train.global_batch_size": config["train"]["global_batch_size"],
        "train.max_tokens": config["train"]["max_tokens"],
        "data.seed": data["seed"],
        "data.num_workers": data["num_workers"],
        "data.split_names": data["split_names"],
        "train.max_seq_length": config["train"]["max_seq_length"],
    }
