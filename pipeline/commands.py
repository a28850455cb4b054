"""The sub-commands of the build side: options in, one function call, a few lines out."""

from __future__ import annotations

import gc
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mixctl.pipeline.executor_names import EXECUTORS, ExecutorName

if TYPE_CHECKING:
    from mixctl.shards.verify import VerifyReport

_PATH = click.Path(path_type=Path)
_COLLECTED = 200_000
"""objects made between two collections of a build: its items hold no cycles, and are many"""


@click.command(
    epilog="""\b
Examples:
  mixctl build mix.yaml --out out/run1 --control
  mixctl build mix.yaml --out out/run1 --workers 8
  mixctl build mix.yaml --out /shared/run1 --executor slurm     partition, time, ... in the mix file
  mixctl build mix.yaml --out s3://bucket/run1 --stage /scratch/run1
"""
)
@click.argument("mix", type=_PATH)
@click.option(
    "--out", required=True, help="The build folder, new or unfinished; or an address: s3://..."
)
@click.option(
    "--stage",
    type=_PATH,
    help="The folder of the build, where --out is an address.",
)
@click.option("--control", is_flag=True, help="Write the control twin as well.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Tasks at a time.  [default: of the mix file, else 1 local, all elsewhere]",
)
@click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    help="Where tasks run.  [default: of the mix file, else local]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
def build(
    mix: Path,
    out: str,
    stage: Path | None,
    control: bool,
    workers: int | None,
    executor: ExecutorName | None,
    as_json: bool,
) -> None:
    """Builds the shards of MIX: train/, val/, manifest/ and the configs to train on them."""
    from mixctl.pipeline.workers import start_workers

    start_workers(executor, workers)  # they import while this process does
    gc.set_threshold(_COLLECTED)
    from mixctl.pipeline.build import build as build_mix
    from mixctl.pipeline.publish import build_at
    from mixctl.pipeline.text import print_build, print_published
    from mixctl.shards.addresses import is_address

    gc.freeze()  # what was imported stays: no collection need go through it
    how: _How = {"control": control, "workers": workers, "executor": executor}
    folder = _folder(out, stage)
    if is_address(out):
        record = build_at(mix, out, folder, **how)
    else:
        record = build_mix(mix, folder, **how)
    if as_json:
        totals = {name: total.model_dump() for name, total in record.totals.items()}
        click.echo(json.dumps({"out": out, "totals": totals, "control": record.control}))
        return
    print_build(record, folder)
    if is_address(out):
        print_published(folder, out)


class _How(TypedDict):
    """How a build is made, as the command line says."""

    control: bool
    workers: int | None
    executor: ExecutorName | None


def _folder(out: str, stage: Path | None) -> Path:
    """Returns the folder in which a build is made."""
    from mixctl.shards.addresses import is_address
    from mixctl.shards.errors import InputError

    if not is_address(out):
        if stage is not None:
            raise InputError(
                f"--stage: is for addresses, and --out is the folder {out}: leave it out"
            )
        return Path(out)
    if stage is None:
        raise InputError(
            f"--out: {out} is an address: name a folder with --stage, in which the build is made "
            "before it is uploaded"
        )
    return stage


@click.command(
    epilog="""\b
Examples:
  mixctl relayout out/run1 --trainer two-nodes.yaml --out out/run2
  mixctl relayout out/run1 --trainer two-nodes.yaml --out out/run2 --workers 8 --json
"""
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.option(
    "--trainer", type=_PATH, required=True, help="The LitGPT config that will train on it."
)
@click.option(
    "--out", type=_PATH, required=True, help="The new build; a new folder, or an unfinished one."
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Tasks at a time."
)
@click.option("--json", "as_json", is_flag=True, help="Print the new geometry as JSON.")
def relayout(directory: Path, trainer: Path, out: Path, workers: int, as_json: bool) -> None:
    """Lays the build in DIR out for other devices, nodes, workers, micro-batches or data seed.

    The result is what a build for that trainer config would be, byte for byte, without tokenizing
    again. Global batch, sequence length and steps must be those of DIR.
    """
    from mixctl.pipeline.relayout import relayout as relayout_build
    from mixctl.pipeline.text import print_build

    record = relayout_build(directory, trainer, out, workers=workers)
    if as_json:
        click.echo(json.dumps({"out": str(out), "geometry": record.geometry.model_dump()}))
    else:
        print_build(record, out)


@click.command(
    epilog="""\b
Examples:
  mixctl check mix.yaml
"""
)
@click.argument("mix", type=_PATH)
def check(mix: Path) -> None:
    """Validates MIX and everything it names, writes nothing."""
    from mixctl.pipeline.prepare import prepare
    from mixctl.pipeline.summary import summarise
    from mixctl.pipeline.text import print_summary

    prepared = prepare(mix)
    print_summary(summarise(prepared.plan))
    click.echo(f"{mix}: nothing wrong. Build it:  mixctl build {mix} --out DIR --control")


@click.command(
    epilog="""\b
Examples:
  mixctl plan mix.yaml                          tables, and mix.plan.png beside the mix file
  mixctl plan mix.yaml --picture plan.svg
  mixctl plan mix.yaml --html plan.html         a page: doses, density, tokens, cost
  mixctl plan mix.yaml --json > plan.json
"""
)
@click.argument("mix", type=_PATH)
@click.option("--picture", type=_PATH, help="Where the picture goes (png, svg, pdf).")
@click.option("--html", type=_PATH, help="Where a page goes; takes a sample of the corpus, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(mix: Path, picture: Path | None, html: Path | None, as_json: bool) -> None:
    """Shows what MIX would build: doses, tokens, shares, room left, detectable effects."""
    from mixctl.pipeline.picture import PICTURE_SUFFIXES, draw_plan
    from mixctl.pipeline.planning import plan_mix
    from mixctl.pipeline.summary import summarise
    from mixctl.pipeline.text import print_summary
    from mixctl.shards.errors import InputError

    picture = picture or mix.with_suffix(".plan.png")
    if picture.suffix not in PICTURE_SUFFIXES:
        raise InputError(f"--picture: '{picture}' must end in one of {', '.join(PICTURE_SUFFIXES)}")
    made = plan_mix(mix)
    summary = summarise(made)
    draw_plan(made, picture)
    if html is not None:
        from mixctl.pipeline.plan_page import write_plan_page

        write_plan_page(made, html)
    if as_json:
        click.echo(summary.model_dump_json(indent=1))
        return
    print_summary(summary)
    click.echo(f"picture: {picture}")
    if html is not None:
        click.echo(f"page: {html}")


@click.command(
    epilog="""\b
Examples:
  mixctl show out/run1 --limit 3
  mixctl show out/run1 --experiment secrets --item canary-000004
  mixctl show out/run1 --step 120 --json
  mixctl show out/run1 --html show.html                a page to browse, some of every experiment
  mixctl show out/run1 --html quiz.html --experiment quiz --limit 2000
"""
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.option("--experiment", help="Only this experiment.")
@click.option("--item", help="Only this item.")
@click.option("--step", type=int, help="Only this optimizer step, from 1.")
@click.option("--chunk", help="Only this file of train/.")
@click.option(
    "--limit", type=click.IntRange(1), help="At most so many.  [default: 10, on a page 400]"
)
@click.option("--html", type=_PATH, help="Write a page to browse instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a placement.")
def show(
    directory: Path,
    experiment: str | None,
    item: str | None,
    step: int | None,
    chunk: str | None,
    limit: int | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Prints placements of the build in DIR as text, the payload marked."""
    from mixctl.pipeline.show import Choice
    from mixctl.pipeline.show import show as show_build
    from mixctl.pipeline.text import print_shown

    choice = Choice(experiment, item, step, chunk)
    if html is not None:
        from mixctl.pipeline.show_page import write_show_page

        n_shown, n_all = write_show_page(directory, choice, limit or 400, html)
        click.echo(f"page: {html} ({n_shown:,} of {n_all:,} placements)")
        return
    shown, n_all = show_build(directory, choice, limit or 10)
    if as_json:
        for one in shown:
            texts = {"before": one.before, "payload": one.payload, "after": one.after}
            click.echo(json.dumps({**one.row, **texts}, ensure_ascii=False))
    else:
        print_shown(shown, n_all)


@click.command(
    epilog="""\b
Examples:
  mixctl demo                 under ten minutes on two cores, into demo-out
  mixctl demo --quick         two minutes, a smaller model
"""
)
@click.option(
    "--out", type=_PATH, default=Path("demo-out"), show_default=True, help="Where everything goes."
)
@click.option("--quick", is_flag=True, help="A smaller model and fewer items.")
def demo(out: Path, quick: bool) -> None:
    """Builds, verifies, trains with and without the experiments, scores: on real text, on a CPU."""
    from mixctl.pipeline.demo import run_demo

    run_demo(out, quick)


@click.command(
    epilog="""\b
Examples:
  mixctl schema > mix.schema.json
"""
)
def schema() -> None:
    """Prints the JSON Schema of the mix file, for editors."""
    from mixctl.pipeline.mix_schema import mix_schema

    click.echo(json.dumps(mix_schema(), indent=2))


@click.command(
    epilog="""\b
Examples:
  mixctl verify out/run1            all cheap digests and a sample, in bounded time
  mixctl verify out/run1 --full     every byte of every file, the whole epoch of every rank
  mixctl verify s3://bucket/run1    names, sizes and digests of what was uploaded
"""
)
@click.argument("directory", metavar="DIR")
@click.option("--full", is_flag=True, help="Check every byte of every file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was looked at as JSON.")
def verify(directory: str, full: bool, as_json: bool) -> None:
    """Reads the build in DIR back through the stock loader and compares it with its record."""
    from mixctl.shards.addresses import is_address

    remote = is_address(directory)
    report = _verified_address(directory, full) if remote else _verified(Path(directory), full)
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(report)))
    elif remote:
        sample = "" if full else " (chunks: a sample; --full digests every byte)"
        click.echo(f"{directory}: verified{sample}: {report.files} files by digest")
    else:
        from mixctl.pipeline.text import print_verified

        print_verified(report, Path(directory), full)


def _verified_address(address: str, full: bool) -> VerifyReport:
    from mixctl.shards.verify_address import verify_address

    return verify_address(address, full=full)


def _verified(build: Path, full: bool) -> VerifyReport:
    """Verifies a folder; the stock loader's process imports while this one does."""
    from mixctl.shards.loader_process import LoaderProcess

    with closing(LoaderProcess()) as loader:
        from mixctl.shards.verify import verify as verify_build

        return verify_build(build, full, loader)
