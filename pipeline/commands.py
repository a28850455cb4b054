"""The sub-commands of the build side. Thin: options in, a function of the pipeline, a few lines out."""

from __future__ import annotations

import json
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  mixctl build mix.yaml --out out/run1 --control
  mixctl build mix.yaml --out out/run1 --workers 8
"""
)
@click.argument("mix", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The build folder; new, or an unfinished build.")
@click.option("--control", is_flag=True, help="Write the control twin as well.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Tasks at a time.")
@click.option(
    "--executor", type=click.Choice(["local"]), default="local", show_default=True, help="Where tasks run."
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
def build(mix: Path, out: Path, control: bool, workers: int, executor: str, as_json: bool) -> None:
    """Builds the shards of MIX: train/, val/, manifest/ and the configs to train on them."""
    from mixctl.pipeline.build import build as build_mix
    from mixctl.pipeline.text import print_build

    record = build_mix(mix, out, control=control, workers=workers)
    if as_json:
        totals = {name: total.model_dump() for name, total in record.totals.items()}
        click.echo(json.dumps({"out": str(out), "totals": totals, "control": record.control}))
    else:
        print_build(record, out)


@click.command()
def schema() -> None:
    """Prints the JSON Schema of the mix file, for editors."""
    from mixctl.pipeline.mixfile import mix_schema

    click.echo(json.dumps(mix_schema(), indent=2))
