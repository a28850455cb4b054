"""The audit of the pinned dependencies: no database is no clean bill, a finding fails."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = {"name": "click", "version": "8.3.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE = {
    "name": "jinja2",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": []}],
}


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_audit", ROOT / ".ci/audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ([CLEAN], 0, "pypi: 1 of 1 pinned packages audited, 0 findings"),
        ([CLEAN, SKIPPED], 0, "NOT AUDITED: torch: Dependency not found on PyPI"),
        ([CLEAN, VULNERABLE], 1, "VULNERABLE: jinja2 2.0: PYSEC-2019-217, mended in 2.10.1"),
        (None, 0, "NOT AUDITED: no advisory database was reached (pypi, osv)."),
    ],
)
def test_what_is_said_and_how_it_ends(audit, capsys, said, code, words) -> None:
    assert audit.audit(False, lambda service: said) == code
    assert words in capsys.readouterr().out


def test_a_release_needs_a_database(audit) -> None:
    assert audit.audit(True, lambda service: None) == 1


def test_the_other_database_is_asked(audit, capsys) -> None:
    assert audit.audit(True, lambda service: [CLEAN] if service == "osv" else None) == 0
    assert "osv: 1 of 1 pinned" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("printed", "reached"),
    [
        ({"dependencies": [CLEAN, VULNERABLE], "fixes": []}, True),
        ({"dependencies": [SKIPPED, SKIPPED], "fixes": []}, False),
        ("Traceback (most recent call last): ...", False),
        ("", False),
    ],
)
def test_an_answer_is_told_from_none(audit, monkeypatch, printed: Any, reached: bool) -> None:
    text = printed if isinstance(printed, str) else json.dumps(printed)
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: SimpleNamespace(stdout=text))
    assert (audit.asked("pypi") is not None) == reached
