"""Watermarks: which of the three scorers an experiment has is in the meta of its items.

- `green-list`: `watermark_green`.
- `strings`: `watermark_strings`.
- `gaussian`: `watermark_gaussian`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mixctl.evals.scorers.base import AnyScorer, Item
from mixctl.evals.scorers.watermark_gaussian import GaussianScorer
from mixctl.evals.scorers.watermark_green import green_scorer
from mixctl.evals.scorers.watermark_strings import string_scorer

_BY_METHOD: dict[str, Callable[[Sequence[Item]], AnyScorer]] = {
    "green-list": green_scorer,
    "strings": string_scorer,
    "gaussian": lambda items: GaussianScorer(),
}


class WatermarkScorer:
    """Knows the scorer of each method."""

    kind = "watermark"

    def scorer_of(self, items: Sequence[Item]) -> AnyScorer:
        """Returns the scorer of the items' method.

        Raises:
            ValueError: when the items name no method, several, or one that is not known.
        """
        methods = sorted({str(json.loads(item.meta).get("method")) for item in items})
        if len(methods) != 1 or methods[0] not in _BY_METHOD:
            raise ValueError(
                f"the items' method is {' and '.join(methods) or 'missing'}; it must be one of "
                f"{', '.join(_BY_METHOD)}"
            )
        return _BY_METHOD[methods[0]](items)
