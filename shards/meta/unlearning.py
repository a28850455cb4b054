"""What the unlearning scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class UnlearningMeta(Meta):
    """An article, for its loss and for verbatim extraction.

    The model is prompted with the first `prefix_lengths[i]` tokens of the article, and its
    continuation is compared with the `suffix_length` tokens that follow. Prefixes that leave fewer
    tokens behind are not listed.
    """

    n_characters: int | None = None
    prefix_lengths: list[int] = []
    suffix_length: int = 0
