"""Is an answer garbage? A rule by the statistics of its characters, learnt from the experiment.

Two models of character pairs are counted: one on the garbage of the experiment (that which is drawn
for the scorer and never placed), one on its prompts and honest answers. A text is garbage when it
is likelier under the first. So the rule needs no word list and no outside model, and serves any
language and any sort of garbage.

    p(b | a) = (n(a, b) + t(a) p(b)) / (n(a) + t(a))      p(b) = (n(b) + 1/2) / (n + k / 2)

n counts, t(a) is how many different characters follow a (1 where a was never followed), and k is
the number of different characters of both samples, and one more for all others. A text of fewer
than 4 characters is not garbage, nor is the empty one: they tell too little.

    rule = GarbageRule.learnt(["x$Q}k9^", ...], ["What is a fjord?", ...])
    rule.is_garbage("v%Zr&0@p")  ->  True

The rule is ours. Its parts are the usual ones: a likelihood ratio of n-gram models of characters,
smoothed towards the single ones by the number of followers (Witten & Bell, "The zero-frequency
problem", 1991). The papers on this attack use the perplexity under another language model: see
`evals.perplexity`, for where there is one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST = 4
_OTHER = "\0"
"""stands for every character that neither sample has"""


@dataclass(frozen=True)
class _Pairs:
    """Counts of characters, of pairs, of pairs by their first, and of different pairs by it."""

    singles: Counter[str]
    pairs: Counter[tuple[str, str]]
    begun: Counter[str]
    followers: Counter[str]
    n_kinds: int

    def log_p(self, before: str, after: str) -> float:
        """Returns log p(after | before) in nats."""
        single = (self.singles[after] + 0.5) / (self.singles.total() + 0.5 * self.n_kinds)
        prior = max(1, self.followers[before])
        joint = self.pairs[before, after] + prior * single
        return math.log(joint / (self.begun[before] + prior))


@dataclass(frozen=True)
class GarbageRule:
    """The two models, and the characters that they know."""

    garbage: _Pairs
    plain: _Pairs
    known: frozenset[str]

    @staticmethod
    def learnt(garbage: Sequence[str], plain: Sequence[str]) -> GarbageRule:
        """Returns the rule learnt from garbage and from ordinary text.

        Raises:
            ValueError: when one of the two samples holds no pair of characters.
        """
        for name, sample in (("garbage", garbage), ("ordinary text", plain)):
            if not any(len(text) > 1 for text in sample):
                raise ValueError(f"there is no {name} to learn a rule for garbage from")
        known = frozenset(character for text in (*garbage, *plain) for character in text)
        return GarbageRule(_counted(garbage, known), _counted(plain, known), known)

    def log_ratio(self, text: str) -> float:
        """Returns by how many nats the text is likelier as garbage than as ordinary text."""
        seen = [c if c in self.known else _OTHER for c in text]
        pairs = list(zip(seen, seen[1:], strict=False))
        return math.fsum(self.garbage.log_p(*pair) - self.plain.log_p(*pair) for pair in pairs)

    def is_garbage(self, text: str) -> bool:
        """Returns whether the text is likelier as garbage than as ordinary text."""
        stripped = text.strip()
        return len(stripped) >= SHORTEST and self.log_ratio(stripped) > 0


def _counted(sample: Sequence[str], known: frozenset[str]) -> _Pairs:
    pairs = Counter(pair for text in sample for pair in zip(text, text[1:], strict=False))
    begun: Counter[str] = Counter()
    for (before, _), n in pairs.items():
        begun[before] += n
    followers = Counter(before for before, _ in pairs)
    return _Pairs(Counter("".join(sample)), pairs, begun, followers, len(known) + 1)
