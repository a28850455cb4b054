"""Shared workspaces and builds; builds are made once a session and not changed."""

from pathlib import Path

import pytest

from mixctl.pipeline.build import build
from tests.support.browser import browser, opened  # noqa: F401 (fixtures)
from tests.support.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "work")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Returns a workspace that tests only add mix files and builds to."""
    return Workspace(tmp_path_factory.mktemp("shared") / "work")


@pytest.fixture(scope="session")
def built(shared) -> Path:
    """Returns a finished build with its twin, one worker."""
    out = shared.folder / "built"
    build(shared.mix(name="built.yaml"), out, control=True)
    return out
