"""Pictures of the report: SVG that takes its colours from the page, so that dark mode works.

matplotlib draws with stand-in colours; each is replaced by a CSS variable of the page. Output
depends on the data alone (no date, ids salted by the picture's name).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixctl.evals.formatting import dose as dose_text
from mixctl.evals.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, GRID, HOLDOUT = "#010203", "#010204", "#010205", "#010206"
SERIES = [f"#0a0b{number:02x}" for number in range(1, 9)]
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    HOLDOUT: "var(--holdout)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)},
}
_DASHES = ["-", (0, (5, 1.5)), (0, (2, 1.5)), (0, (5, 1.5, 1, 1.5))]


@dataclass(frozen=True)
class Look:
    """How an arm is drawn in every picture of its experiment."""

    colour: str
    dash: Any


def looks(arms: Sequence[str], dosed: Sequence[str]) -> dict[str, Look]:
    """Returns a look per arm: grey for holdouts, light to dark by dose for the others."""
    found = {arm: Look(HOLDOUT, "-") for arm in arms}
    for place, arm in enumerate(dosed):
        last = max(len(dosed) - 1, 1)
        shade = round(place * (len(SERIES) - 1) / last) if len(dosed) > 1 else len(SERIES) - 1
        repeats = len(dosed) // len(SERIES) + 1
        found[arm] = Look(SERIES[shade], _DASHES[place % repeats % len(_DASHES)])
    return found


def dose_response(name: str, rows: Sequence[Row], look: Mapping[str, Look]) -> str:
    """Returns the picture of levels by arm at one checkpoint: the run filled, the twin hollow."""
    arms = list(dict.fromkeys(row.arm for row in sorted(rows, key=lambda r: (r.dose, r.arm))))
    axes, finish = _canvas(name, width=max(4.4, 1.4 + 0.55 * len(arms)), height=2.7)
    for model, shift in (("twin", 0.12), ("run", -0.12)):
        for row in rows:
            if row.model == model and row.estimate is not None:
                _point(axes, row, arms.index(row.arm) + shift, look[row.arm].colour, model)
    doses = {row.arm: row.dose for row in rows}
    labels = [f"{arm}\n{dose_text(doses[arm])}×" for arm in arms]
    steep = len(arms) > 9 or max(map(len, arms)) > 12
    axes.set_xticks(
        range(len(arms)), labels, rotation=45 if steep else 0, ha="right" if steep else "center"
    )
    axes.set_xlim(-0.6, len(arms) - 0.4)
    return finish()


def _point(axes: Axes, row: Row, at: float, colour: str, model: str) -> None:
    estimate = row.estimate or 0.0
    if row.ci_low is not None and row.ci_high is not None:
        axes.plot([at, at], [row.ci_low, row.ci_high], color=colour, lw=1.6, solid_capstyle="round")
    face = colour if model == "run" else "none"
    axes.plot([at], [estimate], "o", ms=6.5, mfc=face, mec=colour, mew=1.6)


def curves(name: str, rows: Sequence[Row], look: Mapping[str, Look]) -> str | None:
    """Returns levels over checkpoints, a line an arm (twin dotted); None for a single step."""
    steps = sorted({row.step for row in rows if row.step is not None})
    if len(steps) < 2:
        return None
    axes, finish = _canvas(name, width=6.2, height=2.7)
    for model in ("twin", "run"):
        for arm in dict.fromkeys(row.arm for row in rows):
            points = [r for r in rows if r.arm == arm and r.model == model and r.step is not None]
            points = sorted(
                (p for p in points if p.estimate is not None), key=lambda r: r.step or 0
            )
            _line(axes, points, look[arm], model)
    axes.set_xlabel("optimizer step")
    axes.set_xlim(0, None)
    return finish()


def _line(axes: Axes, points: Sequence[Row], look: Look, model: str) -> None:
    steps = [point.step or 0 for point in points]
    values = [point.estimate or 0.0 for point in points]
    if model == "twin":
        axes.plot(steps, values, color=look.colour, lw=1, ls=(0, (1, 1.5)))
        return
    axes.plot(steps, values, color=look.colour, lw=2, ls=look.dash, marker="o", ms=3.5)
    low, high = [p.ci_low for p in points], [p.ci_high for p in points]
    if None not in low and None not in high and points:
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.13, lw=0)  # type: ignore[arg-type]


def timeline(
    name: str,
    counts: Mapping[str, Sequence[int]],
    look: Mapping[str, Look],
    run_steps: int,
    checkpoints: Sequence[int],
) -> str | None:
    """Returns when copies were placed, stacked by arm, with the checkpoints as ticks."""
    counts = {arm: values for arm, values in counts.items() if sum(values)}
    if not counts:
        return None
    axes, finish = _canvas(name, width=6.2, height=1.7)
    n_bins = len(next(iter(counts.values())))
    edges = [run_steps * place / n_bins for place in range(n_bins)]
    base = [0.0] * n_bins
    for arm, values in counts.items():
        filled = [place for place, value in enumerate(values) if value]
        axes.bar(
            [edges[place] for place in filled],
            [values[place] for place in filled],
            run_steps / n_bins * 0.86,
            [base[place] for place in filled],
            align="edge",
            color=look[arm].colour,
            lw=0,
        )
        base = [low + value for low, value in zip(base, values, strict=True)]
    for step in checkpoints:
        axes.axvline(step, color=SOFT, lw=0.8, ls=(0, (1, 2)))
    axes.set_xlim(0, run_steps * 1.01)
    axes.set_xlabel("optimizer step")
    return finish()


def _canvas(name: str, width: float, height: float) -> tuple[Axes, Callable[[], str]]:
    """Returns axes to draw on and a function that gives the finished SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "text.color": INK}
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(colors=SOFT, length=0, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)

    def finish() -> str:
        buffer = io.StringIO()
        with rc_context(style):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return _inline(buffer.getvalue(), name)

    return axes, finish


def _inline(svg: str, name: str) -> str:
    """Returns the <svg> element alone, colours as CSS variables, ids unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
    unique = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = re.sub(r'\bid="', f'id="{unique}-', svg)
    svg = svg.replace("url(#", f"url(#{unique}-").replace('href="#', f'href="#{unique}-')
    return svg.replace("<svg ", '<svg role="img" ', 1)


def css_colour(look: Look) -> str:
    """Returns the CSS value of a look's colour."""
    return _VARIABLES[look.colour]
