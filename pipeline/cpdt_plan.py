"""What dependence runs cost and would find, and how plan and matrix are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mixctl.evals.cpdt import Scored
from mixctl.evals.cpdt_results import FOUND, NO_TEST
from mixctl.evals.formatting import interval, number, probability
from mixctl.evals.stats.dependence import detectable
from mixctl.pipeline.cpdt_prepare import Prepared, Run
from mixctl.shards.chunks import HEADER_BYTES

_WIDTH = 120


def summarise(prepared: Prepared, step_time: float | None = None) -> dict[str, Any]:
    """Returns the plan as plain values.

    Args:
        prepared: what is asked for.
        step_time: seconds of an optimizer step, where they are known.
    """
    request, geometry = prepared.request, prepared.geometry
    n_runs, n = len(prepared.runs), len(prepared.metrics)
    n_tests = n * (n - 1)
    run_tokens = geometry.sequences * geometry.max_seq_length
    state = prepared.checkpoint.state_path.stat().st_size
    chunk = HEADER_BYTES + geometry.blocks_per_chunk * geometry.sequence_tokens * (
        2 if geometry.dtype == "uint16" else 4
    )
    total_steps = n_runs * request.steps
    return {
        "checkpoint": {"folder": str(request.checkpoint), "step": prepared.step},
        "continuation": "resume: optimizer state and learning-rate schedule of the checkpoint",
        "runs": [_run(prepared, run) for run in prepared.runs],
        "steps": {
            "each": request.steps,
            "all": total_steps,
            "share_of_build": total_steps / prepared.record.geometry.steps,
        },
        "tokens": {"each": run_tokens, "all": n_runs * run_tokens},
        "seconds": None if step_time is None else total_steps * step_time,
        "bytes": {
            "data": n_runs * geometry.chunks * chunk,
            "checkpoints": (n_runs + 1) * state,
        },
        "base": {
            "pool": len(prepared.pool),
            "a_run": prepared.needed,
            "shared": prepared.base_shared,
        },
        "tests": n_tests,
        "detectable_sd": {r: detectable(r, n_tests) for r in _nearby(request.replicates)},
        "replicates": request.replicates,
        "metrics": dict(prepared.metrics),
        "untested": dict(prepared.untested),
        "notes": list(prepared.notes),
    }


def _nearby(replicates: int) -> list[int]:
    return sorted({3, 5, 8, 12, replicates})


def _run(prepared: Prepared, run: Run) -> dict[str, Any]:
    whose = run.experiments if run.like is None else (run.like,)
    lengths = [prepared.payloads[one].length[prepared.dealt(run, one)] for one in whose]
    tokens = sum(int(length.sum()) for length in lengths)
    run_tokens = prepared.geometry.sequences * prepared.geometry.max_seq_length
    return {
        "name": run.name,
        "role": run.role,
        "like": run.like,
        "payloads": sum(map(len, lengths)),
        "distinct": sum(len(prepared.payloads[one].table) for one in run.experiments),
        "tokens": tokens,
        "share": tokens / run_tokens,
    }


def print_plan(found: Mapping[str, Any]) -> None:
    """Prints a plan: the runs, their cost, what they would find."""
    console = _console()
    table = Table(box=None, pad_edge=False)
    for column in ("run", "payloads", "distinct in the build", "tokens", "share"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for run in found["runs"]:
        cells = (f"{run[name]:,}" for name in ("payloads", "distinct", "tokens"))
        name = run["name"] if run["like"] is None else f"{run['name']} (as {run['like']})"
        table.add_row(name, *cells, f"{run['share']:.3%}")
    console.print(table)
    steps, size, base = found["steps"], found["bytes"], found["base"]
    click.echo(f"from step {found['checkpoint']['step']:,}, {found['continuation']}")
    click.echo(
        f"{len(found['runs'])} runs x {steps['each']:,} steps = {steps['all']:,} steps, "
        f"{steps['share_of_build']:.2%} of the build's run; {found['tokens']['all']:,} tokens"
        + ("" if found["seconds"] is None else f"; {found['seconds'] / 3600:.1f} h")
    )
    click.echo(
        f"disk: {_bytes(size['data'])} of data, {_bytes(size['checkpoints'])} of checkpoints"
    )
    shared = "runs share some: the pool is too small" if base["shared"] else "no two runs share any"
    click.echo(f"base: {base['a_run']:,} sequences a run out of {base['pool']:,}; {shared}")
    sizes = ", ".join(f"{r}: {number(sd)} sd" for r, sd in found["detectable_sd"].items())
    click.echo(
        f"{found['tests']} tests, corrected by Holm. Smallest dependence found with power 0.8, in "
        f"standard deviations between no-op runs, by how many there are: {sizes} "
        f"(here {found['replicates']})"
    )
    for name, metric in sorted(found["metrics"].items()):
        click.echo(f"{name}: outcome is {metric}")
    for name, why in sorted(found["untested"].items()):
        click.echo(f"{name}: not tested: {why}")
    for note in found["notes"]:
        click.echo(f"note: {note}")


def print_matrix(found: Scored, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the entries off the diagonal, findings first, and what would have been found."""
    console = _console()
    table = Table(box=None, pad_edge=False)
    table.add_column("after")
    table.add_column("outcome of")
    for column in ("change", "95%, all together", "p, Holm", "would be found"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    tested = [row for row in rows if row["role"] == "dependence"]
    for row in sorted(tested, key=lambda row: (row["verdict"] != FOUND, row["p_holm"] or 2.0)):
        table.add_row(
            row["run"],
            f"{row['experiment']} ({row['metric']})",
            number(row["estimate"], signed=True),
            interval(row["joint_low"], row["joint_high"]),
            probability(row["p_holm"]),
            number(row["mde"]),
            row["verdict"],
        )
    console.print(table)
    n_found = sum(row["verdict"] == FOUND for row in tested)
    sd = detectable(len(found.no_ops), found.matrix.n_tests)
    click.echo(
        f"{n_found} of {found.matrix.n_tests} found, against {len(found.no_ops)} no-op runs; "
        f"{number(sd)} of their standard deviations would have been found with power 0.8"
    )
    own = [r["experiment"] for r in rows if r["role"] == "own" and r["verdict"] != FOUND]
    if own:
        click.echo(f"not moved by their own data: {', '.join(own)}")
    if silent := sorted({row["experiment"] for row in tested if row["verdict"] == NO_TEST}):
        click.echo(f"no test, the no-op runs do not differ: {', '.join(silent)}")
    for name, why in sorted(found.record.untested.items()):
        click.echo(f"{name}: not tested: {why}")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def _bytes(n: int) -> str:
    return f"{n / 1e9:,.2f} GB" if n >= 10**8 else f"{n / 1e6:,.1f} MB"
