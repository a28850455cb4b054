"""`mixctl amend` on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from mixctl.shards.record import Amendment

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  mixctl amend out/run1 late.yaml --after-step 1000
  mixctl amend out/run1 late.yaml --after-step 1000 --checkpoint out/train/step-00001000
  mixctl amend out/run1 --list
  mixctl amend out/again --replay out/run1      bring a build of the same mix to the same bytes
"""
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.argument("additions", metavar="[ADDITIONS.yaml]", type=_PATH, required=False)
@click.option(
    "--after-step",
    type=click.IntRange(0),
    help="The steps up to this one stay as they are; every new placement is in a later one.",
)
@click.option(
    "--checkpoint",
    type=_PATH,
    help="Refuse to change what this checkpoint's loader has handed out already.",
)
@click.option("--list", "listing", is_flag=True, help="List the amendments of the build.")
@click.option(
    "--replay", type=_PATH, metavar="DIR2", help="Make the amendments that DIR2 has and DIR lacks."
)
@click.option("--json", "as_json", is_flag=True, help="Print the amendments as JSON.")
def amend(
    directory: Path,
    additions: Path | None,
    after_step: int | None,
    checkpoint: Path | None,
    listing: bool,
    replay: Path | None,
    as_json: bool,
) -> None:
    """Writes new placements into the steps of the build in DIR that are still ahead.

    ADDITIONS.yaml holds `experiments:`, as a mix file does: a new name is a new experiment, the
    name of one of the build gives further copies of its items. Only sequences that hold nothing so
    far are changed, in place; stop the trainer first, and go on with its --resume afterwards.
    """
    from mixctl.pipeline import amend as amending
    from mixctl.pipeline.additions import read_additions
    from mixctl.shards.record import read_record

    _check_usage(additions, after_step, checkpoint, listing, replay)
    if listing:
        made: Sequence[Amendment] = read_record(directory).amendments
    elif replay is not None:
        made = amending.replay(directory, replay)
    elif additions is not None and after_step is not None:
        told = read_additions(additions)
        made = amending.amend(directory, told, after_step, checkpoint).amendments[-1:]
    if as_json:
        click.echo(json.dumps([one.model_dump() for one in made]))
        return
    for one in made:
        click.echo(_line(one))
    if not made:
        click.echo(f"{directory}: no amendments" if listing else f"{directory}: nothing to do")


def _check_usage(
    additions: Path | None,
    after_step: int | None,
    checkpoint: Path | None,
    listing: bool,
    replay: Path | None,
) -> None:
    """Refuses options that do not go together."""
    alone = [name for name, given in (("--list", listing), ("--replay", replay)) if given]
    amends = [
        name
        for name, given in (
            ("ADDITIONS.yaml", additions),
            ("--after-step", after_step),
            ("--checkpoint", checkpoint),
        )
        if given is not None
    ]
    if len(alone) > 1 or (alone and amends):
        raise click.UsageError(f"{alone[0]} goes alone, not with {', '.join(alone[1:] + amends)}")
    if not alone and (additions is None or after_step is None):
        raise click.UsageError("give ADDITIONS.yaml and --after-step, or --list, or --replay")


def _line(one: Amendment) -> str:
    names = ", ".join(str(section.get("name")) for section in one.experiments)
    return (
        f"amendment {one.number} ({one.time}), after step {one.after_step}: {names}: "
        f"{one.placements:,} placements, {one.tokens:,} tokens, {one.sequences:,} sequences "
        f"changed, the first in step {one.first_step}"
    )
