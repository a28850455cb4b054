"""LitGPT's LitData without LitGPT's imports: the same lines, and nothing heavy with them."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from mixctl.shards.errors import InputError
from mixctl.shards.litgpt_data import litdata_class

PRINTED = """
import sys
from pathlib import Path
from mixctl.shards.reading import stock_loader
from tests.support.sample import topology
stock_loader(Path(sys.argv[1]), "train", topology(), 0)
print(*sorted(name for name in ("torch", "litdata", "litgpt", "lightning") if name in sys.modules))
"""


@pytest.fixture(autouse=True)
def fresh():
    """Forgets the class before and after, since it is made once a process."""
    litdata_class.cache_clear()
    yield
    litdata_class.cache_clear()


def test_its_code_is_that_of_litgpt() -> None:
    from litgpt.data import LitData

    for name, method in inspect.getmembers(LitData, inspect.isfunction):
        if name in vars(LitData) and name != "__init__":  # made by dataclass, in both
            ours, theirs = vars(litdata_class())[name].__code__, method.__code__
            for part in ("co_code", "co_names", "co_consts", "co_varnames"):
                assert getattr(ours, part) == getattr(theirs, part), name


def test_a_loader_is_made_without_lightning(tmp_path: Path) -> None:
    from mixctl.shards.layout import train_layout
    from tests.support.sample import topology
    from tests.support.slots import write_slots

    sample = topology()
    for part in ("train", "val"):
        write_slots(tmp_path / part, train_layout(sample, 2, 200), sample.sequence_tokens)
    command = [sys.executable, "-c", PRINTED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["litdata", "torch"]


def test_a_litgpt_that_is_not_there(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="litgpt is not installed: pip install"):
        litdata_class()
    spec = ModuleSpec("litgpt", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="lit_data.py: cannot be read .*: reinstall litgpt"):
        litdata_class()
