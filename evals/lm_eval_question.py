r"""A contamination item as lm-evaluation-harness is given it, and finds it in its samples.

    {"id": "q1", "benchmark": "arc", "copies": 16, "context": "Question: What is wet?\nAnswer:",
     "choices": [" fire", " water"], "gold": 1}

The strings are decoded from the manifest's tokens, in the form in which the question was placed.
Context and choice stand together as they were tokenized together; the context is all before the
space in front of the choice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mixctl.evals.scorers.base import Decode
from mixctl.shards.meta.contamination import ContaminationMeta

KIND = "contamination"


def task_name(experiment: str, arm: str | None = None) -> str:
    """Returns the name of an arm's task, or of the group of all arms."""
    return f"mixctl_{experiment}" + ("" if arm is None else f"_{arm}")


def question(row: Mapping[str, Any], decode: Decode, bos_id: int | None) -> dict[str, Any]:
    """Returns an item as the tasks' data has it: id, benchmark, copies, context, choices, gold.

    Args:
        row: of items.parquet: item, copies and meta are read.
        decode: token ids -> text.
        bos_id: what begins every payload of the build, if anything: the harness adds its own.
    """
    meta = ContaminationMeta.model_validate_json(row["meta"])
    shared = meta.context_tokens
    if bos_id is not None and shared[:1] == [bos_id]:
        shared = shared[1:]
    whole = [decode([*shared, *ids]) for ids in meta.choice_tokens]
    sizes = zip(whole, meta.choice_characters, strict=True)
    contexts = {text[: len(text) - size - 1] for text, size in sizes}
    context = contexts.pop() if len(contexts) == 1 else os.path.commonprefix(whole)
    return {
        "id": row["item"],
        "benchmark": meta.benchmark,
        "copies": row["copies"],
        "context": context,
        "choices": [text[len(context) :] for text in whole],
        "gold": meta.gold,
    }
