"""Tokenizer folders of every family, tokenizer.json or tokenizer_config.json broken."""

from __future__ import annotations

import json
import random
from pathlib import Path

from mixctl.injections.encode import load_encoder
from mixctl.pipeline.engines import choose_engine
from tests.fuzz.loop import Parse
from tests.fuzz.mutate import mutated_bytes, mutated_tree
from tests.support.tokenizers import FAMILIES, write_family

TEXTS = ["", "plain words", "<|endoftext|> <s> [UNK]", "é漢\U0001f600\x00", "a" * 300]
CONFIG = {"eos_token": {"content": "<|endoftext|>", "lstrip": False}, "bos_token": "<s>"}


class Tokenizers:
    """A tokenizer that is loaded and asked for everything a build asks."""

    name = "tokenizers"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tok"
        made = [write_family(folder / name, name) for name in (*FAMILIES, "plain")]
        self.models = [json.loads((path / "tokenizer.json").read_text()) for path in made]
        self.folder.mkdir()

    def broken(self, chance: random.Random) -> Parse:
        model, config = chance.choice(self.models), CONFIG
        way = chance.random()
        if way < 0.15:
            config = mutated_tree(chance, config)
        elif way < 0.6:
            model = _mutated(chance, model)
        data = json.dumps(model, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
        if way > 0.6:
            data = mutated_bytes(chance, data)
        (self.folder / "tokenizer.json").write_bytes(data)
        (self.folder / "tokenizer_config.json").write_text(json.dumps(config, default=str))
        bos, engine = chance.random() < 0.3, chance.random() < 0.1

        def parse() -> None:
            encoder = load_encoder(self.folder, bos=bos)
            for ids in encoder.payloads(TEXTS):
                assert len(encoder.opened(ids)) == 0 or int(ids.max(initial=0)) < encoder.vocab_size
                encoder.decode(ids)
            assert len(encoder.ordinary_ids) <= encoder.vocab_size
            encoder.record()
            if engine:
                choose_engine("auto", encoder)

        return parse


def _mutated(chance: random.Random, model: object) -> object:
    """Returns the tokenizer changed outside its vocabulary mostly, which is most of the file."""
    assert isinstance(model, dict)
    if chance.random() < 0.3:
        return mutated_tree(chance, model)
    inner = {key: value for key, value in model["model"].items() if key not in ("vocab", "merges")}
    rest = mutated_tree(chance, {**model, "model": inner})
    if not isinstance(rest, dict) or not isinstance(rest.get("model"), dict):
        return rest
    big = {key: model["model"][key] for key in ("vocab", "merges") if key in model["model"]}
    return {**rest, "model": {**big, **rest["model"]}}
