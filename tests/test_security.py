"""Nothing from data is executed, and no name in data leads out of its folder."""

from __future__ import annotations

import ast
import contextlib
import importlib
import math
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from mixctl.evals.checkpoint import check_weights, find_checkpoints
from mixctl.evals.scorers import registry as scorers
from mixctl.injections import registry
from mixctl.pipeline import controllers
from mixctl.shards import manifest
from mixctl.shards.errors import InputError
from mixctl.shards.plugins import load_plugin
from mixctl.shards.record import parse_record, record_text
from tests.evals import tiny

ROOT = Path(__file__).parents[1]
PACKAGES = ("evals", "injections", "pipeline", "shards", "trainer_configs")
NEVER = {"eval", "exec", "compile", "__import__"}
NEVER_OF = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("shelve", "open"),
    ("os", "system"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("yaml", "load_all"),
}


def dangers(source: str) -> list[str]:
    """Returns the calls that could run what data holds, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        options = {one.arg: ast.unparse(one.value) for one in node.keywords}
        owner, _, name = ast.unparse(node.func).rpartition(".")
        of = (owner.rpartition(".")[2], name)
        wrong = of in NEVER_OF or (not owner and name in NEVER)
        wrong |= of == ("torch", "load") and options.get("weights_only") != "True"
        wrong |= of == ("np", "load") and "allow_pickle" in options
        wrong |= of == ("yaml", "load") and not options.get("Loader", "").startswith("_")
        wrong |= options.get("shell") == "True"
        found += [f"line {node.lineno}: {ast.unparse(node)[:80]}"] if wrong else []
    return found


@pytest.mark.parametrize(
    "call",
    [
        "eval(x)",
        "pickle.loads(x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(x, Loader=yaml.Loader)",
        "yaml.unsafe_load(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_a_dangerous_call_is_seen(call: str) -> None:
    assert len(dangers(f"def f():\n    return {call}\n")) == 1


def test_no_module_has_one() -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): dangers(path.read_text("utf-8")) for path in paths}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize("module", ["mixctl.shards.yamlfile", "mixctl.pipeline.questions_import"])
def test_yaml_loaders_are_safe_ones(module: str) -> None:
    import yaml

    loaders = [
        one
        for one in vars(importlib.import_module(module)).values()
        if isinstance(one, type) and issubclass(one, yaml.SafeLoader)
    ]
    assert loaders
    for loader in loaders:
        assert not any("python/" in str(tag) for tag in loader.yaml_constructors)


@pytest.mark.parametrize("name", ["../x", "train/../../x", "/etc/passwd"])
def test_a_record_whose_files_leave_the_build(name: str) -> None:
    record = tiny.tiny_record({})
    files = f'"files": {{"{name}": {{"bytes": 1, "digest": ""}}}}'
    text = record_text(record).replace('"files": {}', files)
    with pytest.raises(InputError, match=f"file '{name}' of the record leaves the build"):
        parse_record(text.encode(), "mix.json")


def test_an_archive_whose_entries_lead_out_of_their_folder(tmp_path: Path) -> None:
    """Checkpoints are archives: they are read in place, nothing of them is unpacked."""
    folder = tmp_path / "run/step-00000001"
    build = tiny.make_build(tmp_path / "build", {})
    tiny.make_checkpoint(folder, tiny.tiny_model(), build, 1)
    with zipfile.ZipFile(folder / "lit_model.pth", "a") as archive:
        for name in ("../../up.txt", str(tmp_path / "absolute.txt")):
            archive.writestr(name, "out")
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(InputError):
        check_weights(find_checkpoints([folder.parent]))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_chunk_that_is_a_path(tmp_path: Path) -> None:
    table = pa.table([["../../x.bin"], pa.array([0], pa.int32()), ["d"]], schema=manifest.BLOCKS)
    manifest.write_table(table, tmp_path / "manifest/blocks.parquet")
    with pytest.raises(InputError, match=r"blocks\.parquet: .*a chunk's name is a path"):
        manifest.read_blocks(tmp_path)


WAYS = {
    "kind": (registry, registry.find_kind),
    "controller": (controllers, controllers.find_controller),
    "scorer": (scorers, scorers.scorer_for),
}


@pytest.mark.parametrize("what", WAYS)
def test_whose_plugin_it_is_is_said(what: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """An installed package with an entry point whose module fails."""
    module, find = WAYS[what]
    about = tmp_path / "haiku_experiments-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: haiku-experiments\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[{module.GROUP}]\nhaiku = no_package.haiku:IT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget(module)
    whose = f"{what} 'haiku': no_package.haiku:IT of haiku-experiments 1.2"
    with pytest.raises(InputError, match=f"{whose} cannot be loaded .ModuleNotFoundError: No mod"):
        find("haiku")
    assert capsys.readouterr().err == f"{whose}\n"
    monkeypatch.undo()
    _forget(module)


def _forget(module: ModuleType) -> None:
    """Lets the entry points be looked up again."""
    if hasattr(module, "_plugins"):
        module._plugins.cache_clear()


def test_an_entry_point_of_no_package_is_said_too(capsys) -> None:
    assert load_plugin("kind", EntryPoint("x", "math:pi", registry.GROUP)) == math.pi
    assert capsys.readouterr().err == "kind 'x': math:pi of an unknown package\n"
