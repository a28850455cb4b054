"""What is added to a finished build: sections as in a mix file, nothing else.

    experiments:
      - {name: late-leak, kind: contamination, items: questions.jsonl, arms: [...]}   a new one
      - {name: facts, kind: knowledge, items: facts.jsonl, arms: [{name: x4, copies: 2}]}

A new name is a new experiment: its items are randomised to its arms. The name of an experiment of
the build gives further copies of the items that it has: the section names arms of the build, every
item stays in the arm it is in, and items of arms that are not named get nothing. An item that the
build does not have belongs in an experiment of a new name, since its arm would be drawn otherwise
than theirs.

Paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mixctl.injections.config import Strict
from mixctl.pipeline.mixfile import Experiment, read_sections
from mixctl.pipeline.yamlfile import parse, read_yaml
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes


class _AdditionsFile(Strict):
    """The one key of the file."""

    experiments: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True)
class Additions:
    """Sections that are added to a build.

    Attributes:
        folder: relative paths in the sections start here.
        sections: as under `experiments:` of a mix file.
        copies: where an experiment of the build is named, how many further copies each of its items
            gets; its arms' doses are not looked at then.
        path: where they were read, for messages.
    """

    folder: Path
    sections: tuple[dict[str, Any], ...]
    copies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    path: Path = Path("additions")

    def experiments(self) -> tuple[Experiment, ...]:
        """Returns the sections, checked, by name.

        Raises:
            InputError: with every problem.
        """
        found, problems = read_sections(list(self.sections), self.path)
        known = {one.config.name for one in found}
        problems += [
            f"{self.path}: copies: there is no experiment '{name}'"
            for name in self.copies
            if name not in known and not problems
        ]
        if problems:
            raise InputError(problems)
        return tuple(sorted(found, key=lambda one: one.config.name))

    def inputs(self) -> dict[str, str]:
        """Returns the digest of every file that the items depend on, by experiment and name."""
        return {
            f"{one.config.name}:{number}:{path.name}": digest_bytes(path.read_bytes())
            for one in self.experiments()
            for number, path in enumerate(one.kind.inputs(one.config, self.folder))
        }


def read_additions(path: Path) -> Additions:
    """Returns the additions in a file.

    Raises:
        InputError: when it is no mapping with `experiments:`, or a section is wrong.
    """
    config, problems = parse(_AdditionsFile, read_yaml(path), str(path))
    if config is None:
        raise InputError(problems)
    additions = Additions(path.parent, tuple(config.experiments), path=path)
    additions.experiments()
    return additions
