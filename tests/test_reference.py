"""docs/mix-file.md and docs/commands.md: made by docs/make_reference.py, and as it makes them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixctl.pipeline.mix_schema import mix_schema

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, DOCS / "make_reference.py", folder], check=True)
    return folder


@pytest.mark.parametrize("name", ["mix-file.md", "commands.md"])
def test_the_page_is_up_to_date(made, name):
    text = (made / name).read_text(encoding="utf-8")
    stale = f"docs/{name} is out of date: python docs/make_reference.py"
    assert (DOCS / name).read_text(encoding="utf-8") == text, stale


def test_every_key_has_a_meaning_and_stands_on_the_page():
    schema = mix_schema()
    page = (DOCS / "mix-file.md").read_text(encoding="utf-8")
    sections = [("the mix file", schema), *schema["$defs"].items()]
    for name, section in sections:
        for key, value in section.get("properties", {}).items():
            assert value.get("description"), f"{name}: {key} has no meaning"
            assert re.search(rf"^\| `{re.escape(key)}` \| ", page, re.MULTILINE), (name, key)
