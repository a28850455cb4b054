"""What the forgetting scorer needs."""

from __future__ import annotations

from mixctl.shards.meta.base import Meta


class ForgettingMeta(Meta):
    """A batch of base data: the step that it was placed at, null where it never was."""

    step: int | None = None
