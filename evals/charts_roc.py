"""ROC curves of an arm against the holdout: all of it, and the low rates on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping

from mixctl.evals.charts import INK, SERIES, SOFT, Canvas
from mixctl.evals.stats.roc import Curve

_DRAWN = {
    "run": (SERIES[-1], "-", 2.0),
    "run − twin": (SERIES[3], (0, (5, 1.5)), 1.8),
    "twin": (INK, (0, (1, 1.5)), 1.4),
}
"""name of a curve -> colour, dash, width; "mean of 3 twins" looks like a twin"""


def roc(name: str, label: str, curves: Mapping[str, Curve]) -> str:
    """Returns the curves on linear axes; keys are those of the legend."""
    canvas = _canvas(name, label, curves)
    canvas.axes.plot([0, 1], [0, 1], color=SOFT, lw=0.8)
    canvas.axes.set_xlim(-0.01, 1.01)
    canvas.axes.set_ylim(-0.01, 1.02)
    return canvas.finish()


def roc_low(name: str, label: str, curves: Mapping[str, Curve], least: float) -> str:
    """Returns the curves on logarithmic axes, from the rate `least` on; 1% is marked."""
    canvas = _canvas(name, label, curves)
    canvas.axes.plot([least, 1], [least, 1], color=SOFT, lw=0.8)
    canvas.axes.axvline(0.01, color=SOFT, lw=0.8, ls=(0, (1, 2)))
    canvas.axes.set_xscale("log")
    canvas.axes.set_yscale("log")
    canvas.axes.minorticks_off()
    canvas.axes.set_xlim(least, 1)
    canvas.axes.set_ylim(least, 1.1)
    return canvas.finish()


def _canvas(name: str, label: str, curves: Mapping[str, Curve]) -> Canvas:
    canvas = Canvas(name, label, height=2.6, left=0.45)
    for model, curve in curves.items():
        colour, dash, width = _DRAWN.get(model, _DRAWN["twin"])
        canvas.axes.plot(
            curve.false_rate, curve.true_rate, color=colour, ls=dash, lw=width, label=model
        )
    canvas.axes.set_xlabel("false-positive rate: holdout items above the threshold")
    canvas.axes.legend(frameon=False, loc="lower right", fontsize=9, labelcolor=INK)
    return canvas
