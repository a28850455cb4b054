"""Writes the reference pages: mix-file.md from the JSON Schema, commands.md from the help texts.

    python docs/make_reference.py          # a test runs it and compares

A page says what the program says: a key's meaning stands beside the field that reads it, a
command's beside its options.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mixctl.injections.config import ExperimentConfig
from mixctl.injections.registry import kind_names
from mixctl.pipeline.cli import cli
from mixctl.pipeline.mix_schema import mix_schema

HERE = Path(__file__).resolve().parent
WIDTH = 96
_NOTE = "<!-- made by docs/make_reference.py: edit the fields or the options, then run it -->"
_TITLES = {
    "CorpusConfig": "corpus",
    "Decontamination": "decontamination",
    "ExecutorConfig": "executor",
    "ControlConfig": "control",
    "ControlledExperiment": "control: experiments",
    "Arm": "arms",
    "GivenSteps": "schedule: given steps",
    "EverySteps": "schedule: every so many steps",
    "Ramp": "schedule: ramp",
    "CopyWindows": "schedule: a window a copy",
    "Split": "split",
    "StandIn": "items: stand-ins",
    "BenchmarkConfig": "benchmarks",
    "SecretConfig": "secret",
    "GridConfig": "grid",
    "HeldOutProblems": "test",
    "FromEvery": "steps: from and every",
}
_GENERAL = (
    *("CorpusConfig", "Decontamination", "ExecutorConfig", "ControlConfig", "ControlledExperiment"),
    "Arm",
    *("GivenSteps", "EverySteps", "Ramp", "CopyWindows", "Split", "StandIn"),
)

Schema = dict[str, Any]


def mix_file_page() -> str:
    """Returns the text of mix-file.md."""
    schema = mix_schema()
    definitions: dict[str, Schema] = schema["$defs"]
    common = set(ExperimentConfig.model_fields)
    parts = [
        _NOTE,
        "",
        "# The mix file",
        "",
        _INTRODUCTION,
        "",
        "## Top level",
        "",
        *_table(schema),
    ]
    some = next(one for one in definitions.values() if common <= set(one.get("properties", {})))
    shared = {name: some["properties"][name] for name in ExperimentConfig.model_fields}
    shared["kind"] = {"type": "string", "description": f"one of {', '.join(kind_names())}"}
    parts += [
        "",
        "## experiments",
        "",
        "What every experiment takes; its kind's own keys follow below.",
    ]
    parts += ["", *_rows(shared, ["name", "kind"])]
    for name in _GENERAL:
        parts += _section(name, definitions[name], 2)
    parts += ["", "## Kinds"]
    for kind in kind_names():
        section = _of_kind(definitions, kind)
        own = {
            key: value
            for key, value in section["properties"].items()
            if key not in common or (key == "placement" and value.get("default") != "overwrite")
        }
        parts += ["", f"### {kind}", "", f"What it is: [kinds.md](kinds.md#{kind}).", ""]
        parts += _rows(own, section.get("required", [])) if own else ["No keys of its own."]
        for name in _named_in(own):
            if name not in _GENERAL:
                parts += _section(name, definitions[name], 4)
    return "\n".join(parts) + "\n"


_INTRODUCTION = """\
Paths are relative to the mix file. Unknown keys are errors. `mixctl schema` prints the JSON Schema
that this page is made from; with `# yaml-language-server: $schema=mix.schema.json` in its first
line an editor completes and checks a mix file (`mixctl init` writes both). How the parts work
together: [formats.md](formats.md#the-mix-file)."""


def _of_kind(definitions: dict[str, Schema], kind: str) -> Schema:
    return next(
        one
        for one in definitions.values()
        if one.get("properties", {}).get("kind", {}).get("const") == kind
    )


def _named_in(properties: dict[str, Schema]) -> list[str]:
    """Returns the definitions that the properties refer to, in order."""
    found: dict[str, None] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found[value["$ref"].rpartition("/")[2]] = None
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(properties)
    return list(found)


def _section(name: str, definition: Schema, level: int) -> list[str]:
    text = " ".join(definition.get("description", "").split())
    return ["", f"{'#' * level} {_TITLES[name]}", "", text, "", *_table(definition)]


def _table(definition: Schema) -> list[str]:
    return _rows(definition["properties"], definition.get("required", []))


def _rows(properties: dict[str, Schema], required: list[str]) -> list[str]:
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, value in properties.items():
        default = "required" if name in required else _default(value.get("default"))
        meaning = " ".join(value.get("description", "").split())
        lines.append(f"| `{name}` | {_type(value)} | {default} | {meaning} |")
    return lines


def _default(value: Any) -> str:
    if value is None or value == [] or isinstance(value, (list, dict)):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(value: Schema) -> str:
    """Returns a type in words: `int >= 0`, `a` or `b`, a list of ..."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        title = _TITLES.get(name, "experiments")
        return f"[{title}](#{_anchor(title)})"
    if "anyOf" in value:
        parts = [_type(one) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"name: {_type(inner)}" if isinstance(inner, dict) else "mapping"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true, false",
    }
    return words.get(kind or "", "any") + _limits(value)


def _limits(value: Schema) -> str:
    limits = (
        ("minimum", ">="),
        ("exclusiveMinimum", ">"),
        ("maximum", "<="),
        ("exclusiveMaximum", "<"),
    )
    found = [f"{sign} {value[name]:,}" for name, sign in limits if name in value]
    return f" {', '.join(found)}" if found else ""


def _anchor(title: str) -> str:
    return title.lower().replace(":", "").replace(" ", "-")


def commands_page() -> str:
    """Returns the text of commands.md."""
    parts = [_NOTE, "", "# Commands", "", _COMMANDS]
    context = click.Context(cli, info_name="mixctl")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        parts += _help(command, f"mixctl {name}", context, 2) if command is not None else []
    return "\n".join(parts) + "\n"


_COMMANDS = """\
What `--help` says. Exit codes: 0 done; 1 a finished build does not verify, a scorer failed, or
tasks of a cluster did not end; 2 wrong usage or wrong input, one message per problem, nothing
written; 70 a defect of mixctl itself; 130 Ctrl-C, 143 SIGTERM: what is done is kept.

## Completion

Tab completes commands and options after one line in the shell's start-up file:

    eval "$(_MIXCTL_COMPLETE=bash_source mixctl)"       # ~/.bashrc
    eval "$(_MIXCTL_COMPLETE=zsh_source mixctl)"        # ~/.zshrc
    _MIXCTL_COMPLETE=fish_source mixctl | source        # ~/.config/fish/config.fish"""


def _help(command: click.Command, name: str, parent: click.Context, level: int) -> list[str]:
    """Returns a command's help, and that of the commands in it."""
    context = click.Context(
        command,
        info_name=name.rpartition(" ")[2],
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    parts = ["", f"{'#' * level} {name}", "", "```text", command.get_help(context).rstrip(), "```"]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            parts += _help(found, f"{name} {inner}", context, level + 1) if found else []
    return parts


def main() -> None:
    """Writes the pages into the folder given, or beside this file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    (folder / "mix-file.md").write_text(mix_file_page(), encoding="utf-8")
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
