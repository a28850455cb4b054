"""Fixtures of the eval tests: one tiny study, made once."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mixctl.evals.results import Results
from mixctl.evals.run import Settings, evaluate
from tests.evals import tiny
from tests.support.browser import browser, opened  # noqa: F401 (fixtures)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Lets the process open 48 files more than it has open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = [number for number in range(4096) if not _is_open(number)][48]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Study:
    build: Path
    run: Path
    twin: Path


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Returns three experiments, a run that was taught the payloads, and a twin that was not."""
    folder = tmp_path_factory.mktemp("study")
    arms = {"holdout": (24, 0), "x2": (24, 2), "x8": (24, 8)}
    experiments = {
        "facts": ("documents", tiny.documents(arms)),
        "leak": ("contamination", tiny.questions(arms)),
        "secrets": ("memorization", tiny.canaries(arms)),
    }
    build = tiny.make_build(folder / "build", experiments)
    items = [item for _, of_kind in experiments.values() for item in of_kind]
    model = tiny.tiny_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (5, 10):
        texts = [(i.tokens, sum(s <= step for s in i.steps)) for i in items if i.steps]
        model.load_state_dict(start)
        tiny.teach(model, texts, rounds=60)
        tiny.make_checkpoint(folder / f"run/step-{step:08d}", model, build, step)
    tiny.make_checkpoint(folder / "run/final", model, build, 10, extra=1)
    noise = tiny.documents({"other": (24, 4)}, seed=99)
    twin = tiny.teach(tiny.tiny_model(), [(item.tokens, 4) for item in noise], rounds=20)
    for step in (5, 10):
        path = folder / f"twin/step-{step:08d}"
        tiny.make_checkpoint(path, twin, build, step, split="control/train")
    return Study(build, folder / "run", folder / "twin")


@pytest.fixture(scope="session")
def evaluated(
    study: Study, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Results, Path, Settings]:
    """Returns the results of the study, their folder and the settings they were had with."""
    out = tmp_path_factory.mktemp("eval") / "results"
    settings = Settings(study.build, (study.run,), out, (study.twin,))
    return evaluate(settings), out, settings
