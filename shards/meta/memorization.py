"""What the memorization scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class MemorizationMeta(Meta):
    """A canary: its tokens are a prefix, a suffix (the secret) and a tail (what follows it).

    The suffix is scored after the prefix; the tail is placed, but not scored. `candidates` are
    other suffixes drawn from the same space, for the exposure (with `candidates: all` every one of
    the space, the secret itself among them); `space_size` is |R|, the number of suffixes that could
    have been drawn. With suffix_length 0 the whole text is scored. `condition` says how the suffix
    was made: `none`, `whole-text`, `secret`, or kind and length, as in `random-8`.
    """

    condition: str
    prefix_length: int
    suffix_length: int
    tail_length: int = 0
    candidates: list[list[int]] = []
    space_size: float | None = None
