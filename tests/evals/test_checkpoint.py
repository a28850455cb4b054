"""Finding and loading checkpoints."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from mixctl.evals import checkpoint
from mixctl.shards.errors import InputError
from tests.evals import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.make_checkpoint(tmp_path / "step-00000007", tiny.tiny_model(), step=7)


@pytest.mark.parametrize(
    "prefix", ["", "_orig_mod.", "module.", "_forward_module._orig_mod.", "module._orig_mod."]
)
def test_prefixes_are_stripped(tmp_path, prefix):
    model = tiny.tiny_model(3)
    made = tiny.make_checkpoint(tmp_path / "c", model, step=1, prefix=prefix)
    loaded = checkpoint.load_model(checkpoint.read_checkpoint(made))
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens), model(tokens))


def test_a_raw_state_dict_loads_and_takes_its_step_from_the_folder(tmp_path):
    made = tiny.make_checkpoint(tmp_path / "step-00000012", tiny.tiny_model())
    torch.save(tiny.tiny_model().state_dict(), made / "lit_model.pth")
    found = checkpoint.read_checkpoint(made)
    assert (found.step, found.step_source) == (12, "the folder's name")
    checkpoint.load_model(found)


def test_where_the_step_comes_from(tmp_path):
    recorded = tiny.make_checkpoint(tmp_path / "step-00000003", tiny.tiny_model(), step=4)
    plain = tiny.make_checkpoint(tmp_path / "mine", tiny.tiny_model())
    assert checkpoint.read_checkpoint(recorded, 9).step == 4
    assert checkpoint.read_checkpoint(plain, 9).step == 9
    assert checkpoint.read_checkpoint(plain).step is None


def test_out_dir_by_step_and_final_only_when_it_is_another_step(tmp_path):
    model = tiny.tiny_model()
    for name, step in (("step-00000002", 2), ("step-00000010", 10), ("final", 10)):
        tiny.make_checkpoint(tmp_path / "a" / name, model, step=step)
    tiny.make_checkpoint(tmp_path / "b" / "final", model, step=11)
    tiny.make_checkpoint(tmp_path / "b" / "step-00000010", model, step=10)
    (tmp_path / "a" / "logs").mkdir()
    a = checkpoint.find_checkpoints([tmp_path / "a"])
    b = checkpoint.find_checkpoints([tmp_path / "b"])
    assert [c.folder.name for c in a] == ["step-00000002", "step-00000010"]
    assert [c.folder.name for c in b] == ["step-00000010", "final"]
    twice = checkpoint.find_checkpoints([tmp_path / "a", tmp_path / "a" / "step-00000002"])
    assert len(twice) == 2


def test_problems_of_all_paths_at_once(tmp_path, folder):
    (folder / "model_config.yaml").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        checkpoint.find_checkpoints([tmp_path / "none", tmp_path / "empty", folder])
    text = "\n".join(caught.value.problems)
    assert f"{tmp_path / 'none'}: no such checkpoint folder" in text
    assert f"{tmp_path / 'empty'}: holds no checkpoint" in text
    assert f"{folder / 'model_config.yaml'}: missing (an interrupted save?)" in text


def test_what_holds_no_weights(folder):
    torch.save([1, 2], folder / "lit_model.pth")
    with pytest.raises(InputError, match="lit_model.pth: holds a list, not a state dict"):
        checkpoint.find_checkpoints([folder])


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated(folder, kept):
    path = folder / "lit_model.pth"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    said = "lit_model.pth: (truncated or corrupt|refused, it is damaged or holds more than tensors)"
    with pytest.raises(InputError, match=said):
        checkpoint.find_checkpoints([folder])


def test_flipped_byte_in_the_weights(folder):
    path = folder / "lit_model.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="corrupt, the checksum"):
        checkpoint.check_weights(checkpoint.find_checkpoints([folder]))


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, folder, legacy):
    path, target = folder / "lit_model.pth", tmp_path / "ran"
    if legacy:
        path.write_bytes(pickle.dumps({"model": _Bomb(target)}))
    else:
        torch.save({"model": _Bomb(target)}, path)
    with pytest.raises(InputError, match=r"lit_model\.pth: refused"):
        checkpoint.find_checkpoints([folder])
    assert not target.exists()


def test_code_in_the_config_is_refused(folder):
    (folder / "model_config.yaml").write_text("!!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match=r"model_config\.yaml: not valid YAML"):
        checkpoint.model_config(folder)


@pytest.mark.parametrize("text", ["[1, 2]", "name: tiny\nno_such_field: 1\n", "a: b: c"])
def test_config_that_is_none(folder, text):
    (folder / "model_config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"model_config\.yaml"):
        checkpoint.model_config(folder)


@pytest.mark.parametrize("value", ["null", "-1", "'12'", "1.5", "true", "1000000000000"])
def test_a_size_that_is_none(folder, value):
    path = folder / "model_config.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("block_size")]
    path.write_text("\n".join([*lines, f"block_size: {value}"]))
    with pytest.raises(InputError, match="block_size is .*: a size is a whole number from 1 to"):
        checkpoint.model_config(folder)


def test_weights_of_another_model(folder):
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    del state["model"]["lm_head.weight"]
    torch.save(state, folder / "lit_model.pth")
    with pytest.raises(InputError, match=r"not those of model_config\.yaml.*lm_head\.weight"):
        checkpoint.check_weights(checkpoint.find_checkpoints([folder]))


def test_weights_that_are_no_numbers_are_named(folder):
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    state["model"]["lm_head.weight"][3, 1] = float("nan")
    torch.save(state, folder / "lit_model.pth")
    with pytest.raises(InputError, match=r"weight lm_head\.weight is not finite .training div"):
        checkpoint.check_weights(checkpoint.find_checkpoints([folder]))
