"""Verbatim extraction, shared by the kinds that place texts: does a prefix bring out what follows?

The model is prompted with the first k tokens of a text and continues greedily. Two values for every
k: `exact_k`, whether the next m tokens are exactly the text's (k-extractability, Carlini et al.
2023), and `rouge_l_k`, their ROUGE-L recall on token ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixctl.evals.generation import Prompt
from mixctl.evals.scorers.base import IntArray, Item, Metric
from mixctl.evals.stats.overlap import rouge_l_recall

METRICS = (Metric("exact_*", share=True), Metric("rouge_l_*"))


def extraction_prompts(
    item: Item, prefix: Sequence[int], lengths: Sequence[int], n_new: int
) -> list[Prompt]:
    """Returns a greedy prompt for each prefix length.

    Raises:
        ValueError: when the item is too short for one of them.
    """
    label = f"experiment {item.experiment}, item {item.name}"
    tokens = item.tokens
    if lengths and (min(lengths) < 1 or n_new < 1 or max(lengths) + n_new > len(tokens)):
        raise ValueError(
            f"{label}: {len(tokens)} tokens do not hold prefixes of {list(lengths)} tokens and "
            f"{n_new} that follow"
        )
    return [
        Prompt(np.concatenate([np.array(prefix, np.int64), tokens[:length]]), n_new, label=label)
        for length in lengths
    ]


def extraction_values(
    item: Item, lengths: Sequence[int], n_new: int, outputs: Sequence[Sequence[IntArray]]
) -> dict[str, float]:
    """Returns exact_k and rouge_l_k for each prefix length from the continuations."""
    tokens = item.tokens
    values = {}
    for length, samples in zip(lengths, outputs, strict=True):
        wanted = tokens[length : length + n_new].tolist()
        made = samples[0].tolist()
        values[f"exact_{length}"] = float(made == wanted)
        values[f"rouge_l_{length}"] = rouge_l_recall(wanted, made)
    return values
