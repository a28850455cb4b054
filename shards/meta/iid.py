"""What the iid scorer needs."""

from __future__ import annotations

from typing import Literal

from mixctl.shards.meta.base import Meta


class IidMeta(Meta):
    """A sequence of base data that is placed (again).

    `spare` is base data that the run holds nowhere else; `selected` is the base data of `sequence`
    of the run, which so is seen there and once more for every copy.
    """

    source: Literal["spare", "selected"]
    sequence: int | None = None
