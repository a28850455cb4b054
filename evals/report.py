"""report.html: what was found, how large, how sure; then the pictures and the tables.

One file, no network: styles and pictures are inside. The text of the template is in
templates/report.html.j2; jinja2 escapes every value, so a name with markup stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixctl.evals import charts, formatting
from mixctl.evals.results import REPORT_NAME, Results, read_results
from mixctl.evals.rows import Row
from mixctl.shards.files import write_text

ALPHA = 0.05
MAX_TABLE_ROWS = 400
MAX_PICTURED = 3
"""metrics of an experiment that are drawn, the primary one first; the tables have all"""
_AGAINST = {
    "did": "the holdout, beyond the twin's difference",
    "holdout": "the holdout",
    "twin": "the twin",
    "level": "chance",
}


@dataclass(frozen=True)
class Verdict:
    """The first line on an experiment."""

    word: str
    css: str
    sentence: str


@dataclass(frozen=True)
class Picture:
    """An SVG with its heading and what it shows."""

    heading: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """An experiment as the report shows it."""

    name: str
    anchor: str
    kind: str
    primary: Row
    twin: Row | None
    verdict: Verdict
    legend: list[tuple[str, str]]
    pictures: list[Picture]
    last: list[Row]
    earlier: list[Row]
    n_hidden: int
    about: dict[str, Any]


def write_report(out: Path) -> Path:
    """Returns the path of report.html, made from the results in the folder.

    Raises:
        InputError: when the folder holds no finished eval.
    """
    path = out / REPORT_NAME
    write_text(path, render(read_results(out)))
    return path


def render(found: Results) -> str:
    """Returns the HTML of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mixctl.evals"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formatting.number,
        dose=formatting.dose,
        probability=formatting.probability,
        drawn=Markup,
    )
    environment.globals["interval"] = formatting.interval
    template = environment.get_template("report.html.j2")
    sections = [_section(found, row) for row in found.primary]
    return template.render(found=found, summary=found.summary, sections=sections, alpha=ALPHA)


def _section(found: Results, primary: Row) -> Section:
    rows = [row for row in found.rows if row.experiment == primary.experiment]
    about = found.summary["experiments"][primary.experiment]
    look = charts.looks(about["arms"], [arm for arm in about["arms"] if arm in about["timeline"]])
    twin_checkpoints = {r.checkpoint for r in rows if r.model == "twin" and r.step == primary.step}
    last = [r for r in rows if r.checkpoint in {primary.checkpoint, *twin_checkpoints}]
    last = [row for row in last if row.stratum is None]
    shown = {id(row) for row in last}
    earlier = [row for row in rows if id(row) not in shown]
    return Section(
        name=primary.experiment,
        anchor=f"e-{found.primary.index(primary)}",
        kind=primary.kind,
        primary=primary,
        twin=_same_in_twin(rows, primary),
        verdict=verdict(primary),
        legend=[(arm, charts.css_colour(look[arm])) for arm in about["arms"]],
        pictures=_pictures(found, rows, primary, look),
        last=last,
        earlier=earlier[:MAX_TABLE_ROWS],
        n_hidden=max(0, len(earlier) - MAX_TABLE_ROWS),
        about=about,
    )


def _same_in_twin(rows: Sequence[Row], primary: Row) -> Row | None:
    """Returns the negative control: the twin's own arm - holdout at the same step."""
    wanted = (primary.arm, None, primary.metric, "twin", primary.step, "holdout")
    for row in rows:
        if (row.arm, row.stratum, row.metric, row.model, row.step, row.contrast) == wanted:
            return row
    return None


def verdict(row: Row) -> Verdict:
    """Returns what the primary row says in words."""
    if row.estimate is None:
        return Verdict("no result", "none", row.note or "There is no estimate.")
    against = _AGAINST[row.contrast]
    size = f"{row.metric} {formatting.number(row.estimate, signed=row.contrast != 'level')}"
    if row.p_value is None:
        compared = "" if row.contrast == "level" else f" against {against}"
        why = f": {row.note}" if row.note else ""
        return Verdict("no test", "none", f"{row.arm}, {size}{compared}{why}.")
    if row.q_value is not None and row.q_value <= ALPHA:
        lower = row.estimate <= 0 and row.contrast != "level"
        word = "lower" if lower else "higher"
        return Verdict("found", "found", f"{row.arm} is {word} than {against}: {size}.")
    sentence = f"{row.arm} is not told apart from {against}: {size}."
    if row.mde is not None:
        least = formatting.number(row.mde)
        sentence += f" Effects below {least} would be missed more often than one time in five."
    return Verdict("not found", "open", sentence)


def _pictures(
    found: Results, rows: Sequence[Row], primary: Row, look: dict[str, charts.Look]
) -> list[Picture]:
    pictures = []
    levels = [row for row in rows if row.contrast == "level" and row.stratum is None]
    metrics = dict.fromkeys([primary.metric, *(row.metric for row in levels)])
    for metric in list(metrics)[:MAX_PICTURED]:
        of_metric = [row for row in levels if row.metric == metric]
        name = f"{primary.experiment}-{found.primary.index(primary)}-{metric}"
        at_last = [row for row in of_metric if row.step == primary.step]
        if at_last:
            svg = charts.dose_response(f"{name}-dose", at_last, look)
            caption = "mean per arm with 95% intervals; filled: run, hollow: twin"
            step = "the last checkpoint" if primary.step is None else f"step {primary.step}"
            pictures.append(Picture(f"{metric} by dose at {step}", caption, svg))
        if svg_or_none := charts.curves(f"{name}-curves", of_metric, look):
            caption = "lines: run, with 95% bands; dotted: twin"
            pictures.append(Picture(f"{metric} over training", caption, svg_or_none))
    return pictures + _timeline(found, primary, look)


def _timeline(found: Results, primary: Row, look: dict[str, charts.Look]) -> list[Picture]:
    about = found.summary["experiments"][primary.experiment]
    steps = [c["step"] for c in found.summary["checkpoints"] if c["step"] is not None]
    name = f"{primary.experiment}-{found.primary.index(primary)}-timeline"
    run_steps = found.summary["build"]["steps"]
    svg = charts.timeline(name, about["timeline"], look, run_steps, steps)
    if svg is None:
        return []
    caption = "copies placed in each fortieth of the run; dotted: checkpoints"
    return [Picture("When copies were placed", caption, svg)]
