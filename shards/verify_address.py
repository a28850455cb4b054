"""Verification of a build at an fsspec address: every file is there, and is what the record says.

Names and sizes come from one listing. Files other than chunks are digested, and of the chunks a
sample spread over each part; with `full`, all of them. What the manifest and the loader say was
proven where the build was made: equal digests are equal bytes.
"""

from __future__ import annotations

from mixctl.shards.addresses import digest_at, listing, opened
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.record import RECORD_NAME, BuildRecord, parse_record, record_text
from mixctl.shards.verify import VerifyReport

SAMPLE_CHUNKS = 4
"""digested in each part"""


def verify_address(address: str, full: bool = False) -> VerifyReport:
    """Returns what was looked at, when everything is as it should be; only files are counted.

    Raises:
        InputError: when the address cannot be reached, or holds no build.
        VerificationError: with every finding.
    """
    sizes = listing(address)
    record = _record(address, sizes)
    findings = [
        f"{address}/{name}: has {sizes.get(name, 'no')} bytes, the record says {file.bytes}"
        for name, file in sorted(record.files.items())
        if sizes.get(name) != file.bytes
    ]
    known = {*record.files, RECORD_NAME}
    findings += [
        f"{address}/{name}: not part of the build" for name in sorted(sizes.keys() - known)
    ]
    names = _looked_at(record, full)
    findings += [
        f"{address}/{name}: its content does not match the digest in mix.json"
        for name in names
        if name in sizes and digest_at(address, name) != record.files[name].digest
    ]
    report = VerifyReport(files=len(names), findings=findings)
    report.raise_findings()
    return report


def _record(address: str, sizes: dict[str, int]) -> BuildRecord:
    place = f"{address}/{RECORD_NAME}"
    if RECORD_NAME not in sizes:
        raise InputError(f"{place}: missing; no finished build is there")
    filesystem, root = opened(address)
    data = filesystem.cat_file(f"{root}/{RECORD_NAME}")
    try:
        record = parse_record(data, place)
    except InputError as error:
        raise VerificationError(error.problems) from None
    if data != record_text(record).encode():
        raise VerificationError([f"{place}: its content does not match its own digest"])
    return record


def _looked_at(record: BuildRecord, full: bool) -> list[str]:
    """Returns the files that are digested."""
    if full:
        return sorted(record.files)
    chunks: dict[str, list[str]] = {}
    for name in sorted(record.files):
        if name.endswith(".bin"):
            chunks.setdefault(name.rpartition("/")[0], []).append(name)
    sampled = [name for names in chunks.values() for name in _spread(names)]
    return sorted([*sampled, *(name for name in record.files if not name.endswith(".bin"))])


def _spread(names: list[str]) -> list[str]:
    """Returns up to SAMPLE_CHUNKS names, first and last among them."""
    last, n = len(names) - 1, min(len(names), SAMPLE_CHUNKS)
    return sorted({names[last * turn // max(n - 1, 1)] for turn in range(n)})
