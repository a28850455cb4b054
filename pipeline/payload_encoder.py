"""An encoder whose batches of item texts go through the engine of the base corpus.

What a kind makes or reads by the hundred (word problems, chats, documents, questions with their
choices) takes `tokenizers` some twenty times as long as the fast engine: 1.5% of a run as long as a
third of its base corpus. So a batch of texts is encoded by the engine that was found to agree, and
one text in ten to a hundred by `tokenizers` as well.
Where one differs, everything is done again with `tokenizers` (`prepare.py`): a build never holds
the ids of two engines. A few short texts are always encoded by `tokenizers`, and some more while
another thread still loads the fast engine.

Price: as much as encoding a tenth to a hundredth of the texts with `tokenizers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.encode import Encoder
from mixctl.pipeline.engines import compare, load_fast, loaded_fast

_FEW_CHARACTERS = 4_000
_SOME_CHARACTERS = 20_000
"""that take `tokenizers` less time than the fast engine to be loaded"""
_SAMPLED = 10, 100
"""one text of so many is encoded by `tokenizers` too, the first of each batch always: of a large
batch fewer, but at least ten"""


@dataclass(frozen=True)
class FastEncoder(Encoder):
    """An encoder of a tokenizer that the fast engine was found to agree with."""

    @classmethod
    def of(cls, encoder: Encoder) -> FastEncoder:
        """Returns the encoder with the same tokenizer and rule."""
        return cls(**encoder.__getstate__())

    def many_texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the ids of each text as `texts` does.

        Raises:
            EngineDiffers: when the fast engine fails, or differs on the sample.
        """
        n_characters = sum(map(len, texts))
        engine = loaded_fast(self.tokenizer_json)
        if n_characters < (_SOME_CHARACTERS if engine is None else _FEW_CHARACTERS):
            return self.texts(texts)
        batch = (engine or load_fast(self.tokenizer_json)).encode(texts)
        found = [batch.of(number) for number in range(len(texts))]
        least, most = _SAMPLED
        step = min(max(len(texts) // 10, least), most)
        compare(found[::step], texts[::step], self)
        return found
