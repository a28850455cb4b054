"""Stored scores are used again only when nothing that they depend on has changed."""

from __future__ import annotations

import pytest
import torch

from mixctl.evals.checkpoint import read_checkpoint
from mixctl.evals.samples import samples_key
from mixctl.evals.scorers.documents import DocumentsScorer
from tests.evals import tiny


@pytest.fixture
def folder(tmp_path):
    return tiny.make_checkpoint(tmp_path / "step-00000007", tiny.tiny_model(), step=7)


def _key(folder, items="digest", prefix=(0,), version=1, device="cpu"):
    scorer = DocumentsScorer()
    scorer.version = version
    return samples_key(read_checkpoint(folder), items, prefix, {"facts": scorer}, device)


def test_the_key_covers_everything(folder):
    first = _key(folder)
    assert _key(folder) == first
    changed = {
        _key(folder, items="other"),
        _key(folder, prefix=(0, 1)),
        _key(folder, version=2),
        _key(folder, device="cuda"),
    }
    config = folder / "model_config.yaml"
    config.write_text(config.read_text() + "# \n")
    changed.add(_key(folder))
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    state["model"]["lm_head.weight"][0, 0] += 1
    torch.save(state, folder / "lit_model.pth")
    changed.add(_key(folder))
    assert len(changed | {first}) == 7
