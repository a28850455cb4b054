"""What may import what: the light start of the command line, and the direction of dependencies."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.workspace import Workspace

ROOT = Path(__file__).parents[1]
PACKAGES = ("shards", "injections", "pipeline", "evals")
ALLOWED = {
    "shards": {"shards"},
    "injections": {"injections", "shards"},
    "pipeline": set(PACKAGES) | {"trainer_configs"},
    "evals": {"evals", "shards"},
}
HEAVY = (
    "torch",
    "datatrove",
    "litgpt",
    "litdata",
    "lightning",
    "transformers",
    "scipy",
    "matplotlib",
)

START = """
import sys
from mixctl.pipeline.cli import main
sys.argv = ["mixctl", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("\\n" + " ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""

BUILD = """
import sys
from pathlib import Path
from mixctl.pipeline.build import build
if __name__ == "__main__":
    assert build(Path(sys.argv[1]), Path(sys.argv[2]), control=True, workers=1).files
    print("loaded:", *(name for name in ("numpy", "pandas") if name in sys.modules))
"""

VERIFY = """
import sys
from pathlib import Path
from mixctl.shards.verify import verify
if __name__ == "__main__":
    report = verify(Path(sys.argv[1]), full=sys.argv[2] == "full")
    print(report.batches, *(name for name in ("torch", "litdata", "pandas") if name in sys.modules))
"""


def imported_packages(source: str, package: str) -> set[str]:
    """Returns which of mixctl's packages the source imports, inside functions too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{absolute(node, package)}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("mixctl.")}


def absolute(node: ast.ImportFrom, package: str) -> str:
    """Returns the absolute name of the module that an import statement in `package` names."""
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    kept = parents[: len(parents) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def test_imported_packages_sees_every_form() -> None:
    source = """
import mixctl.shards.order
from mixctl import evals
def later():
    from ..pipeline import cli
    from ...injections.base import Kind
"""
    assert imported_packages(source, "mixctl.evals") >= {"shards", "evals", "pipeline"}
    assert "injections" in imported_packages(source, "mixctl.evals.stats")


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_point_one_way(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parent = ".".join(["mixctl", *path.relative_to(ROOT).parent.parts])
        found = imported_packages(path.read_text("utf-8"), parent) - ALLOWED[package]
        wrong += [f"{path.relative_to(ROOT)} imports mixctl.{name}" for name in sorted(found)]
    assert wrong == []


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "mixctl" in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_a_build_imports_no_pandas(tmp_path: Path) -> None:
    """What a build needs of Arrow does without, and pandas takes a fifth of a second."""
    mix = Workspace(tmp_path).mix(name="built.yaml")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(mix), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: numpy"


def test_verify_leaves_torch_to_another_process(tmp_path: Path) -> None:
    from mixctl.pipeline.build import build
    from mixctl.shards.verify import verify

    out = tmp_path / "out"
    build(Workspace(tmp_path / "work").mix(name="built.yaml"), out, workers=1)
    for how in ("sample", "full"):
        command = [sys.executable, "-c", VERIFY, str(out), how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(verify(out, full=how == "full").batches)]


def test_what_workers_are_forked_from_is_frozen_and_collects_from_then_on() -> None:
    program = (
        "import gc, sys; before = gc.get_freeze_count(); import mixctl.pipeline.preload; "
        "wanted = {'mixctl.pipeline.stages', 'numpy.ma'} <= set(sys.modules); "
        "print(before, gc.get_freeze_count() > 10_000, gc.isenabled(), wanted)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "True", "True", "True"]
