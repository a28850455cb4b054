"""An encoder whose large batches of payloads go through the engine of the base corpus.

Payloads that a kind makes or reads by the thousand (word problems, chats, documents) take
`tokenizers` some twenty times as long as the fast engine: 1.5% of a run as long as a third of its
base corpus. So a batch of them is encoded by the engine that was found to agree, and one text in a
hundred by `tokenizers` as well.
Where one differs, everything is done again with `tokenizers` (`prepare.py`): a build never holds
the ids of two engines. So are questions that are asked by the hundred (word problems); everything
else of the items (other questions, candidates, small batches) is always encoded by `tokenizers`.

Price: as much as encoding a hundredth of the texts with `tokenizers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.encode import Encoder
from mixctl.pipeline.engines import compare, load_engine

_FEW_CHARACTERS = 50_000
_SAMPLED = 100
"""one text of so many is encoded by `tokenizers` too, the first of each batch always"""


@dataclass(frozen=True)
class FastEncoder(Encoder):
    """An encoder of a tokenizer that the fast engine was found to agree with."""

    @classmethod
    def of(cls, encoder: Encoder) -> FastEncoder:
        """Returns the encoder with the same tokenizer and rule."""
        return cls(**encoder.__getstate__())

    def many_payloads(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the ids of each text as `payloads` does.

        Raises:
            EngineDiffers: when the fast engine fails, or differs on the sample.
        """
        if sum(map(len, texts)) < _FEW_CHARACTERS:
            return self.payloads(texts)
        batch = load_engine("fast", self).encode(texts)
        found = [batch.of(number) for number in range(len(texts))]
        compare(found[::_SAMPLED], texts[::_SAMPLED], self)
        return [self.opened(ids) for ids in found]
