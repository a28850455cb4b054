"""What the commands print."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixctl.shards.record import BuildRecord

ENVIRONMENT = "LITDATA_DISABLE_VERSION_CHECK=1"
"""litdata otherwise asks its package index at every start and urges an upgrade that changes the order"""


def train_command(config: Path) -> str:
    """Returns the command that trains on a build."""
    return f"{ENVIRONMENT} litgpt pretrain --config {config}"


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
        f"{out}: {geometry.steps:,} steps x {geometry.global_batch} sequences x {geometry.max_seq_length} "
        f"tokens, {geometry.chunks} chunks"
    )
    console.print("Check it:  " + f"mixctl verify {out}")
    console.print("Train it:  " + train_command(out.resolve() / "litgpt.yaml"))
    if record.control:
        console.print("The twin:  " + train_command(out.resolve() / "litgpt-control.yaml"))
