"""What the documents scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class DocumentsMeta(Meta):
    """A document; the number of characters of its text where it came as text.

    `control_tokens` is its perturbed twin, scored beside it and never placed (empty: there is
    none); `pair` names the minimal pair that it belongs to.
    """

    n_characters: int | None = None
    control_tokens: list[int] = []
    pair: str | None = None
