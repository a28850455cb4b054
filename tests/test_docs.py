"""Every page of documentation: links lead somewhere, blocks parse, commands exist."""

import ast
import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from mixctl.pipeline.cli import cli
from tests.support.blocks import PAGES, ROOT, commands_of, fenced, indented

NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
LANGUAGES = {"bash", "json", "jsonl", "python", "text", "toml", "yaml"}


def anchors(path):
    """Returns the anchors of a page, as GitHub and mkdocs make them of its headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    path = ROOT / name
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name}: {link}"


@pytest.mark.parametrize("name", NAMES)
def test_every_block_has_a_language_and_parses(name):
    for block in fenced(ROOT / name):
        assert block.language in LANGUAGES, f"{name}: {block.language or 'no language'}"
        if block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "python":
            ast.parse(block.text)
        elif block.language == "toml":
            pytest.importorskip("tomllib").loads(block.text)  # from Python 3.11 on
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "jsonl":
            assert [json.loads(line) for line in block.text.splitlines()]
        elif block.language == "bash":
            shlex.split(block.text, comments=True)
    for text in indented(ROOT / name):
        if re.match(r"(import|from) \w", text):
            ast.parse(text)
        elif re.match(r"(experiments|corpus|executor|\w+):( |\n)", text) and "->" not in text:
            yaml.safe_load(text)


def called(words):
    """Returns the command that the words call, and what is left of them."""
    command, rest = cli, words[1:]
    context = click.Context(cli, info_name="mixctl")
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest[0])
        assert inner is not None, " ".join(words)
        command, rest = inner, rest[1:]
    return command, rest


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    for line in commands_of(ROOT / name):
        words = shlex.split(line.replace("...", "etc").replace("SECONDS", "1"))
        program = Path(words[0]).name
        if program == "mixctl" and not {"etc", "|"} & set(words):
            command, rest = called(words)
            if not isinstance(command, click.Group) and rest != ["--help"]:
                command.make_context(command.name, rest)
        elif program == "make":
            asked = [word for word in words[1:] if re.fullmatch(r"[a-z][\w-]*", word)]
            if "-C" in words:
                asked.remove(words[words.index("-C") + 1])
            assert set(asked) <= targets, f"{name}: {line}"
        elif program == "litgpt":
            assert words[1] in ("pretrain", "download"), f"{name}: {line}"


def test_the_pages_are_all_looked_at():
    assert len(NAMES) > 15 and "docs/python-api.md" in NAMES
    assert sum(len(commands_of(path)) for path in PAGES) > 60
