"""What results.json must hold for a report to be made of it, checked before anything is drawn.

The file is read as plain values; the models here say which, and what must agree: an experiment's
arms with its timeline, and both with the rows of results.parquet. More keys are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixctl.evals.rows import CONTRASTS, Row
from mixctl.evals.whole_model import MODEL

_Count = Annotated[int, Field(ge=0, le=2**62)]
_MOST_NAMED = 5


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class _Build(_Plain):
    folder: str
    digest: str
    steps: Annotated[int, Field(ge=1, le=2**62)]
    global_batch: _Count
    max_seq_length: _Count


class _Model(_Plain):
    folder: str
    step: _Count | None
    step_source: str


class _About(_Plain):
    kind: str
    items: _Count
    placements: _Count
    arms: list[str]
    timeline: dict[str, list[_Count]]


class _Summary(_Plain):
    build: _Build
    checkpoints: list[_Model]
    baselines: list[_Model]
    experiments: dict[str, _About]
    errors: dict[str, str]
    notes: list[str]
    samples: list[str] = []


def summary_problems(plain: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Returns what keeps results.json from being one, or from going with the rows; else nothing."""
    try:
        said = _Summary.model_validate(plain)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return found[:_MOST_NAMED]
    problems = [f"samples: {n!r} is no file name" for n in said.samples if PurePath(n).name != n]
    for name, about in said.experiments.items():
        problems += [f"experiments.{name}: {why}" for why in _about_problems(about)]
    for place, row in enumerate(rows):
        problems += [f"row {place}: {why}" for why in _row_problems(row, said)]
    return problems[:_MOST_NAMED]


def _about_problems(about: _About) -> list[str]:
    strangers = sorted(about.timeline.keys() - set(about.arms))
    problems = [f"timeline of arm '{arm}', which is none" for arm in strangers]
    if len({len(counts) for counts in about.timeline.values()}) > 1:
        problems.append("timelines of different lengths")
    return problems


def _row_problems(row: Row, said: _Summary) -> list[str]:
    if row.contrast not in CONTRASTS:
        return [f"contrast is {row.contrast!r} (valid: {', '.join(CONTRASTS)})"]
    if row.experiment == MODEL:  # its rows are gathered from all experiments
        return []
    about = said.experiments.get(row.experiment)
    if about is None:
        return [] if row.experiment in said.errors else [f"no experiment '{row.experiment}'"]
    return (
        [] if row.arm in about.arms else [f"experiment '{row.experiment}' has no arm '{row.arm}'"]
    )
