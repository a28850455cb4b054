"""Verification: does the build hold what its record says, and does the stock loader read it so?

- mix.json is canonical and carries its own digest; every file has its size, and its digest.
- litgpt.yaml trains with the geometry of the record; the installed litdata is the recorded one.
- every row of placements.parquet is where the training order says, doses are as in items.parquet,
  no two extents touch.
- the tokens at a placement's `byte` are the payload, an end-of-document token on both sides.
- train/ and control/train/ differ nowhere outside the changed ranges and replaced sequences.
- strings that must occur nowhere (verbatim) occur in no block looked at.
- the stock loader yields, batch by batch, the blocks that the training order predicts.

`full` does all of it: every byte of every file is digested, every block, placement and token of the
twin compared, and the order of every sequence asked of the stock dataset (`verify_loader.py` says
how). Otherwise chunk files are checked by size, and placements, blocks and batches by a fixed
sample, in bounded time.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.loader_process import LoaderProcess
from mixctl.shards.manifest import count_blocks, read_items, read_placements, read_replacements
from mixctl.shards.record import RECORD_NAME, BuildRecord, read_record, record_text
from mixctl.shards.verify_amendments import check_amendments
from mixctl.shards.verify_chunks import CHUNKED_PARTS, check_chunks
from mixctl.shards.verify_files import check_files, check_trainer, moved_from
from mixctl.shards.verify_manifest import check_manifest

_MOST_SHOWN = 30


@dataclass
class VerifyReport:
    """What was looked at, and what was found wrong."""

    files: int = 0
    placements: int = 0
    blocks: int = 0
    batches: int = 0
    moved_from: str | None = None
    findings: list[str] = field(default_factory=list)

    def raise_findings(self) -> None:
        """Raises VerificationError when anything is wrong."""
        if self.findings:
            rest = len(self.findings) - _MOST_SHOWN
            more = [f"... and {rest} more findings"] if rest > 0 else []
            raise VerificationError([*self.findings[:_MOST_SHOWN], *more])


def verify(build: Path, full: bool = False, loader: LoaderProcess | None = None) -> VerifyReport:
    """Returns what was looked at, when everything is as it should be.

    Args:
        build: the folder.
        full: whether every byte and the order of every sequence are looked at, not a sample.
        loader: one that has begun to import; it is closed.

    Raises:
        InputError: when the folder holds no build.
        VerificationError: with every finding, each naming file and place.
    """
    report = VerifyReport()
    record = _record(build, report)
    report.findings += check_trainer(build, record)
    findings, report.files = check_files(build, record, full, CHUNKED_PARTS)
    report.findings += findings
    report.raise_findings()
    report.moved_from = moved_from(build)
    with closing(loader or LoaderProcess()) as process:
        process.ask(build, record, full)
        _check_contents(build, record, full, report)
        findings, report.batches = process.result()
    report.findings += findings
    report.raise_findings()
    return report


def _check_contents(build: Path, record: BuildRecord, full: bool, report: VerifyReport) -> None:
    """Adds to the report what the manifest and the chunks say; raises what is found."""
    try:
        items, placements = read_items(build), read_placements(build)
        n_blocks, replacements = count_blocks(build), read_replacements(build)
    except InputError as error:
        raise VerificationError(error.problems) from None
    report.findings += check_manifest(build, record, items, placements, n_blocks)
    report.findings += check_amendments(build, record, placements)
    report.raise_findings()
    findings, report.placements, report.blocks = check_chunks(
        build, record, items, placements, replacements, full
    )
    report.findings += findings
    report.raise_findings()


def _record(build: Path, report: VerifyReport) -> BuildRecord:
    path = build / RECORD_NAME
    if not path.exists() and not (build / "manifest").exists():
        raise InputError(f"{path}: missing; {build} is not a finished build")
    try:
        record = read_record(build)
        text = path.read_text(encoding="utf-8")
    except (InputError, ValueError) as error:
        raise VerificationError([str(error)]) from None
    if text != record_text(record):
        report.findings.append(f"{path}: its content does not match its own digest")
    return record
