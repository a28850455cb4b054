"""`mixctl preflight`: the last look before the expensive run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  mixctl preflight out/run1 --step-time 1.9
  mixctl preflight out/run1 --config out/run1/litgpt-control.yaml
  mixctl preflight out/run1 --step-time 1.9 --json && sbatch train.sh
""",
)
@click.argument("directory", metavar="DIR")
@click.option(
    "--config", type=_PATH, help="The config that will train.  [default: DIR/litgpt.yaml]"
)
@click.option(
    "--step-time",
    type=click.FloatRange(0, min_open=True),
    help="Seconds of an optimizer step.  [default: measured for small models, else unknown]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long the loader is read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def preflight(
    directory: str, config: Path | None, step_time: float | None, seconds: float, as_json: bool
) -> None:
    """Checks the build in DIR and the machine before `litgpt pretrain` begins.

    Shards (as verify does, in bounded time), the trainer config against the build, room for all
    checkpoints where they will be written, and the stock loader's speed against the model's. Run it
    where the training will run, from the folder it will start in. Ends with exit code 1 when
    something must be put right.
    """
    from mixctl.pipeline.preflight import preflight as look
    from mixctl.shards.addresses import is_address
    from mixctl.shards.errors import InputError

    if is_address(directory):
        raise InputError(
            f"{directory}: is an address; give the folder that the build was made in (mixctl "
            "verify takes the address)"
        )
    found = look(Path(directory), config, step_time, seconds)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        width = max(len(check.name) for check in found.checks)
        for check in found.checks:
            click.echo(f"{check.name:<{width}}  {check.verdict:<7}  {check.said}")
    if found.failed:
        sys.exit(1)
