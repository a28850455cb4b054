"""The code blocks of a page of documentation: fenced ones by language, and indented commands.

A fenced block may carry a title: ```yaml title="mix.yaml". An indented block (four spaces) holds
commands, configurations or trees; `commands` returns the lines that are commands of ours.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PROGRAMS = ("mixctl", "litgpt", "make", "pip", "git", "python", "lm_eval", "huggingface-cli")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind it on the first line, its text."""

    language: str
    info: str
    text: str


def fenced(path: Path) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    found = _FENCE.findall(path.read_text(encoding="utf-8"))
    return [
        Block(language, info.strip(), textwrap.dedent(text)) for _, language, info, text in found
    ]


def indented(path: Path) -> list[str]:
    """Returns the indented blocks of a page: their text, the indent taken off."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    blocks = re.findall(r"(?:\A|\n\n)((?:    [^\n]*\n(?:\n(?=    ))*)+)", text)
    return [textwrap.dedent(block) for block in blocks]


def command_lines(text: str) -> list[str]:
    """Returns the lines of a block that call a program, joined where a line ends with a backslash,
    settings of the environment and remarks taken off."""
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        bare = re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line.strip())
        if bare.split(" ")[0].rpartition("/")[2] in _PROGRAMS:
            found.append(re.split(r" {4,}| +# | && | \|\| ", bare)[0].strip())
    return found


def commands_of(path: Path) -> list[str]:
    """Returns every command line of a page, of fenced shell blocks and of indented blocks."""
    blocks = [block.text for block in fenced(path) if block.language in ("bash", "sh", "console")]
    return [line for text in [*blocks, *indented(path)] for line in command_lines(text)]
