"""Checkpoints: LitGPT's three files and Hugging Face's two, broken."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from mixctl.evals.checkpoint import check_weights, find_checkpoints
from mixctl.evals.huggingface import Converter
from mixctl.evals.provenance import check_provenance
from mixctl.shards.record import read_record
from tests.evals import tiny
from tests.fuzz.loop import Parse
from tests.fuzz.mixes import broken_yaml
from tests.fuzz.mutate import mutated_bytes, mutated_tree

HUGGING_FACE = Path(__file__).parents[1] / "evals/hugging_face"
NAMES = ("lit_model.pth", "model_config.yaml", "hyperparameters.yaml")


class Checkpoints:
    """A LitGPT folder with the records of its training."""

    name = "checkpoints"

    def __init__(self, folder: Path) -> None:
        made = {"facts": ("documents", tiny.documents({"holdout": (2, 0), "x2": (2, 2)}))}
        self.build = tiny.make_build(folder / "build", made)
        self.record = read_record(self.build)
        self.folder = folder / "run/step-00000005"
        tiny.make_checkpoint(self.folder, tiny.tiny_model(), self.build, 5)
        self.sound = {name: (self.folder / name).read_bytes() for name in NAMES}
        self.state = torch.load(self.folder / NAMES[0], weights_only=True)

    def broken(self, chance: random.Random) -> Parse:
        for name, data in self.sound.items():
            (self.folder / name).write_bytes(data)
        name = chance.choice((NAMES[0], *NAMES))
        path = self.folder / name
        if name != NAMES[0]:
            path.write_bytes(broken_yaml(chance, yaml.safe_load(self.sound[name])))
        elif chance.random() < 0.6:
            path.write_bytes(mutated_bytes(chance, self.sound[name]))
        else:
            torch.save(mutated_tree(chance, self.state), path)
        return self._read

    def _read(self) -> None:
        found = find_checkpoints([self.folder.parent], None, None)
        check_provenance(found, "run", self.build, self.record)
        check_weights(found)


class HuggingFace:
    """A Hugging Face folder, converted."""

    name = "hugging-face"

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder / "given", folder / "converted"
        self.sources = sorted(p.parent for p in HUGGING_FACE.glob("*/config.json"))

    def broken(self, chance: random.Random) -> Parse:
        source = chance.choice(self.sources)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        config: Any = json.loads((source / "config.json").read_text())
        weights = (source / "model.safetensors").read_bytes()
        if chance.random() < 0.5:
            config = mutated_tree(chance, config)
        else:
            weights = mutated_bytes(chance, weights)
        text = json.dumps(config, default=str).encode()
        text = mutated_bytes(chance, text) if chance.random() < 0.1 else text
        (self.folder / "config.json").write_bytes(text)
        (self.folder / "model.safetensors").write_bytes(weights)
        return self._convert

    def _convert(self) -> None:
        converter = Converter(self.out)
        try:
            check_weights(find_checkpoints([self.folder], 3, converter))
        finally:
            converter.discard()
            shutil.rmtree(self.out, ignore_errors=True)
