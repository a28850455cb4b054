"""The statistic of Gaussian marks: by hand, unseen N(0, 1), and shifted where the noise was met."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from mixctl.evals.scorers import watermark_gaussian
from mixctl.evals.scorers.base import Item
from mixctl.evals.scorers.watermark_gaussian import GaussianScorer
from mixctl.shards.meta import GaussianMeta
from tests.evals import tiny

SIGMA = 0.3
WIDTH = tiny.CONFIG.n_embd


def _mark(seed, sequences, null_seeds=(), n_sequences=None):
    meta = GaussianMeta(
        unit="sequence" if len(sequences) == 1 else "batch",
        n_sequences=n_sequences or len(sequences),
        sigma=SIGMA,
        noise_seed=seed,
        null_seeds=list(null_seeds),
    )
    length = sequences.shape[1]
    return Item("noise", f"m{seed}", sequences.reshape(-1), meta.model_dump_json(), length)


def _sequences(n, length=17, seed=0):
    return np.random.default_rng(seed).integers(1, tiny.VOCABULARY, (n, length))


def _noise(seed, row, inputs):
    """Returns the noise as the docstring of GaussianMeta has it."""
    key = np.array([seed, row], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return SIGMA * generator.standard_normal((inputs, WIDTH), dtype="float32")


def _measure(model, *items):
    return GaussianScorer().measure(model, items, [0])


def _x(model, *items):
    return np.array([score.values["noise_alignment"] for score in _measure(model, *items)])


def _slope(model, sequence):
    """Returns the gradient of the log-likelihood by finite differences, in float64."""
    tokens = torch.from_numpy(sequence)
    clean = model.transformer.wte.weight.detach()[tokens[:-1]]
    nudge = 1e-5 * torch.eye(clean.numel(), dtype=torch.float64).reshape(-1, *clean.shape)
    sums = []
    for moved in (clean + nudge, clean - nudge):
        hook = model.transformer.wte.register_forward_hook(lambda *_, moved=moved: moved)
        logs = model(tokens[:-1].repeat(len(moved), 1)).log_softmax(-1)
        hook.remove()
        sums.append(logs.gather(2, tokens[1:].repeat(len(moved), 1)[..., None]).sum((1, 2)))
    return ((sums[0] - sums[1]) / 2e-5).reshape(clean.shape).numpy()


def test_x_is_that_of_finite_differences():
    model, sequences = tiny.tiny_model(3).requires_grad_(False), _sequences(2, 6)
    (score,) = _measure(model, _mark(7, sequences, [8, 9]))
    double = copy.deepcopy(model).double()
    slopes = [_slope(double, sequence) for sequence in sequences]
    along = sum((slope * _noise(7, row, 5)).sum() for row, slope in enumerate(slopes))
    norm = math.sqrt(sum((slope**2).sum() for slope in slopes))
    assert score.values["noise_alignment"] == pytest.approx(along / SIGMA / norm, abs=1e-3)
    nulls = [(slopes[0] * _noise(seed, 0, 5)).sum() for seed in (8, 9)]
    control = np.mean(nulls) / SIGMA / np.linalg.norm(slopes[0])
    assert score.values["control_alignment"] == pytest.approx(control, abs=1e-3)
    tokens = torch.from_numpy(sequences)
    logs = model(tokens[:, :-1]).log_softmax(-1)
    assert score.loglikelihood == pytest.approx(
        float(logs.gather(2, tokens[:, 1:, None]).sum()), abs=1e-3
    )
    assert score.n_tokens == 10


def test_unseen_noise_is_standard_normal():
    """Of a trained model, so that the gradients are those of texts that it knows."""
    sequences = _sequences(8)
    model = tiny.teach(tiny.tiny_model(), [(row.tolist(), 1) for row in sequences], rounds=20)
    marks = [_mark(seed, sequences[seed % 8][None], range(900, 916)) for seed in range(300)]
    scores = _measure(model, *marks)
    x = [score.values["noise_alignment"] for score in scores]
    assert stats.kstest(x, "norm").pvalue > 0.05
    assert abs(np.mean(x)) < 3 / math.sqrt(300) and abs(np.std(x) - 1) < 0.12
    share = np.mean([score.values["detected"] for score in scores])
    assert share == np.mean(np.array(x) > stats.norm.ppf(0.99)) < 0.03
    control = {score.values["control_alignment"] for score in scores}
    assert len(control) == 8 and max(map(abs, control)) < 4 / math.sqrt(16)


def _train(sequences, seeds, rounds=12):
    """Returns a model trained on the sequences, each with the noise of its seed."""
    model, tokens = tiny.tiny_model(1), torch.from_numpy(sequences)
    noise = torch.from_numpy(np.stack([_noise(s, 0, sequences.shape[1] - 1) for s in seeds]))
    hook = model.transformer.wte.register_forward_hook(lambda m, a, output: output + noise)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(rounds):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hook.remove()
    return model.eval().requires_grad_(False)


def test_noise_that_was_trained_with_is_found():
    sequences, seeds = _sequences(32), range(100, 132)
    model = _train(sequences, seeds)
    met = _x(model, *[_mark(s, row[None]) for s, row in zip(seeds, sequences, strict=True)])
    held = _x(model, *[_mark(s + 50, row[None]) for s, row in zip(seeds, sequences, strict=True)])
    assert met.mean() > 1 and stats.ttest_1samp(met, 0, alternative="greater").pvalue < 1e-8
    assert abs(held.mean()) < 3 / math.sqrt(32)
    before = _x(tiny.tiny_model(1), *[_mark(s, sequences[s - 100][None]) for s in seeds])
    assert abs(before.mean()) < 3 / math.sqrt(32)


def test_a_mark_of_many_sequences_is_one_vector_however_it_is_batched(monkeypatch):
    model, sequences = tiny.tiny_model(), _sequences(5)
    (whole,) = _x(model, _mark(7, sequences))
    monkeypatch.setattr(watermark_gaussian, "_MAX_BATCH_TOKENS", 1)
    (alone,) = _x(model, _mark(7, sequences))
    assert alone == pytest.approx(whole, abs=1e-4)
    (reversed_rows,) = _x(model, _mark(7, sequences[::-1].copy()))
    assert abs(reversed_rows - whole) > 1e-2


def test_marks_without_sequences_borrow_them_in_turn():
    model, sequences = tiny.tiny_model(), _sequences(4)
    placed = [_mark(seed, rows) for seed, rows in ((1, sequences[:2]), (2, sequences[2:]))]
    held = [replace(_mark(seed, sequences[:2], [5]), tokens=np.zeros(0)) for seed in (3, 4, 6)]
    scores = _measure(model, held[0], placed[0], held[1], placed[1], held[2])
    alone = [
        _mark(3, sequences[:2], [5]),
        placed[0],
        _mark(4, sequences[2:], [5]),
        placed[1],
        _mark(6, sequences[:2], [5]),
    ]
    for score, item in zip(scores, alone, strict=True):
        assert score == _measure(model, item)[0]
    with pytest.raises(ValueError, match="no mark has sequences"):
        _measure(model, *held)
    assert _measure(model) == []


def test_the_model_is_left_as_it_was():
    model = tiny.tiny_model().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _measure(model, _mark(7, _sequences(2)))
    assert not model.transformer.wte._forward_hooks
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_in_bfloat16_give_nearly_the_same():
    model, mark = tiny.tiny_model(), _mark(7, _sequences(3))
    exact = _x(model, mark)
    assert _x(model.to(torch.bfloat16), mark) == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (_mark(7, _sequences(2), n_sequences=3), "34 tokens are not 3 sequences of 17"),
        (_mark(7, _sequences(1, 34)), "33 tokens to read, the model's limit is 32"),
        (_mark(7, _sequences(1, 1)), "are not 1 sequences of 1"),
    ],
)
def test_marks_that_cannot_be_read_are_errors(mark, message):
    with pytest.raises(ValueError, match=f"experiment noise, item m7: .*{message}"):
        _measure(tiny.tiny_model(), mark)


def test_a_model_without_a_gradient_is_an_error():
    model = tiny.tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    with pytest.raises(ValueError, match="m7: the model's gradient is zero"):
        _measure(model, _mark(7, _sequences(1), [1]))
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        _measure(model, _mark(7, _sequences(1)))


def test_the_marks_of_an_arm_together():
    x = np.array([1.0, 2.0, np.nan, 3.0])
    (found,) = GaussianScorer().pooled({"noise_alignment": x})
    assert (found.metric, found.estimate, found.n) == ("noise_test", 2.0, 3)
    assert found.p_value == pytest.approx(stats.norm.sf(6 / math.sqrt(3)))
    assert GaussianScorer().pooled({"noise_alignment": x[2:3]}) == []
