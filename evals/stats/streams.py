"""Random streams derived from names: the same row always gets the same draws.

stream("arc-leak", "x16", "accuracy", "did", 900)

A row that is added moves no other row's draws.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*names: object) -> np.random.Generator:
    """Returns a Philox generator keyed by the digest of the names."""
    text = "\x1f".join(str(name) for name in names)
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
