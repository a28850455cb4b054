"""The wheel as a stranger gets it: what is inside, and `mixctl --help` without the heavy packages.

Needs the package index that pip is set up with. The wheel is built from a copy, so that neither a
stale build folder gets into it nor a new one into the repository.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from tests.support.blocks import fenced

ROOT = Path(__file__).parents[1]
PACKAGES = ("evals", "injections", "pipeline", "shards", "trainer_configs")
LIGHT = ("click",)
"""All that the command line may import to print its help."""
DATA = {".yaml", ".html", ".j2"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Returns what the command printed; fails the test with its errors if it failed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of what a release is built from, beside what it must not hold."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # folders that must stay out of the wheel
    for name in ("tests", "docs", "tools"):
        (source / name).mkdir()
        (source / name / "stray.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source)
    (path,) = folder.glob("*.whl")
    return path


def shipped(wheel: Path) -> set[str]:
    """Returns the files of the wheel but for its metadata."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    return {name for name in names if not name.split("/")[0].endswith(".dist-info")}


def test_wheel_holds_mixctl_and_nothing_else(wheel: Path) -> None:
    kinds = {
        name: PurePosixPath(name).suffix
        for name in shipped(wheel)
        if PurePosixPath(name).name != "py.typed"
    }
    assert {name for name in kinds if not name.startswith("mixctl/")} == set()
    assert {name: kind for name, kind in kinds.items() if kind not in DATA | {".py"}} == {}


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    wanted = {
        f"mixctl/{path.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in DATA | {".py"} or path.name == "py.typed"
    }
    assert wanted - shipped(wheel) == set()


def test_the_sdist_gives_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    """Built offline, by the setuptools of this environment, from the unpacked sdist alone."""
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--sdist", "--outdir", tmp_path / "sdist", source)
    (archive,) = (tmp_path / "sdist").glob("mixctl-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    for name in ("LICENSE", "README.md", "pyproject.toml", "PKG-INFO"):
        assert (unpacked / name).is_file(), name
    run(*build, "--wheel", "--outdir", tmp_path / "again", unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    """Returns the files of the wheel by name, what names its builder left out."""
    with ZipFile(wheel) as archive:
        names = {PurePosixPath(name) for name in archive.namelist()}
        kept = {name for name in names if name.name not in ("RECORD", "WHEEL", "SOURCES.txt")}
        return {str(name): archive.read(str(name)) for name in kept}


def test_help_runs_without_the_heavy_packages(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
    run(*pip, *LIGHT)
    run(*pip, "--no-deps", wheel)
    text = run(tmp_path / "env" / "bin" / "mixctl", "--help", cwd=tmp_path)
    for command in ("init", "check", "plan", "build", "verify", "show", "eval", "schema", "demo"):
        assert command in text
    listed = run(python, "-m", "pip", "list", "--format", "freeze")
    assert "torch==" not in listed and "datatrove==" not in listed


def test_the_documented_api_is_typed_for_those_who_install_it(wheel: Path, tmp_path: Path) -> None:
    """mypy --strict on the code of docs/python-api.md, in an environment that holds the wheel."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    assert (site / "mixctl/pipeline/build.py").is_file()
    others = Path(sysconfig.get_paths()["purelib"])  # numpy, pydantic, ... as they are here
    (site / "others.pth").write_text(f"{others}\n")
    blocks = [b.text for b in fenced(ROOT / "docs/python-api.md") if b.language == "python"]
    (tmp_path / "user.py").write_text("\n".join(blocks))
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python)
    untyped = ("--disable-error-code", "import-untyped")  # pyarrow
    (tmp_path / "empty.ini").write_text("[mypy]\n")
    options = ("--config-file", tmp_path / "empty.ini", "--cache-dir", tmp_path / "cache", *untyped)
    said = run(*command, *options, tmp_path / "user.py", cwd=tmp_path)
    assert "Success" in said, said
    (tmp_path / "wrong.py").write_text(
        "from mixctl.pipeline.build import build\nrecord: str = build('mix.yaml', 3)\n"
    )
    done = subprocess.run(
        [str(part) for part in (*command, *options, tmp_path / "wrong.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Found 3 errors" in done.stdout, done.stdout
