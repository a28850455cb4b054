"""What the verbatim scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class VerbatimMeta(Meta):
    """A token string: the first `prefix_length` tokens prompt, the other `suffix_length` follow."""

    prefix_length: int
    suffix_length: int
