"""The dataset card of a build: metadata that a hub reads, tables that load, no folder's name."""

import re

import pyarrow.parquet as pq
import pytest
import yaml

from mixctl.pipeline.build import build
from mixctl.pipeline.card import card
from mixctl.shards.record import read_record
from mixctl.shards.verify import verify
from tests.support.workspace import canaries, quiz


def parts(text):
    """Returns (metadata, markdown)."""
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_its_metadata_names_every_table_of_the_manifest(built):
    metadata, _ = parts((built / "README.md").read_text(encoding="utf-8"))
    files = {one["config_name"]: one["data_files"] for one in metadata["configs"]}
    assert sorted(files.values()) == sorted(
        path.relative_to(built).as_posix() for path in (built / "manifest").iterdir()
    )
    assert pq.read_table(built / files["placements"]).num_rows
    assert metadata["size_categories"] == ["1K<n<10K"]  # 200 steps x 8 sequences


def test_its_tables_say_what_was_built(built):
    _, body = parts((built / "README.md").read_text(encoding="utf-8"))
    assert "| steps | 200 |" in body and "control/train/" in body
    assert "| quiz | contamination | holdout (20 items, 0 copies), x4 (20 items, 4" in body
    assert "| docs | documents | as its kind or its rows say |" in body
    named = re.findall(r"^\| (\w+) \| \w+ \| .*(?:copies\)|rows say) \|$", body, re.MULTILINE)
    assert sorted(named) == ["canaries", "docs", "quiz"]


def test_it_is_part_of_the_build_and_knows_no_folder(built, shared, tmp_path):
    record = read_record(built)
    text = (built / "README.md").read_text(encoding="utf-8")
    assert "README.md" in record.files and card(record) == text
    assert str(shared.folder) not in text
    other = build(shared.mix(name="built.yaml"), tmp_path / "elsewhere", control=True)
    assert other.files["README.md"] == record.files["README.md"]
    (tmp_path / "elsewhere/README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(Exception, match=r"README\.md: has 4 bytes, the record says"):
        verify(tmp_path / "elsewhere")


def test_doses_that_are_budgets_are_said_as_such(shared, tmp_path):
    quiz_section = quiz()
    quiz_section["arms"][2] = {"name": "some", "items": "rest", "share": "1%"}
    section = canaries()
    section["arms"][1] = {"name": "much", "items": 20, "tokens": "2K"}
    build(shared.mix(quiz_section, section, name="budgets.yaml"), tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "some (rest items, 1% of the run)" in text and "much (20 items, 2000 tokens)" in text
    assert "control/" not in text
