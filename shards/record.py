"""mix.json: the record of a build, written last. No mix.json, no build.

The file is canonical JSON (sorted keys, one space of indent) and carries the digest of itself, so a
flipped byte anywhere in it is noticed, and the digest of every other file of the build.

    record = read_record(Path("out"))
    record.geometry.steps
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes, write_text
from mixctl.shards.journal import settle
from mixctl.shards.jsonfile import parse_json
from mixctl.shards.layout import Layout
from mixctl.shards.topology import Topology

FORMAT_VERSION = 3
RECORD_NAME = "mix.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Geometry(_Part):
    """What the training order depends on, and the shape of what was written."""

    max_seq_length: int
    sequence_tokens: int
    micro_batch: int
    global_batch: int
    devices: int
    nodes: int
    workers: int
    data_seed: int
    max_tokens: int
    steps: int
    sequences: int
    chunks: int
    chunks_per_worker: int
    blocks_per_chunk: int
    val_sequences: int
    val_chunks: int
    val_chunks_per_worker: int
    val_blocks_per_chunk: int
    dtype: Literal["uint16", "uint32"]
    litdata: str

    @model_validator(mode="after")
    def _fits_together(self) -> Geometry:
        """Refuses numbers of which no build can be: others are allocated and divided by."""
        topology = self.topology()
        if problems := topology.shape_problems():
            raise ValueError("; ".join(problems))
        workers = self.devices * self.nodes * max(self.workers, 1)
        expected = {
            "sequence_tokens": topology.sequence_tokens,
            "steps": topology.steps,
            "sequences": topology.sequences,
            "chunks": workers * self.chunks_per_worker,
            "val_chunks": workers * self.val_chunks_per_worker,
        }
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is {getattr(self, name)}, of the others follows {value}")
        if min(self.chunks_per_worker, self.blocks_per_chunk, self.val_chunks_per_worker) < 1:
            raise ValueError("a worker's share is less than a block")
        return self

    @classmethod
    def of(
        cls, topology: Topology, layout: Layout, val: Layout, val_sequences: int, dtype: str
    ) -> Geometry:
        """Returns the geometry of a build for a topology, with the layouts of train/ and val/."""
        return cls(
            max_seq_length=topology.max_seq_length,
            sequence_tokens=topology.sequence_tokens,
            micro_batch=topology.micro_batch,
            global_batch=topology.global_batch,
            devices=topology.devices,
            nodes=topology.nodes,
            workers=topology.workers,
            data_seed=topology.data_seed,
            max_tokens=topology.max_tokens,
            steps=topology.steps,
            sequences=topology.sequences,
            chunks=layout.n_chunks,
            chunks_per_worker=layout.chunks_per_worker,
            blocks_per_chunk=layout.blocks_per_chunk,
            val_sequences=val_sequences,
            val_chunks=val.n_chunks,
            val_chunks_per_worker=val.chunks_per_worker,
            val_blocks_per_chunk=val.blocks_per_chunk,
            dtype="uint16" if dtype == "uint16" else "uint32",
            litdata=topology.litdata,
        )

    def topology(self) -> Topology:
        """Returns the topology that the build was made for."""
        return Topology(
            devices=self.devices,
            nodes=self.nodes,
            workers=self.workers,
            micro_batch=self.micro_batch,
            global_batch=self.global_batch,
            max_seq_length=self.max_seq_length,
            max_tokens=self.max_tokens,
            data_seed=self.data_seed,
            litdata=self.litdata,
        )

    def layout(self) -> Layout:
        """Returns the chunk layout of train/ (and control/train/)."""
        return self._layout(self.chunks_per_worker, self.blocks_per_chunk)

    def val_layout(self) -> Layout:
        """Returns the chunk layout of val/."""
        return self._layout(self.val_chunks_per_worker, self.val_blocks_per_chunk)

    def _layout(self, chunks_per_worker: int, blocks_per_chunk: int) -> Layout:
        workers = max(self.workers, 1)
        return Layout(self.devices * self.nodes, workers, chunks_per_worker, blocks_per_chunk)


class TokenizerRecord(_Part):
    """The tokenizer by its content, and the explicit rule for control tokens."""

    digest: str
    vocab_size: int
    eod: str
    eod_id: int
    bos_id: int | None


class FileRecord(_Part):
    """A file of the build."""

    bytes: int
    digest: str


class Totals(_Part):
    """What an experiment took; `share` is what it changed over the tokens of the whole run."""

    items: int
    placements: int
    tokens: int
    share: float
    replaced_sequences: int = 0


class Amendment(_Part):
    """A change of the finished build: all that it was made of, and what it did.

    `first_step` is the first step that it changed; `folder` is where the sections' relative paths
    start; `inputs` are the digests of their files, by experiment, number and name.
    """

    number: int
    after_step: int
    first_step: int
    time: str
    experiments: list[dict[str, Any]]
    copies: dict[str, dict[str, int]] = {}
    folder: str
    inputs: dict[str, str]
    kinds: dict[str, int]
    placements: int
    tokens: int
    sequences: int


class _Arm(BaseModel):
    name: str
    items: int | str | None
    copies: int | None
    tokens: int | float | str | None
    share: float | str | None

    @model_validator(mode="after")
    def _has_a_dose(self) -> _Arm:
        if self.copies is self.tokens is self.share is None:
            raise ValueError("has no dose")
        return self


class _Section(BaseModel):
    name: str
    kind: str
    arms: list[_Arm]


class _Config(BaseModel):
    """What is read of the resolved mix; the rest is the mix file's."""

    chunk_bytes: PositiveInt
    trainer_config: dict[str, Any]
    experiments: list[_Section]


class BuildRecord(_Part):
    """All of mix.json."""

    format_version: int = FORMAT_VERSION
    config: dict[str, Any]
    geometry: Geometry
    tokenizer: TokenizerRecord
    engine: str = "tokenizers"
    """what encoded the base corpus; the ids do not depend on it"""
    control: bool
    corpus: dict[str, int]
    digests: dict[str, str]
    versions: dict[str, str]
    files: dict[str, FileRecord]
    totals: dict[str, Totals]
    absent: list[str] = []
    decontamination: dict[str, int] = {}
    amendments: list[Amendment] = []
    self_digest: str = ""

    @field_validator("config")
    @classmethod
    def _config_is_of_a_mix(cls, value: dict[str, Any]) -> dict[str, Any]:
        _Config.model_validate(value)
        return value

    @field_validator("files")
    @classmethod
    def _files_stay_inside(cls, value: dict[str, FileRecord]) -> dict[str, FileRecord]:
        """Refuses names that lead out of the build: they are read, copied and uploaded."""
        names = {name: PurePosixPath(name) for name in value}
        if wrong := [n for n, path in names.items() if path.is_absolute() or ".." in path.parts]:
            raise ValueError(f"file '{wrong[0]}' of the record leaves the build")
        return value


_NO_DIGEST = '\n "self_digest": ""'
"""as it stands in the text: only fields of the record itself are one space from the margin"""


def record_text(record: BuildRecord) -> str:
    """Returns the canonical text of mix.json, its own digest filled in."""
    blank = _canonical(record.model_copy(update={"self_digest": ""}))
    before, empty, after = blank.partition(_NO_DIGEST)
    return before + empty.replace('""', f'"{digest_bytes(blank.encode())}"') + after


def write_record(build: Path, record: BuildRecord) -> None:
    """Writes mix.json by atomic rename."""
    write_text(build / RECORD_NAME, record_text(record))


def read_record(build: Path) -> BuildRecord:
    """Returns the record of a finished build; an amendment that was interrupted is settled first.

    Raises:
        InputError: when mix.json is missing, is not a build record, or is of a later format, or
            when the build is being amended right now.
    """
    path = build / RECORD_NAME
    settle(build)
    try:
        return parse_record(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {build} is not a finished build") from None
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def parse_record(data: bytes, place: str) -> BuildRecord:
    """Returns the record that the bytes of a mix.json hold.

    Raises:
        InputError: naming the place, when they are no build record, or one of a later format.
    """
    try:
        raw = parse_json(data, f"{place}: not a build record")
        _check_version(place, raw)
        return BuildRecord.model_validate(raw)
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise InputError(f"{place}: not a build record ({'; '.join(places)})") from error


def _check_version(path: str, raw: dict[str, Any]) -> None:
    if raw.get("format_version") != FORMAT_VERSION:
        found = raw.get("format_version")
        raise InputError(f"{path}: format_version is {found!r}, this mixctl reads {FORMAT_VERSION}")


def _canonical(record: BuildRecord) -> str:
    plain = record.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
