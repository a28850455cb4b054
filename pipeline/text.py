"""What the commands print."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixctl.pipeline.programs import program, shown

if TYPE_CHECKING:  # each command imports what makes these, and waits for none of the others
    from mixctl.pipeline.show import Shown
    from mixctl.pipeline.summary import ExperimentSummary, PlanSummary
    from mixctl.shards.record import BuildRecord
    from mixctl.shards.verify import VerifyReport

TABLE_WIDTH = 120
"""of tables that go to a file or another program: nothing in them is cut"""
ENVIRONMENT = "LITDATA_DISABLE_VERSION_CHECK=1"
"""litdata otherwise asks its package index at every start and urges an upgrade that changes the
order"""
SMALL_ENVIRONMENT = f"{ENVIRONMENT} TORCHDYNAMO_DISABLE=1"
"""for a model so small that torch.compile would take longer than the training"""
_SMALL_PARAMETERS = 5_000_000


def train_command(config: Path, trainer: Mapping[str, Any] | None = None) -> str:
    """Returns the command that trains on a build; `trainer` is its config, where it is at hand."""
    small = trainer is not None and _is_small(trainer.get("model_config"))
    environment = SMALL_ENVIRONMENT if small else ENVIRONMENT
    return f"{environment} {program('litgpt')} pretrain --config {shlex.quote(str(config))}"


def _is_small(model: Any) -> bool:
    """Returns whether a model has fewer than some five million parameters, as far as it says."""
    if not isinstance(model, Mapping):
        return False
    sizes = [model.get(name) for name in ("n_layer", "n_embd", "padded_vocab_size")]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        return False
    layers, width, vocabulary = known
    return 12 * layers * width**2 + 2 * vocabulary * width < _SMALL_PARAMETERS


def print_build(record: BuildRecord, out: Path) -> None:
    """Prints the totals of a build and the commands that come next."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "items", "placements", "tokens", "share"):
        table.add_column(column, justify="left" if column == "experiment" else "right")
    for name, total in record.totals.items():
        cells = (total.items, total.placements, total.tokens)
        table.add_row(name, *(f"{cell:,}" for cell in cells), f"{total.share:.3%}")
    geometry = record.geometry
    console.print(table)
    console.print(
        f"{out}: {geometry.steps:,} steps x {geometry.global_batch} sequences x "
        f"{geometry.max_seq_length} "
        f"tokens, {geometry.chunks} {'chunk' if geometry.chunks == 1 else 'chunks'}"
    )
    if found := record.decontamination:
        console.print(
            f"in the base corpus: {found['matches']:,} matches of items, "
            f"{found['documents_dropped']:,} documents dropped (manifest/decontamination.parquet)"
        )
    if record.decontamination.get("absent_strings_not_found"):
        console.print(
            f"{record.decontamination['absent_strings_not_found']:,} of the strings that must be "
            f"absent occur nowhere in the base corpus: the twin has not seen them either"
        )
    for name in record.absent:
        console.print(
            f"{name}: {record.totals[name].replaced_sequences:,} base sequences replaced, none of "
            f"its strings is left in train/"
        )
    console.print("Check it:  " + f"{program('mixctl')} verify {shlex.quote(str(out))}")
    trainer = record.config["trainer_config"]
    console.print("Train it:  " + train_command(out.resolve() / "litgpt.yaml", trainer))
    if record.control:
        console.print("The twin:  " + train_command(out.resolve() / "litgpt-control.yaml", trainer))


def print_starter(mix: Path) -> None:
    """Prints what to do with a starter mix, each command as it can be typed here."""
    mixctl, litgpt = program("mixctl"), f"{SMALL_ENVIRONMENT} {program('litgpt')} pretrain"
    path, page, build, run, twin, config, control, results = (
        shlex.quote(shown(mix.parent / name))
        for name in (
            *(mix.name, "plan.html", "build", "out/run", "out/run-control"),
            *("build/litgpt.yaml", "build/litgpt-control.yaml", "results"),
        )
    )
    evaluate = f"{mixctl} eval {build} {run}"
    console = Console(highlight=False, soft_wrap=True)
    for line in (
        f"{path} builds as it is; its comments say what to change.",
        f"Look at it:  {mixctl} plan {path} --html {page}",
        f"Build it:    {mixctl} build {path} --out {build} --control",
        f"Train it:    {litgpt} --config {config}",
        f"Score it:    {evaluate} --out {results}",
        "The control twin never saw the payloads; against it, the report says more:",
        f"Train it:    {litgpt} --config {control}",
        f"Score both:  {evaluate} --baseline {twin} --out {results}",
    ):
        console.print(line, markup=False)


def print_published(folder: Path, address: str) -> None:
    """Prints what was uploaded, and the commands for it."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Uploaded to {address}; check that:  mixctl verify {address} --full")
    command = train_command(folder.resolve() / "litgpt.yaml")
    console.print(f"Train from there:  {command} --data.data_path {address}")


def print_summary(summary: PlanSummary) -> None:
    """Prints a plan: the run, then a table of arms for each experiment."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    g = summary.geometry
    console.print(
        f"{g['steps']:,} steps x {g['global_batch']} sequences x {g['max_seq_length']} tokens = "
        f"{g['run_tokens']:,} tokens; needs {g['base_tokens_needed']:,} base tokens; "
        f"{g['devices']} x {g['nodes']} devices, {g['workers']} workers, micro-batch "
        f"{g['micro_batch']}"
    )
    for experiment in summary.experiments:
        console.print(_arms_table(experiment))
    total = summary.total
    console.print(
        f"total: {total.placements:,} placements, {total.tokens:,} tokens, {total.share:.3%}"
    )


def _arms_table(experiment: ExperimentSummary) -> Table:
    unused = f", {experiment.unused_items:,} items unused" if experiment.unused_items else ""
    if experiment.near_duplicates:
        unused += f", {experiment.near_duplicates:,} near-duplicates left out"
    if experiment.spare_sequences:
        unused += f", {experiment.spare_sequences:,} spare base sequences"
    if experiment.expected_replaced:
        unused += f", {experiment.expected_replaced:,} base sequences expected to be replaced"
    title = (
        f"{experiment.name} ({experiment.kind}): {experiment.placements:,} placements, "
        f"{experiment.tokens:,} tokens, {experiment.share:.3%} of the run, room for "
        f"{experiment.capacity_left:,} more{unused}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    columns = ("arm", "items", "copies", "placements", "tokens", "steps", "schedule", "detectable")
    for column in columns:
        table.add_column(column, justify="left" if column in {"arm", "schedule"} else "right")
    for arm in experiment.arms:
        effect = arm.detectable_effect_sd
        table.add_row(
            arm.name,
            f"{arm.items:,}",
            f"{arm.copies:,.6g}",
            *(f"{n:,}" for n in (arm.placements, arm.tokens)),
            f"{arm.steps[0]:,}-{arm.steps[1]:,}",
            _schedule_text(arm.schedule),
            "" if effect is None else f"{effect:.2f} sd",
        )
    return table


def _schedule_text(schedule: object) -> str:
    if isinstance(schedule, str) or schedule is None:
        return schedule or ""
    return str(schedule).replace("=", " ")


def print_shown(shown: Sequence[Shown], n_all: int) -> None:
    """Prints placements: where, then the sequence with the payload between marks."""
    console = Console(highlight=False)
    for one in shown:
        row = one.row
        console.print(
            f"{row['experiment']} / {row['item']} copy {row['copy']} ({row['arm']}): step "
            f"{row['step']}, sequence "
            f"{row['sequence']}, {row['chunk']} block {row['block']} offset {row['offset']}, "
            f"{row['length']} tokens",
            style="bold",
            markup=False,
        )
        text = Text()
        text.append(one.before, style="dim")
        text.append("⟦" + one.payload + "⟧", style="bold reverse")
        text.append(one.after, style="dim")
        console.print(text)
        console.print()
    console.print(f"{len(shown)} of {n_all:,} placements")


def print_verified(report: VerifyReport, build: Path, full: bool) -> None:
    """Prints what was looked at, and where a moved build was made."""
    console = Console(highlight=False, soft_wrap=True)
    sample = "" if full else " (a sample; --full checks every byte)"
    console.print(
        f"{build}: verified{sample}: {report.files} files, {report.placements:,} placements, "
        f"{report.blocks:,} blocks by digest, {report.batches:,} micro-batches in the stock "
        f"loader's order"
    )
    if report.moved_from is not None:
        console.print(
            f"It was built in {report.moved_from}. To train on it here:  "
            f"{train_command(build.resolve() / 'litgpt.yaml')} --data.data_path {build.resolve()}"
        )
