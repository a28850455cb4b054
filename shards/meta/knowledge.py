"""What the knowledge scorer and the closed-loop control need."""

from __future__ import annotations

from typing import Literal

from mixctl.shards.meta.base import Meta

ProbeType = Literal["memorization", "semantic", "compositional"]


class Probe(Meta):
    """A text to be continued: the target's tokens after the input's.

    Both come from one tokenization of input and target, cut behind the longest token prefix that it
    shares with the input alone; so a token that merges the two belongs to the target.
    """

    id: str
    type: ProbeType
    input_tokens: list[int]
    target_tokens: list[int]


class KnowledgeMeta(Meta):
    """The probes of a fact, and the paraphrases that are kept for later: payloads as token ids."""

    probes: list[Probe]
    reserve: list[list[int]] = []
