"""report.html: what was found, how large, how sure; then the pictures, the rows and the tests.

One file, no script, no network: styles and pictures are inside, and the page forbids itself to load
anything. Every number links to its row of results.parquet, every row to the test behind it. The
text of the template is in templates/; jinja2 escapes every value, so a name with markup stays text.

    findings.py     verdicts in words: the first screen
    pictures*.py    which pictures, their captions and numbers; charts*.py draws them
    report_rows.py  which rows are shown, and their anchors
    glossary.py     the tests explained
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixctl.evals import (
    charts,
    findings,
    formatting,
    glossary,
    item_scores,
    report_rows,
    verdicts,
)
from mixctl.evals.metric_words import described
from mixctl.evals.picture import Drawn, Picture
from mixctl.evals.pictures import pictures
from mixctl.evals.report_rows import Listing, Placed
from mixctl.evals.results import REPORT_NAME, Results, read_results
from mixctl.evals.rows import Row
from mixctl.evals.stats import planning
from mixctl.evals.templating import environment
from mixctl.shards.files import remove_leftovers, write_text
from mixctl.shards.locks import named

if TYPE_CHECKING:
    from jinja2 import Template

WHOLE_ANCHOR, WHOLE_NAME = "whole", "The model as a whole"


@dataclass(frozen=True)
class Section:
    """An experiment as the report shows it.

    Attributes:
        anchor: its id on the page.
        finding: what is said first.
        about: what results.json says of it.
        controls: each twin's own arm - holdout at the same step: the negative controls.
        legend: arm, swatch.
        pictures: in the order they are shown.
        rows: those of results.parquet that are shown.
    """

    anchor: str
    finding: findings.Finding
    about: dict[str, Any]
    controls: list[Placed]
    legend: list[tuple[str, str]]
    pictures: list[Picture]
    rows: Listing


def write_report(out: Path) -> Path:
    """Returns the path of report.html, made from the results in the folder.

    Raises:
        InputError: when the folder holds no finished eval.
    """
    path = out / REPORT_NAME
    with named(out):
        remove_leftovers(out)
        write_text(path, render(read_results(out), out))
    return path


def render(found: Results, out: Path) -> str:
    """Returns the HTML of a report; the scores of items are read from `out`."""
    said = findings.findings(found)
    scored = [finding for finding in said if finding.row is not None]
    steps = {finding.row.step for finding in scored if finding.row is not None}
    names = found.summary.get("samples", [])
    samples = item_scores.SampleFiles(out, next(iter(steps), None), names)
    sections = [_section(found, finding, samples, f"e{n}") for n, finding in enumerate(scored)]
    whole = report_rows.whole_model(found)
    telling = report_rows.telling(whole)
    listings = [section.rows for section in sections]
    if telling:
        step, quoted = telling[0].row.step, {placed.place for placed in telling}
        listings.append(report_rows.listing(WHOLE_ANCHOR, WHOLE_NAME, whole, step, quoted))
    return _template().render(
        found=found,
        summary=found.summary,
        findings=said,
        tally=findings.tally(said),
        sections=sections,
        anchors={section.finding.experiment: section.anchor for section in sections},
        whole=telling,
        replicated=_replicated(found),
        listings=listings,
        notes=[*found.notes, *([] if samples.any else [item_scores.MISSING])],
        tests=[*glossary.TESTS, glossary.OTHER, glossary.NO_TEST],
        numbers=glossary.NUMBERS,
    )


def _template() -> Template:
    from markupsafe import Markup

    made = environment("mixctl.evals")
    made.filters.update(
        number=formatting.number,
        dose=formatting.dose,
        probability=formatting.probability,
        drawn=Markup,
    )
    made.globals.update(
        interval=formatting.interval,
        test_of=glossary.test_of,
        method_of=glossary.method_of,
        described=described,
        with_unit=verdicts.with_unit,
        alpha=planning.ALPHA,
    )
    return made.get_template("report.html.j2")


def _section(
    found: Results, finding: findings.Finding, samples: item_scores.SampleFiles, anchor: str
) -> Section:
    primary = finding.row
    if primary is None:
        raise ValueError(f"{finding.experiment} was not scored")
    rows = report_rows.of_experiment(found, finding.experiment)
    about = found.summary["experiments"][finding.experiment]
    look = charts.looks(about["arms"], [arm for arm in about["arms"] if arm in about["timeline"]])
    steps = [c["step"] for c in found.summary["checkpoints"] if c["step"] is not None]
    drawn = Drawn(
        name=anchor,
        primary=primary,
        rows=rows,
        look=look,
        arms=about["arms"],
        scores=samples.scores(primary),
        about=about,
        run_steps=found.summary["build"]["steps"],
        checkpoints=steps,
    )
    made = pictures(drawn)
    controls = _same_in_twins(rows, primary)
    quoted = {place for picture in made for place in picture.places} | {finding.place or 0}
    quoted |= {control.place for control in controls}
    return Section(
        anchor=anchor,
        finding=finding,
        about=about,
        controls=controls,
        legend=[(arm, charts.swatch(look[arm])) for arm in about["arms"]],
        pictures=made,
        rows=report_rows.listing(anchor, finding.experiment, rows, primary.step, quoted),
    )


def _same_in_twins(rows: Sequence[Placed], primary: Row) -> list[Placed]:
    """Returns the negative controls: each twin's own arm - holdout at the same step."""
    wanted = (primary.arm, None, primary.metric, "twin", primary.step, "holdout")

    def names(row: Row) -> tuple[object, ...]:
        return (row.arm, row.stratum, row.metric, row.model, row.step, row.contrast)

    return [placed for placed in rows if names(placed.row) == wanted]


def _replicated(found: Results) -> dict[int | None, int]:
    """Returns step -> how many baselines share it, for those that several do."""
    counts = Counter(baseline["step"] for baseline in found.summary["baselines"])
    return {step: n for step, n in counts.items() if n > 1}
