"""Pictures of levels: by dose at one checkpoint, and over the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixctl.evals.charts import INCHES_A_LETTER, INK, WIDTH, Canvas, Look, shortened
from mixctl.evals.formatting import dose as dose_text
from mixctl.evals.rows import Row

_TURNED = 0.74
_MOST_NAMED = 12
_LABEL_GAP = 0.075


def dose_response(name: str, label: str, rows: Sequence[Row], look: Mapping[str, Look]) -> str:
    """Returns the picture of levels by arm at one checkpoint: the run filled, the twin hollow.

    Every row has an estimate.
    """
    by_dose = sorted(rows, key=lambda row: (row.dose, row.arm))
    doses = {row.arm: f"{dose_text(row.dose)}×" for row in by_dose}
    arms = list(doses)
    room = (WIDTH - 0.8) / len(arms) / INCHES_A_LETTER
    turned = max(len(shortened(arm)) for arm in arms) > room
    joint = ", " if turned else "\n"
    labels = [f"{shortened(arm)}{joint}{doses[arm]}" for arm in arms]
    bottom = 0.15 + INCHES_A_LETTER * _TURNED * max(map(len, labels)) if turned else 0.45
    canvas = Canvas(name, label, height=1.9 + bottom, bottom=bottom)
    for model, shift in (("twin", 0.12), ("run", -0.12)):
        for row in rows:
            if row.model == model:
                _point(canvas, row, arms.index(row.arm) + shift, look[row.arm])
    canvas.axes.set_xticks(range(len(arms)), labels, parse_math=False)
    if turned:
        canvas.axes.tick_params(axis="x", rotation=45)
        for tick in canvas.axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    canvas.axes.set_xlim(-0.6, len(arms) - 0.4)
    return canvas.finish()


def _point(canvas: Canvas, row: Row, at: float, look: Look) -> None:
    if row.ci_low is not None and row.ci_high is not None:
        ends = [row.ci_low, row.ci_high]
        canvas.axes.plot([at, at], ends, color=look.colour, lw=1.6, solid_capstyle="round")
    face = look.colour if row.model == "run" else "none"
    estimate = row.estimate or 0.0
    canvas.axes.plot([at], [estimate], look.marker, ms=6, mfc=face, mec=look.colour, mew=1.5)


def curves(name: str, label: str, rows: Sequence[Row], look: Mapping[str, Look]) -> str:
    """Returns levels over checkpoints, a line an arm, named at its end; the twin's are dotted.

    Every row has an estimate and a step.
    """
    arms = list(dict.fromkeys(row.arm for row in rows))
    named = [shortened(arm) for arm in arms] if len(arms) <= _MOST_NAMED else []
    right = 0.15 + INCHES_A_LETTER * max(map(len, named), default=0)
    canvas = Canvas(name, label, height=2.5, right=right)
    ends = []
    for model in ("twin", "run"):
        for arm in arms:
            points = [row for row in rows if (row.arm, row.model) == (arm, model)]
            points.sort(key=lambda row: row.step or 0)
            _line(canvas, points, look[arm])
            if points and model == "run":
                ends.append((points[-1].estimate or 0.0, shortened(arm)))
    canvas.axes.set_xlabel("optimizer step")
    canvas.axes.set_xlim(0, None)
    if named:
        _name_ends(canvas, ends)
    return canvas.finish()


def _line(canvas: Canvas, points: Sequence[Row], look: Look) -> None:
    if not points:
        return
    steps = [point.step or 0 for point in points]
    values = [point.estimate or 0.0 for point in points]
    if points[0].model == "twin":
        canvas.axes.plot(steps, values, color=look.colour, lw=1.2, ls=(0, (1, 1.5)))
        return
    style = {"color": look.colour, "lw": 1.8, "ls": look.dash, "marker": look.marker, "ms": 4}
    canvas.axes.plot(steps, values, **style)
    band = [(p.step, p.ci_low, p.ci_high) for p in points if None not in (p.ci_low, p.ci_high)]
    if len(band) > 1:
        at, low, high = zip(*band, strict=True)
        canvas.axes.fill_between(at, low, high, color=look.colour, alpha=0.13, lw=0)


def _name_ends(canvas: Canvas, ends: Sequence[tuple[float, str]]) -> None:
    """Writes the arms' names behind their lines, moved apart where lines end close together."""
    bottom, top = canvas.axes.get_ylim()
    heights = spread([(value - bottom) / (top - bottom) for value, _ in ends])
    for (_, name), height in zip(sorted(ends), heights, strict=True):
        canvas.axes.text(
            1.01,
            height,
            name,
            transform=canvas.axes.transAxes,
            va="center",
            color=INK,
            fontsize=9,
            parse_math=False,
        )


def spread(heights: Sequence[float], gap: float = _LABEL_GAP) -> list[float]:
    """Returns the heights in rising order, moved so that neighbours are at least `gap` apart.

    Groups that are too close are centred on their mean.

        0.50, 0.52, 0.9 with gap 0.1 -> 0.46, 0.56, 0.9
    """
    groups: list[list[float]] = []
    for height in sorted(heights):
        groups.append([height])
        while len(groups) > 1 and _lowest(groups[-1], gap) < _highest(groups[-2], gap) + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, gap) + gap * n for group in groups for n in range(len(group))]


def _lowest(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _highest(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2
