"""Folders at fsspec addresses: s3://bucket/run1, gs://..., hf://..., file:///...

An address is told from a path by `://`. Every problem of reaching one is an InputError that names
it. Price: one listing for the names and sizes of all files.
"""

from __future__ import annotations

from typing import Any

from mixctl.shards.errors import InputError
from mixctl.shards.files import FileDigest

_READ_BYTES = 1 << 22
_EXTRAS = {"s3": "s3fs (pip install 'mixctl[s3]')", "gs": "gcsfs", "hf": "huggingface_hub"}


def is_address(text: str) -> bool:
    """Returns whether the text is an address, not a path."""
    return "://" in text


def opened(address: str) -> tuple[Any, str]:
    """Returns (filesystem, root): the fsspec filesystem and the folder's path in it.

    Raises:
        InputError: when the scheme is unknown, or its package is not installed.
    """
    import fsspec  # a twentieth of a second, of no use where all is local

    try:
        filesystem, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        needed = _EXTRAS.get(address.partition("://")[0])
        hint = f": it needs {needed}" if needed else ""
        raise InputError(f"{address}: cannot be opened{hint} ({error})") from None
    return filesystem, root.rstrip("/")


def listing(address: str) -> dict[str, int]:
    """Returns the bytes of each file below the address, by its path from there.

    Raises:
        InputError: when the address cannot be reached.
    """
    filesystem, root = opened(address)
    filesystem.invalidate_cache()
    try:
        found = filesystem.find(root, detail=True)
    except FileNotFoundError:
        return {}
    except Exception as error:  # every client has errors of its own: no credentials, no bucket, ...
        raise InputError(f"{address}: cannot be reached ({error})") from None
    return {
        path.removeprefix(root).lstrip("/"): int(info["size"])
        for path, info in found.items()
        if info["type"] == "file"
    }


def digest_at(address: str, name: str) -> str:
    """Returns the hex BLAKE3-16 digest of a file below the address, as `files.digest_file`."""
    filesystem, root = opened(address)
    digest = FileDigest()
    with filesystem.open(f"{root}/{name}", "rb", block_size=_READ_BYTES) as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
