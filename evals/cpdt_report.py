"""report.html of dependence runs: what was found, the heat map, every entry, what was not tested.

One file, no script, no network, in the manner of the report of an eval. A cell's colour is its size
in standard errors, so columns of different metrics can be compared; its number is the estimate in
the metric's unit. A finding is framed, so nobody needs the colours.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixctl.evals import formatting
from mixctl.evals.charts import INCHES_A_LETTER, shortened
from mixctl.evals.cpdt_results import (
    FOUND,
    NO_SPREAD,
    NO_TEST,
    REPORT_NAME,
    SUMMARY_NAME,
    TABLE_NAME,
)
from mixctl.evals.templating import environment
from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text

_CELL = 0.72
"""inches of a cell's side"""
_FAR = 8.0
"""standard errors at which the colour is darkest"""


def write_report(out: Path) -> Path:
    """Returns the path of report.html, made from the results in the folder.

    Raises:
        InputError: when the folder holds no scored dependence runs.
    """
    summary, rows = read_results(out)
    path = out / REPORT_NAME
    write_text(path, render(summary, rows))
    return path


def read_results(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns (dependence.json, the rows of dependence.parquet).

    Raises:
        InputError: when they are missing or broken.
    """
    try:
        summary = json.loads((out / SUMMARY_NAME).read_text(encoding="utf-8"))
        return dict(summary), list(pq.read_table(out / TABLE_NAME).to_pylist())
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing; {out} holds no scored runs") from None
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{out}: the results are broken ({error})") from None


def render(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Returns the HTML of a report."""
    from markupsafe import Markup

    made = environment("mixctl.evals")
    made.filters.update(number=formatting.number, probability=formatting.probability)
    made.globals.update(interval=formatting.interval)
    by_role = {
        role: [r for r in rows if r["role"] == role] for role in ("dependence", "own", "all")
    }
    return made.get_template("cpdt.html.j2").render(
        summary=summary,
        set=summary["set"],
        roles=by_role,
        found=[row for row in by_role["dependence"] if row["verdict"] == FOUND],
        weak=[row for row in by_role["own"] if row["verdict"] != FOUND],
        silent=sorted({row["experiment"] for row in rows if row["verdict"] == NO_TEST}),
        no_spread=NO_SPREAD,
        heat_map=Markup(heat_map(summary, rows)),
    )


def heat_map(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Returns the matrix as an SVG element: a row a run, a column an experiment's outcome."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names, columns = summary["rows"], summary["columns"]
    of = {(row["run"], row["experiment"]): row for row in rows}
    longest = max(len(shortened(name)) for name in [*names, *columns])
    side, top = 0.2 + INCHES_A_LETTER * longest, 0.2 + INCHES_A_LETTER * longest
    wide, high = side + _CELL * len(columns) + 0.1, top + _CELL * len(names) + 0.1
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cpdt", "font.size": 9}):
        figure = Figure(figsize=(wide, high))
        FigureCanvasSVG(figure)
        axes = figure.add_axes(
            (side / wide, 0.1 / high, 1 - (side + 0.1) / wide, 1 - (top + 0.1) / high)
        )
        _label(axes, names, columns)
        for at, run in enumerate(names):
            for to, name in enumerate(columns):
                _cell(axes, at, to, of[run, name])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.S)
    label = f"matrix of {len(names)} runs by {len(columns)} outcomes; its numbers are in the tables"
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _standard_errors(row: dict[str, Any]) -> float:
    """Returns the size of an entry in standard errors, 0 where there is no test."""
    return 0.0 if row["se"] is None else float(row["estimate"] / row["se"])


def _label(axes: Any, names: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [shortened(n) for n in columns], rotation=90)
    axes.set_yticks(range(len(names)), [shortened(n) for n in names])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cell(axes: Any, at: int, to: int, row: dict[str, Any]) -> None:
    """Draws an entry: a square of its colour, its number, a frame where it is a finding."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    size = max(-_FAR, min(_FAR, _standard_errors(row)))
    colour = colormaps["RdBu_r"](0.5 + size / (2 * _FAR))
    found = row["role"] == "dependence" and row["verdict"] == FOUND
    edge, width = ("black", 2.5) if found else ("white", 1.0)
    axes.add_patch(
        Rectangle((to - 0.46, at - 0.46), 0.92, 0.92, facecolor=colour, edgecolor=edge, lw=width)
    )
    text = formatting.number(row["estimate"], signed=True) if row["se"] is not None else "no test"
    ink = "white" if abs(size) > 0.7 * _FAR else "black"
    axes.text(to, at, text, ha="center", va="center", fontsize=8, color=ink)
