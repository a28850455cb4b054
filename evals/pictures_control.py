"""The pictures of an experiment that was steered: set point and value, and the texts in between."""

from __future__ import annotations

from typing import Any

from mixctl.evals.charts import HOLDOUT, SERIES, Canvas, plain
from mixctl.evals.picture import Cell, Drawn, Picture

_HEAD = ["after step", "set point", "value", "texts until the next"]


def steering(drawn: Drawn) -> list[Picture]:
    """Returns what was measured and what was placed; nothing where nothing was steered."""
    decisions: list[dict[str, Any]] = drawn.about.get("control", [])
    if not decisions:
        return []
    return [_values(drawn, decisions), _texts(drawn, decisions)]


def _values(drawn: Drawn, decisions: list[dict[str, Any]]) -> Picture:
    label = "Closed loop: the probes' mean probability and its set point at each checkpoint"
    canvas = Canvas(f"{drawn.name}-control-value", label, height=2.4)
    steps = [one["after_step"] for one in decisions]
    canvas.axes.plot(steps, [one["set_point"] for one in decisions], color=HOLDOUT, lw=1.6)
    measured = [(one["after_step"], one["value"]) for one in decisions if one["value"] is not None]
    style: dict[str, Any] = {"color": SERIES[-1], "lw": 1.8, "marker": "s", "ms": 4}
    canvas.axes.plot([step for step, _ in measured], [value for _, value in measured], **style)
    canvas.axes.set_xlabel("optimizer step")
    canvas.axes.set_xlim(0, drawn.run_steps)
    numbers = [
        [
            Cell(str(one["after_step"])),
            Cell(plain(one["set_point"])),
            Cell(plain(one["value"])),
            Cell(f"{one['texts']:,}"),
        ]
        for one in decisions
    ]
    caption = "Grey: the set point. Marks: mean probability of the probes when it was decided."
    return Picture(
        "Value and set point of the closed loop", caption, canvas.finish(), _HEAD, numbers
    )


def _texts(drawn: Drawn, decisions: list[dict[str, Any]]) -> Picture:
    label = "Closed loop: the texts placed between two checkpoints"
    canvas = Canvas(f"{drawn.name}-control-texts", label, height=1.8)
    inside = [one for one in decisions if one["until_step"] > one["after_step"]]
    edges = [one["after_step"] for one in inside] + [inside[-1]["until_step"]]
    texts = [one["texts"] for one in inside]
    canvas.axes.stairs(texts, edges, color=SERIES[-1], fill=True, alpha=0.5)
    canvas.axes.set_xlabel("optimizer step")
    canvas.axes.set_xlim(0, drawn.run_steps)
    canvas.axes.set_ylim(0, None)
    caption = f"{sum(texts):,} texts in all, decided on {len(inside)} times."
    return Picture("Texts placed by the closed loop", caption, canvas.finish())
