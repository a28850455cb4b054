"""What `mixctl diff` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixctl.pipeline.diff import Content, Difference, Dose, Moves
from mixctl.pipeline.text import TABLE_WIDTH

_MOST_FILES = 10


def print_difference(found: Difference) -> None:
    """Prints a difference, the parts that are equal left out."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    if found.same:
        console.print(f"{found.a} and {found.b}: no difference", markup=False)
        return
    for setting in found.settings:
        console.print(f"{setting.key}: {_shown(setting.a)} -> {_shown(setting.b)}", markup=False)
    if found.doses:
        console.print(_doses(found.doses))
    for moves in found.placements:
        console.print(_moves(moves), markup=False)
    if found.content is not None:
        _print_content(console, found.content)


def _shown(value: object) -> str:
    return "(not given)" if value is None else str(value)


def _doses(doses: list[Dose]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "arm", "items", "copies", "placements", "tokens"):
        left = column in ("experiment", "arm")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for dose in doses:
        nothing = (0, 0, 0, 0)
        pairs = zip(dose.a or nothing, dose.b or nothing, strict=True)
        cells = [f"{a:,}" if a == b else f"{a:,} -> {b:,}" for a, b in pairs]
        table.add_row(Text(dose.experiment), Text(dose.arm), *cells)
    return table


def _moves(one: Moves) -> str:
    items = (
        (one.items_in_another_arm, "in another arm"),
        (one.items_only_a, "only in A"),
        (one.items_only_b, "only in B"),
    )
    placements = (
        (one.moved, "moved"),
        (one.payload, "with another payload"),
        (one.only_a, "only in A"),
        (one.only_b, "only in B"),
        (one.same, "the same"),
    )
    parts = []
    for what, counts in (("items", items), ("placements", placements)):
        said = ", ".join(f"{count:,} {how}" for count, how in counts if count)
        parts += [f"{what} {said}"] if said else []
    return f"{one.experiment}: {'; '.join(parts)}"


def _print_content(console: Console, content: Content) -> None:
    for what, names in (
        ("files only in A", content.files_only_a),
        ("files only in B", content.files_only_b),
        ("files that differ", content.files_changed),
    ):
        if names:
            more = f" and {len(names) - _MOST_FILES} more" if len(names) > _MOST_FILES else ""
            listed = ", ".join(names[:_MOST_FILES])
            console.print(f"{what}: {len(names):,}: {listed}{more}", markup=False)
    if content.sequences_changed is None:
        console.print("the runs have other shapes: their sequences cannot be compared")
    elif content.sequences_changed:
        console.print(
            f"{content.sequences_changed:,} sequences of the run hold other tokens "
            f"({content.tokens_changed:,} tokens), the first at step {content.first_step:,}"
        )
