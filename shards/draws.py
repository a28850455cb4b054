"""Counter-based randomness: a stream per name, a value per counter, no state.

A stream is a 64-bit key made from names with blake2b; its n-th value is a mix of key and n. Whoever
knows (seed, experiment, item, copy, draw) knows the value, so adding an experiment cannot shift the
draws of another, and the values depend neither on numpy's version nor on the order of calls.

    key = stream(17, "placement", "arc-leak", "q-12")
    bits(key, np.arange(3))        # the first three values of that stream

Price: about 10 ns a value. The mixer is the finaliser of SplitMix64 (Steele, Lea & Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), applied to key and counter in turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


def stream(*names: str | int) -> int:
    """Returns the 64-bit key of the stream with these names; ('a', 'b') and ('ab',) differ."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(_part(name))
    return int.from_bytes(digest.digest(), "little")


def _part(name: str | int) -> bytes:
    """Returns the bytes that a name adds to the digest: its type, length and text."""
    part = f"{type(name).__name__[0]}{name}".encode("utf-8", "surrogatepass")
    return len(part).to_bytes(8, "little") + part


def streams(names: Sequence[str], *prefix: str | int) -> U64:
    """Returns the key of the stream (*prefix, name) for each name: uint64."""
    shared = hashlib.blake2b(digest_size=8)
    for name in prefix:
        shared.update(_part(name))
    digests = bytearray()
    for name in names:
        digest = shared.copy()
        digest.update(_part(name))
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64)


def mix(values: U64) -> U64:
    """Returns a bijective scramble of 64-bit values (SplitMix64's finaliser)."""
    return _mixed(np.array(values, dtype=np.uint64))


def _mixed(z: U64) -> U64:
    """Returns the array, scrambled in place: memory that is new costs more than the arithmetic."""
    z += _GOLDEN
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def bits(key: int | U64, counter: int | I64 | U64) -> U64:
    """Returns 64 random bits for each (key, counter), broadcast together."""
    keys = np.asarray(key, dtype=np.uint64)
    counters = np.asarray(counter).astype(np.uint64)
    z = _mixed(np.asarray(counters * _GOLDEN ^ keys))
    z += keys
    return _mixed(z)


def below(random_bits: U64, limit: int | I64) -> I64:
    """Returns floor(bits / 2^64 * limit): uniform integers in [0, limit) to within limit / 2^64.

    The 128-bit product is made of four 32-bit ones. `limit` is broadcast and must lie in [1, 2^63).
    """
    n = np.asarray(limit).astype(np.uint64)
    high, low = random_bits >> _SHIFT32, random_bits & _LOW32
    n_high, n_low = n >> _SHIFT32, n & _LOW32
    with np.errstate(over="ignore"):
        middle = high * n_low + ((low * n_low) >> _SHIFT32)
        middle_low = (middle & _LOW32) + low * n_high
        product = high * n_high + (middle >> _SHIFT32) + (middle_low >> _SHIFT32)
    return np.asarray(product, dtype=np.uint64).astype(np.int64)


def shuffled(n: int, key: int) -> I64:
    """Returns a random permutation of 0..n-1 (int64): the ranks of n draws of the stream.

    Equal draws keep their order; since among 2^32 draws they are rare, the sort need not keep it.
    """
    drawn = bits(key, np.arange(n))
    order = np.argsort(drawn)
    ranked = drawn[order]
    if (ranked[1:] == ranked[:-1]).any():
        order = np.argsort(drawn, kind="stable")
    return order.astype(np.int64)
