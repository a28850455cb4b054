"""The tokenizer that threads load while the mix file is read."""

from __future__ import annotations

import threading

import pytest

from mixctl.injections.encode import load_encoder
from mixctl.pipeline import engines
from mixctl.pipeline.engines import FastEngine, choose_engine
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.prepare import prepare
from mixctl.pipeline.tokenizer_ahead import TokenizerAhead
from mixctl.shards.errors import InputError


@pytest.mark.parametrize("asked", [None, "tokenizers", "fast"])
def test_it_is_the_tokenizer_of_the_mix_and_the_engine_that_would_be_chosen(workspace, asked):
    with TokenizerAhead(asked) as tokenizer:
        mix = read_mix(workspace.mix(), head=tokenizer.begin)
        assert tokenizer.encoder() == load_encoder(mix.folder / mix.config.tokenizer)
        assert tokenizer.engine() == choose_engine(asked or "auto", tokenizer.encoder())
        assert tokenizer.tries_fast is (asked != "tokenizers")


def test_a_tokenizer_that_is_none_is_a_problem_among_the_others(workspace):
    (workspace.folder / "tok" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError) as error:
        prepare(workspace.mix(corpus={"path": "nowhere"}))
    assert any("tokenizer.json" in problem for problem in error.value.problems)
    assert any("nowhere" in problem for problem in error.value.problems)


def test_the_fast_engine_is_loaded_once_whoever_asks(workspace, monkeypatch):
    engines._loaded.clear()
    loaded, begin = [], FastEngine.__init__
    monkeypatch.setattr(FastEngine, "__init__", lambda *a: loaded.append(a) or begin(*a))
    encoder = load_encoder(workspace.folder / "tok")
    asked = [threading.Thread(target=engines.load_engine, args=("fast", encoder)) for _ in range(4)]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert len(loaded) == 1
