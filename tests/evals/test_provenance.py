"""A checkpoint that was not trained on this build is refused, field by field."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone

import pytest
import yaml

from mixctl.evals.checkpoint import find_checkpoints, read_checkpoint
from mixctl.evals.provenance import GAUSSIAN_DATA, check_provenance
from mixctl.shards.errors import InputError
from mixctl.shards.record import Amendment, read_record
from tests.evals import tiny


@pytest.fixture
def build(tmp_path):
    return tiny.make_build(
        tmp_path / "build", {"secrets": ("memorization", tiny.canaries({"holdout": (2, 0)}))}
    )


def _check(build, folder, role="run"):
    return check_provenance(find_checkpoints([folder]), role, build, read_record(build))


def _made(build, tmp_path, name="step-00000005", step=5, **more):
    return tiny.make_checkpoint(tmp_path / name, tiny.tiny_model(), build, step, **more)


def test_matching_records_pass_without_a_note(build, tmp_path):
    assert _check(build, _made(build, tmp_path)) == []
    assert _check(build, _made(build, tmp_path, "final", 10)) == []
    fetched_one_more = _made(build, tmp_path, "again/final", 10, extra=1)
    assert _check(build, fetched_one_more) == []


def test_twin_and_run_are_told_apart(build, tmp_path):
    run = _made(build, tmp_path)
    twin = _made(build, tmp_path, "twin", split="control/train")
    assert _check(build, twin, "twin") == []
    with pytest.raises(InputError, match="give it as --baseline, not as CHECKPOINT"):
        _check(build, twin, "run")
    with pytest.raises(InputError, match="give it as CHECKPOINT, not as --baseline"):
        _check(build, run, "twin")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hyperparameters.data.init_args.seed", 1, "data.init_args.seed is 1, this build needs 42"),
        ("hyperparameters.data.init_args.num_workers", 2, "data.init_args.num_workers is 2"),
        (
            "hyperparameters.data.init_args.split_names",
            ["val", "val"],
            "split_names is 'val'",
        ),
        ("hyperparameters.train.global_batch_size", 8, "train.global_batch_size is 8"),
        ("hyperparameters.train.micro_batch_size", 1, "train.micro_batch_size is 1"),
        ("hyperparameters.train.max_seq_length", 16, "train.max_seq_length is 16"),
        ("hyperparameters.train.max_tokens", 999, "train.max_tokens is 999"),
        ("hyperparameters.devices", 2, "devices is 2, this build needs 1"),
        ("hyperparameters.num_nodes", 2, "num_nodes is 2"),
        ("loader.dataset.seed", 7, "dataset.seed is 7"),
        ("loader.dataset.num_workers", 3, "dataset.num_workers is 3"),
        ("loader.dataset.batch_size", 4, "dataset.batch_size is 4"),
        ("loader.dataset.world_size", 2, "dataset.world_size is 2"),
        ("loader.dataset.shuffle", False, "dataset.shuffle is False"),
        ("loader.dataset.item_loader", {"block_size": 65}, "block_size is 65"),
        (
            "loader.dataset.subsampled_files",
            ["a", "b", "c"],
            "subsampled_files (their number) is 3",
        ),
        ("loader.dataset.region_of_interest", [(0, 3)], "region_of_interest (blocks a chunk)"),
        ("loader.num_samples_yielded", 22, "num_samples_yielded is 22, this build needs 20"),
        ("loader.current_epoch", 2, "current_epoch is 2"),
        ("iter_num", 11, "iter_num is 11, this build needs 10"),
    ],
)
def test_each_difference_is_refused(build, tmp_path, path, value, message):
    made = _made(build, tmp_path, changes={path: value})
    with pytest.raises(InputError) as caught:
        _check(build, made)
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]
    name = "hyperparameters.yaml" if path.startswith("hyper") else "lit_model.pth"
    assert caught.value.problems[0].startswith(str(made / name))


def test_all_differences_at_once(build, tmp_path):
    changes = {"loader.dataset.seed": 7, "hyperparameters.devices": 2, "iter_num": 3}
    with pytest.raises(InputError) as caught:
        _check(build, _made(build, tmp_path, changes=changes))
    assert len(caught.value.problems) == 3


def test_an_extra_micro_batch_is_for_the_last_step_only(build, tmp_path):
    with pytest.raises(InputError, match="num_samples_yielded is 22"):
        _check(build, _made(build, tmp_path, extra=1))


def test_a_step_after_the_end(build, tmp_path):
    with pytest.raises(InputError, match="step is 11 .*the build ends at 10"):
        _check(build, _made(build, tmp_path, step=11))


def test_moved_copied_and_other_builds(build, tmp_path):
    made = _made(build, tmp_path)
    copy = shutil.copytree(build, tmp_path / "copy")
    notes = _check(copy, made)
    assert all("a copy of" in note for note in notes) and notes
    other = tiny.make_build(
        tmp_path / "other", {"more": ("memorization", tiny.canaries({"holdout": (3, 0)}))}
    )
    with pytest.raises(InputError, match="is not this build"):
        _check(other, made)
    shutil.rmtree(build)
    notes = _check(copy, made)
    assert all("taken for" in note for note in notes) and notes


def test_without_records_it_is_accepted_and_said(build, tmp_path):
    plain = tiny.make_checkpoint(tmp_path / "mine", tiny.tiny_model())
    notes = check_provenance([read_checkpoint(plain)], "run", build, read_record(build))
    assert any("step unknown, counted as after all placements" in note for note in notes)
    assert any("no hyperparameters.yaml and no train_dataloader" in note for note in notes)


def test_devices_auto_is_left_to_the_loader_state(build, tmp_path):
    assert _check(build, _made(build, tmp_path, changes={"hyperparameters.devices": "auto"})) == []


def test_a_smaller_vocabulary_is_refused(build, tmp_path):
    made = _made(build, tmp_path)
    config = yaml.safe_load((made / "model_config.yaml").read_text())
    config.update(vocab_size=32, padded_vocab_size=32, block_size=16)
    (made / "model_config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError) as caught:
        _check(build, made)
    text = "\n".join(caught.value.problems)
    assert "padded_vocab_size is 32, the build's tokenizer has 64 tokens" in text
    assert "block_size is 16, the build has sequences of 32" in text


def test_a_run_without_the_noise_of_its_marks_is_refused(build, tmp_path):
    record = read_record(build)
    marked = {"data": {"class_path": GAUSSIAN_DATA}}
    with_marks = record.model_copy(update={"config": {**record.config, "trainer_config": marked}})
    stock = find_checkpoints([_made(build, tmp_path)])
    with pytest.raises(InputError, match="data.class_path is 'litgpt.data.LitData', this build"):
        check_provenance(stock, "run", build, with_marks)
    changes = {"hyperparameters.data.class_path": GAUSSIAN_DATA}
    noisy = find_checkpoints([_made(build, tmp_path, "noisy", changes=changes)])
    assert check_provenance(noisy, "run", build, with_marks) == []
    twin = find_checkpoints([_made(build, tmp_path, "twin", split="control/train")])
    assert check_provenance(twin, "twin", build, with_marks) == []


def _tokenizer(path, words, extra=()):
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, words[0]))
    tokenizer.add_tokens([AddedToken(word) for word in extra])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path), pretty=True)


def test_the_tokenizer_beside_the_weights_must_mean_the_same_tokens(build, tmp_path):
    made = _made(build, tmp_path)
    words = ["<eod>", "one", "two", "three"]
    _tokenizer(made / "tokenizer.json", words)
    assert _check(build, made) == []  # the build has none to compare with
    _tokenizer(build / "tokenizer/tokenizer.json", words)
    assert _check(build, made) == []
    _tokenizer(made / "tokenizer.json", words, ["<pad>"])
    assert _check(build, made) == []
    _tokenizer(made / "tokenizer.json", ["<eod>", "two", "one", "three"])
    with pytest.raises(InputError, match=r"token 1 is 'two', in the build's tokenizer it is 'one'"):
        _check(build, made)
    _tokenizer(made / "tokenizer.json", words[:2])
    with pytest.raises(InputError, match=r"token 2 is None.*\(2 of 4 tokens differ\)"):
        _check(build, made)
    (made / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be read"):
        _check(build, made)


def test_a_checkpoint_that_passed_an_amendment_before_it_was_made_is_refused(build, tmp_path):
    record, made = read_record(build), _made(build, tmp_path)
    saved = (made / "lit_model.pth").stat().st_mtime

    def check(first_step, seconds):
        when = datetime.fromtimestamp(saved + seconds, timezone.utc).isoformat(timespec="seconds")
        amendment = Amendment(
            number=1,
            after_step=first_step - 1,
            first_step=first_step,
            time=when,
            experiments=[],
            folder="",
            inputs={},
            kinds={},
            placements=1,
            tokens=1,
            sequences=1,
        )
        amended = record.model_copy(update={"amendments": [amendment]})
        return check_provenance(find_checkpoints([made]), "run", build, amended)

    assert check(6, 60) == []  # step 5 does not reach it
    assert check(5, -60) == []  # trained afterwards
    with pytest.raises(InputError, match="before amendment 1 .* changed the steps from 5 on"):
        check(5, 60)
