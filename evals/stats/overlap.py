"""How much of a reference text stands in another one: ROUGE-L recall.

ROUGE-L recall (Lin 2004) is the length of the longest common subsequence over that of the
reference. Words may be token ids, so that nothing depends on how text is cut into words.

    reference 1 2 3 4, candidate 1 9 3 4 -> 3 / 4

The subsequence is found a column at a time with the bits of one integer (Crochemore et al. 2001).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Returns the length of the longest common subsequence."""
    places: dict[Hashable, int] = {}
    for at, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << at
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        same = row & places.get(token, 0)
        row = ((row + same) | (row - same)) & full
    return len(first) - row.bit_count()


def rouge_l_recall(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> float:
    """Returns the share of the reference that is a common subsequence with the candidate.

    Raises:
        ValueError: when the reference is empty.
    """
    if not len(reference):
        raise ValueError("ROUGE-L recall needs a reference with at least one token")
    return lcs_length(reference, candidate) / len(reference)
