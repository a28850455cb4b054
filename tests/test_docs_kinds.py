"""docs/kinds.md: every section is one that the kind accepts, and every kind has one."""

import re
from pathlib import Path

import pytest
import yaml

from mixctl.injections.registry import find_kind, kind_names
from mixctl.pipeline.yamlfile import parse

PAGE = (Path(__file__).parents[1] / "docs/kinds.md").read_text(encoding="utf-8")
SECTIONS = [
    section
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    for section in yaml.safe_load(block)
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["name"])
def test_the_section_is_accepted(section):
    config, problems = parse(find_kind(section["kind"]).config, section, "docs/kinds.md")
    assert problems == []
    assert config.arms or section["kind"] == "documents"


def test_every_kind_has_a_section_and_a_heading():
    assert {section["kind"] for section in SECTIONS} == set(kind_names())
    assert set(re.findall(r"^## (\w+)$", PAGE, flags=re.MULTILINE)) == set(kind_names())
