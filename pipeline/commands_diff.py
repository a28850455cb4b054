"""The sub-command `mixctl diff`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  mixctl diff mix.yaml mix-2.yaml            two mix files, both planned
  mixctl diff out/run1 out/run2              two builds, to the token
  mixctl diff out/run1 mix.yaml              what the build was made of, and what it would be now
  mixctl diff out/run1 out/run2 --json
"""
)
@click.argument("a", metavar="A", type=_PATH)
@click.argument("b", metavar="B", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the difference as JSON.")
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Says what changed from A to B, mix files or builds: settings, doses, placements, bytes."""
    from mixctl.pipeline.diff import diff as compare
    from mixctl.pipeline.diff_text import print_difference

    found = compare(a, b)
    if as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        print_difference(found)
