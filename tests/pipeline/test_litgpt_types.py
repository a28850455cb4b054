"""What is called plain is taken by LitGPT's own parser, whatever the config says."""

import inspect
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentError, ArgumentParser
from litgpt.config import name_to_config
from litgpt.data import LitData
from litgpt.pretrain import setup

from mixctl.pipeline import litgpt_types
from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA, is_plain, known_models
from mixctl.pipeline.trainer import litgpt_config, read_topology, read_trainer
from mixctl.trainer_configs.gaussian import GaussianLitData

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("trainer_configs/*.yaml"))
VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -3, 2**40, 0.5, 1e-5, "", "a", "true", "null"]),
    st.sampled_from(["1", "1e-4", "4.0", "out/a b", "/tmp/x", "./x.y", "32-true", "bf16-mixed"]),
    st.sampled_from(["csv", "auto", "a: b", "[1]", "{}", "-", "#c", "RMSNorm", "AdamW", "LitData"]),
    st.sampled_from([[], [1], [1, "a"], {}, {"lr": 1e-3}, {"class_path": "torch.optim.AdamW"}]),
    st.text(max_size=5),
)


def parser():
    made = ArgumentParser(exit_on_error=False)
    made.add_function_arguments(setup, as_positional=False)
    return made


PARSER = parser()


def taken(config):
    """Returns whether the parser takes a config, whose folders need not be there."""
    try:
        PARSER.parse_object(config)
    except ArgumentError:
        return False
    return True


def a_config():
    data = {"data_path": "/tmp/x", "split_names": ["train", "val"], "seed": 7, "num_workers": 2}
    return {
        "model_name": "pythia-14m",
        "data": {"class_path": "LitData", "init_args": data},
        "train": {"global_batch_size": 8, "max_tokens": 1000, "max_norm": 1.0},
        "eval": {"interval": 10},
        "devices": 1,
    }


def places():
    """Returns every (section, key) that LitGPT knows, and some that it does not."""
    found = [(None, key) for key in [*inspect.signature(setup).parameters, "other"]]
    args, config = litgpt_types.litgpt_file("args"), litgpt_types.litgpt_file("config")
    sections = {
        "train": args.TrainArgs,
        "eval": args.EvalArgs,
        "log": args.LogArgs,
        "model_config": config.Config,
    }
    for section, kind in sections.items():
        found += [(section, key) for key in [*kind.__dataclass_fields__, "other"]]
    return found + [("data", key) for key in ("class_path", "init_args", "other")]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(places()), VALUES), max_size=4))
def test_the_parser_takes_whatever_is_plain(changes):
    config = a_config()
    for (section, key), value in deepcopy(changes):  # else one of VALUES comes to hold itself
        if section is None:
            config[key] = value
        elif isinstance(config.setdefault(section, {}), dict):
            config[section][key] = value
    assert taken(config) or not is_plain(config)


@pytest.mark.parametrize("place", places(), ids=lambda place: f"{place[0]}.{place[1]}")
def test_what_the_parser_refuses_is_not_plain(place):
    section, key = place
    refused = 0
    for value in ([1, "a"], {"other": 1}, "no number", -0.5, True, "a: b", None):
        config = a_config()
        (config.setdefault(section, {}) if section else config)[key] = value
        if not taken(config):
            refused += 1
            assert not is_plain(config), value
    assert refused or (section, key) == (None, "optimizer")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_that_come_with_mixctl_are_plain_and_taken(path, tmp_path):
    config, raw = read_trainer(path)
    made = litgpt_config(raw, config, read_topology(config, path), tmp_path / "b", "train")
    assert is_plain(made)
    assert taken(made)


def test_the_data_module_with_noise_is_plain_with_the_arguments_of_litdata_alone():
    config = a_config()
    config["data"]["class_path"] = GAUSSIAN_DATA
    assert is_plain(config) and taken(config)
    for more in ({"embedding": None}, {"seed": "x"}):
        other = {**config, "data": {**config["data"], "init_args": more}}
        assert not is_plain(other) and not taken(other)
    assert {f.name for f in fields(GaussianLitData) if f.init} == {
        f.name for f in fields(LitData) if f.init
    }


def test_arguments_are_those_of_litgpt_pretrain():
    assert set(litgpt_types._setup()) == set(inspect.signature(setup).parameters)


def test_models_are_those_that_litgpt_knows():
    assert known_models() == name_to_config


def test_litgpt_is_not_imported():
    code = (
        "import sys; from mixctl.pipeline.litgpt_types import is_plain\n"
        "assert is_plain({'model_name': 'pythia-14m', 'train': {'max_norm': 1.0}})\n"
        "assert not {'litgpt', 'torch', 'lightning', 'jsonargparse'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
