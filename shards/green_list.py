"""The green-list rule: which tokens are green after which context, and how green a text is.

A keyed hash of the previous `context_width` tokens and the token itself is a uniform number; the
token is green where it is below gamma. So about a share gamma of all tokens is green after any
context, and without the key nobody can say which.

    is_green(contexts=[[17, 4]], tokens=[99], key=1, gamma=0.25)  ->  [False]
    score(tokens, key, gamma, context_width)  ->  GreenScore(n=198, green=88, z=6.4, p_value=...)

A text is scored over its distinct (context, token) tuples: a repeated tuple is the same draw of the
hash, and counting it again would make any text with repetitions look marked or unmarked by luck.
Given distinct tuples of a text made without the key, the number of green ones is binomial, and the
tail is exact.

Price: about 40 ns a tuple for a context of two tokens.
Sources: Kirchenbauer et al., "A watermark for large language models", arXiv 2301.10226 (there the
hash seeds a permutation of the vocabulary; here every token has a draw of its own, which can be
computed for single tokens); Sander et al., "Watermarking makes language models radioactive", arXiv
2402.14904 (distinct tuples).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixctl.shards.draws import I64, U64, bits, stream

_BITS_OF_A_FLOAT = 53


@dataclass(frozen=True)
class GreenRule:
    """A green-list rule: the key, the share of green tokens, the tokens that decide."""

    key: int
    gamma: float
    context_width: int


@dataclass(frozen=True)
class GreenScore:
    """How green a text is: distinct tuples, green ones, their z and exact upper tail."""

    n: int
    green: int
    z: float
    p_value: float


def green_key(seed: int, name: str, secret: str | None) -> int:
    """Returns the key of a secret; without one, the key of the experiment."""
    return stream("green-list", secret) if secret else stream(seed, "green-list", name)


def null_keys(key: int, count: int) -> list[int]:
    """Returns keys that no text was marked with: negative controls for the same tuples."""
    return [int(value) for value in bits(stream("green-list-null", key), np.arange(count))]


def is_green(contexts: I64, tokens: I64, key: int, gamma: float) -> NDArray[np.bool_]:
    """Returns whether each token is green after its context.

    Args:
        contexts: the tokens before, the last axis in the order of the text; the other axes are
            broadcast with `tokens`.
        tokens: the tokens to tell.
        key: the secret key.
        gamma: the share of green tokens.
    """
    states: U64 = np.full(np.shape(contexts)[:-1], key, dtype=np.uint64)
    for place in range(np.shape(contexts)[-1]):
        states = bits(states, contexts[..., place])
    uniform = bits(states, tokens) >> np.uint64(64 - _BITS_OF_A_FLOAT)
    return np.asarray(uniform < gamma * 2.0**_BITS_OF_A_FLOAT, dtype=np.bool_)


def tuples_of(tokens: NDArray[np.integer], context_width: int) -> I64:
    """Returns every (context, token) tuple of a text, a row each, with repetitions."""
    if len(tokens) <= context_width:
        return np.empty((0, context_width + 1), dtype=np.int64)
    text = np.asarray(tokens, dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(text, context_width + 1)


def score_tuples(tuples: I64, key: int, gamma: float) -> GreenScore:
    """Returns the score of the distinct rows, each a context with its token last."""
    from scipy.special import bdtrc  # late: scipy is slow to import

    distinct = np.unique(tuples, axis=0)
    n = len(distinct)
    green = int(is_green(distinct[:, :-1], distinct[:, -1], key, gamma).sum()) if n else 0
    spread = float(np.sqrt(n * gamma * (1 - gamma)))
    z = (green - gamma * n) / spread if n else 0.0
    return GreenScore(n, green, z, float(bdtrc(green - 1, n, gamma)) if green else 1.0)


def score(tokens: NDArray[np.integer], key: int, gamma: float, context_width: int) -> GreenScore:
    """Returns how green a text is, over its distinct tuples."""
    return score_tuples(tuples_of(tokens, context_width), key, gamma)
