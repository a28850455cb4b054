"""Generation against a plain loop without cache or batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from litgpt import GPT, Config

from mixctl.evals import generation
from mixctl.evals.forward import Request, token_logprobs
from mixctl.evals.generation import Prompt, generate
from mixctl.shards.errors import InputError
from tests.evals import tiny

VARIANTS = {
    "plain": {},
    "grouped": {"n_head": 4, "n_query_groups": 2},
    "one group": {"n_head": 4, "n_query_groups": 1},
    "sliding": {"sliding_window_size": 5, "sliding_window_indices": [1, 0]},
    "capped": {"attention_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
    "half rotary": {"rotary_percentage": 0.5},
}


def _model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32}
    sizes |= {"vocab_size": tiny.VOCABULARY, "padded_vocab_size": tiny.VOCABULARY}
    model = GPT(Config(name="tiny", **{**sizes, **changes})).eval().requires_grad_(False)
    for parameter in model.parameters():  # far from ties
        if parameter.dim() > 1:
            parameter.mul_(6)
    return model


def _prompts(n=25, seed=0, **more):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 26, n)
    return [
        Prompt(
            rng.integers(0, tiny.VOCABULARY, length), int(rng.integers(1, 8)), label=f"p{length}"
        )
        for length in lengths
    ]


def _plain(model, prompt, eod_id=None):
    tokens = prompt.tokens.tolist()
    for _ in range(prompt.n_new):
        logits = model(torch.tensor([tokens]))[0, -1]
        best = int(logits.argmax())
        if best == eod_id:
            break
        tokens.append(best)
    return tokens[len(prompt.tokens) :]


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_equals_a_plain_loop(name):
    model, prompts = _model(**VARIANTS[name]), _prompts()
    expected = [_plain(model, prompt) for prompt in prompts]
    for batch_tokens in (1, 150, 16_384):
        found = generate(model, prompts, batch_tokens=batch_tokens)
        assert [[s.tolist() for s in of] for of in found] == [[e] for e in expected]
    assert all(samples[0].dtype == np.int64 for samples in found)
    assert len({tuple(e) for e in expected}) > 10  # not all the same


@pytest.mark.parametrize("name", ["plain", "capped"])
def test_ends_before_the_end_of_document_token(name):
    model, prompts = _model(**VARIANTS[name]), _prompts()
    first = [_plain(model, prompt) for prompt in prompts]
    eod = first[0][-1]
    found = generate(model, prompts, eod)
    assert [of[0].tolist() for of in found] == [_plain(model, p, eod) for p in prompts]
    assert eod not in np.concatenate([of[0] for of in found]) and len(found[0][0]) < len(first[0])


def test_the_model_is_left_as_it_was():
    model = _model()
    request = Request(np.arange(1, 30), 1)
    before = token_logprobs(model, [request])[0]
    generate(model, _prompts())
    assert model.mask_cache is None and model.transformer.h[0].attn.kv_cache is None
    assert not model.lm_head._forward_pre_hooks
    np.testing.assert_array_equal(token_logprobs(model, [request])[0], before)


def test_samples_do_not_depend_on_the_batch_or_the_company():
    model = _model()
    rng = np.random.default_rng(1)
    prompts = [
        Prompt(
            rng.integers(0, 64, int(rng.integers(1, 20))), 6, n_samples=3, temperature=0.7, seed=s
        )
        for s in range(8)
    ]
    alone = [generate(model, [prompt])[0] for prompt in prompts]
    together = generate(model, [*_prompts(5), *prompts], batch_tokens=200)[5:]
    for one, other in zip(alone, together, strict=True):
        assert [s.tolist() for s in one] == [s.tolist() for s in other]
    assert len({tuple(s) for s in alone[0]}) > 1
    reseeded = generate(model, [Prompt(prompts[0].tokens, 6, 3, 0.7, seed=99)])[0]
    assert [s.tolist() for s in reseeded] != [s.tolist() for s in alone[0]]


@pytest.mark.parametrize("name", ["plain", "grouped", "half rotary"])
def test_equal_prompts_are_read_once(name, monkeypatch):
    model = _model(**VARIANTS[name])
    alike = np.array([5, 9, 0, 0])  # the one that is shorter looks like it once it is padded
    prompts = [Prompt(alike, 6), Prompt(alike, 6, n_samples=4), *_prompts(3), Prompt(alike[:3], 6)]
    read, forward = [], model.forward
    monkeypatch.setattr(
        model, "forward", lambda tokens, *a, **k: read.append(tokens) or forward(tokens, *a, **k)
    )
    found = generate(model, prompts)
    firsts = [tokens for tokens in read if tokens.shape[1] > 1]
    assert sum(len(tokens) for tokens in firsts) == 5
    assert [s.tolist() for s in found[0]] == [_plain(model, prompts[0])]
    assert [s.tolist() for s in found[-1]] == [_plain(model, prompts[-1])]
    alone = generate(model, [prompts[1]])[0]
    assert [s.tolist() for s in found[1]] == [s.tolist() for s in alone]
    assert len({tuple(s) for s in alone}) > 1


def test_samples_follow_the_softmax_at_the_temperature():
    model = tiny.tiny_model()
    prompt = Prompt(np.array([0, 5]), 1, n_samples=20_000, temperature=2.0)
    with torch.no_grad():
        logits = model(torch.tensor([[0, 5]]))[0, -1]
    expected = torch.softmax(logits / 2.0, -1).numpy()
    drawn = np.concatenate(generate(model, [prompt])[0])
    share = np.bincount(drawn, minlength=64) / 20_000
    z = (share - expected) / np.sqrt(expected * (1 - expected) / 20_000)
    assert np.abs(z).max() < 4.5 and 0.7 < z.std() < 1.3


def test_goes_to_the_end_of_the_context_and_no_further():
    model = _model()
    long = Prompt(np.arange(1, 31), 10)
    cut = generate(model, [long, Prompt(np.arange(1, 5), 10)])
    assert len(cut[0][0]) == 3 and len(cut[1][0]) == 10
    assert cut[0][0].tolist() == _plain(model, Prompt(long.tokens, 3))


def test_what_does_not_fit_is_refused_all_at_once():
    prompts = [
        Prompt(np.zeros(0, np.int64), 1, label="empty"),
        Prompt(np.zeros(33, np.int64), 1, label="long"),
        Prompt(np.array([64]), 1, label="foreign"),
        Prompt(np.array([1]), 0, label="nothing"),
        Prompt(np.array([1]), 1, n_samples=2, temperature=0.0, label="cold"),
    ]
    with pytest.raises(InputError) as caught:
        generate(tiny.tiny_model(), prompts)
    assert [p.split(":")[0] for p in caught.value.problems] == [p.label for p in prompts]
    assert caught.value.problems[0] == "empty: an empty prompt"
    assert "33 tokens, the model's limit is 32" in caught.value.problems[1]


def test_a_broken_model_is_an_error():
    model = tiny.tiny_model()
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the model gives logits that are not finite"):
        generate(model, _prompts(2))
    assert model.mask_cache is None


def test_progress_adds_up_to_the_cost():
    prompts, seen = [*_prompts(), Prompt(np.arange(9), 4, n_samples=5)], []
    generate(tiny.tiny_model(), prompts, progress=seen.append, batch_tokens=100)
    assert sum(seen) == sum(prompt.cost for prompt in prompts) and len(seen) > 3


def test_batches_hold_everything_once_and_keep_to_the_budget():
    rows = generation._rows([*_prompts(40), Prompt(np.array([1]), 3, n_samples=9)], 32)
    batches = list(generation._batches(rows, 90, 6))
    flat = [(row.prompt, row.sample) for batch in batches for row in batch]
    assert sorted(flat) == [(row.prompt, row.sample) for row in rows]
    for batch in batches:
        width = max(len(row.tokens) + row.n_new for row in batch)
        assert len(batch) == 1 or (width * len(batch) <= 90 and len(batch) <= 6)
