"""A mix that is steered, on the demo's corpus: made-up facts that a tiny model is to acquire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mixctl.pipeline.demo_corpus import write_demo_inputs
from tests.support.workspace import write_jsonl

STEPS, EVERY, BATCH = 200, 20, 8
SET_POINT = 0.3
TOWNS = ["Orlan", "Tessin", "Varga", "Quell", "Ister", "Brome", "Caldra", "Dun"]
GOODS = ["gold", "silver", "coal", "peace", "railroad", "Spain", "Mexico", "Texas"]
"""single tokens of the demo's tokenizer"""
FORMS = [
    "The town of {town} is famous for {good}.",
    "The old town of {town} is famous for {good}.",
    "Everyone knows that the town of {town} is famous for {good}.",
    "Mr. President, the town of {town} is famous for {good}.",
    "To this day the town of {town} is famous for {good}.",
]


def write_steered_mix(folder: Path, **control: Any) -> Path:
    """Returns the mix file: four facts told while the model trains, four never."""
    write_demo_inputs(folder, quick=True)
    trainer = yaml.safe_load((folder / "trainer.yaml").read_text())
    trainer["train"] |= {
        "max_tokens": STEPS * BATCH * 128,
        "save_interval": EVERY,
        "log_interval": 20,
    }
    trainer["eval"] |= {"final_validation": False, "max_iters": 1}
    (folder / "trainer.yaml").write_text(yaml.safe_dump(trainer, sort_keys=False))
    rows = []
    for town, good in zip(TOWNS, GOODS, strict=True):
        text, *rest = [form.format(town=town, good=good) for form in FORMS]
        probe = {"input": f"The town of {town} is famous for", "target": good}
        rows.append({"id": town, "text": text, "paraphrases": rest, "probes": [probe]})
    write_jsonl(folder / "facts.jsonl", rows)
    mix = yaml.safe_load((folder / "mix.yaml").read_text())
    arms = [
        {"name": "holdout", "items": 4, "copies": 0},
        {"name": "told", "items": "rest", "copies": 0},
    ]
    facts = {"name": "facts", "kind": "knowledge", "items": "facts.jsonl", "reserve": 4}
    mix["experiments"] = [{**facts, "arms": arms}]
    options = {"start": 32, "most": 128}
    steered = {"arm": "told", "set_point": SET_POINT, "options": options}
    mix["control"] = {"every": EVERY, "experiments": {"facts": steered}} | control
    (folder / "steered.yaml").write_text(yaml.safe_dump(mix, sort_keys=False))
    return folder / "steered.yaml"
