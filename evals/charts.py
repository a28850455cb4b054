"""The canvas of the report's pictures: SVG that takes its colours from the page.

matplotlib draws with stand-in colours; each is replaced by a CSS variable of the page, so that dark
mode and print work. Output depends on the data alone (no date, ids salted by the picture's name).
Nobody needs the colours: arms differ in dash and marker too, or are named beside their marks, and
every picture has a label for those who do not see it (its numbers stand in a table below it).

The margins are set from the labels' lengths: matplotlib's layout engines draw a figure several
times, and a report has a hundred of them.

    charts.py         canvas, looks, swatches
    charts_levels.py  dose-response, trajectories
    charts_bands.py   histograms of scores, placement over the run
    charts_roc.py     ROC curves
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from mixctl.evals.formatting import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID, HOLDOUT = "#010203", "#010204", "#010205", "#010206"
SERIES = [f"#0a0b{number:02x}" for number in range(1, 9)]
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    HOLDOUT: "var(--holdout)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)},
}
_DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (2, 1.5)), (0, (5, 1.5, 1, 1.5))]
_MARKERS = ["s", "^", "D", "v", "P", "X"]
WIDTH = 4.4
"""inches; the page scales a picture to its column"""
INCHES_A_LETTER = 0.073
"""of a tick label; a little more than the mean letter is wide"""
_LONGEST_LABEL = 18


@dataclass(frozen=True)
class Look:
    """How an arm is drawn in every picture of its experiment."""

    colour: str
    dash: Any
    marker: str


def looks(arms: Sequence[str], dosed: Sequence[str]) -> dict[str, Look]:
    """Returns a look per arm: grey discs for holdouts, light to dark by dose for the others."""
    found = {arm: Look(HOLDOUT, "-", "o") for arm in arms}
    for place, arm in enumerate(dosed):
        last = max(len(dosed) - 1, 1)
        shade = round(place * (len(SERIES) - 1) / last) if len(dosed) > 1 else len(SERIES) - 1
        dash = _DASHES[place % len(_DASHES)]
        found[arm] = Look(SERIES[shade], dash, _MARKERS[place % len(_MARKERS)])
    return found


def swatch(look: Look) -> str:
    """Returns a small SVG for legends: the line and the marker of a look."""
    colour = _VARIABLES[look.colour]
    dash = "" if look.dash == "-" else " ".join(f"{2 * part:g}" for part in look.dash[1])
    return (
        '<svg class="swatch" viewBox="0 0 30 12" aria-hidden="true" focusable="false">'
        f'<path d="M0 6H30" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        f'<path d="{_SHAPES[look.marker]}" fill="{colour}"/></svg>'
    )


_SHAPES = {
    "o": "M15 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8z",
    "s": "M11 2h8v8h-8z",
    "^": "M15 1l5 9h-10z",
    "D": "M15 1l5 5l-5 5l-5-5z",
    "v": "M15 11l5-9h-10z",
    "P": "M13 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "X": "M11 4l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",
}


def shortened(name: str) -> str:
    """Returns a name that fits beside or below a picture; both of its ends stay."""
    if len(name) <= _LONGEST_LABEL:
        return name
    behind = (_LONGEST_LABEL - 1) // 2
    return f"{name[: _LONGEST_LABEL - 1 - behind]}…{name[-behind:]}"


@dataclass
class Canvas:
    """Axes to draw on, and what they become.

    Attributes:
        name: unique on the page; salts the ids.
        label: what the picture shows, for those who do not see it.
        height: in inches.
        left: inches beside the axes; None: room for the tick labels.
        right: inches on the other side.
        bottom: inches below the axes.
        across: whether the grid lines go across (else up).
    """

    name: str
    label: str
    height: float
    left: float | None = None
    right: float = 0.12
    bottom: float = 0.5
    across: bool = True
    figure: Figure = field(init=False)
    axes: Axes = field(init=False)

    def __post_init__(self) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, self.height))
        FigureCanvasSVG(self.figure)
        self.axes = self.figure.add_axes((0.1, 0.1, 0.8, 0.8))
        self.axes.patch.set_alpha(0)
        self.axes.spines[["top", "right", "left"]].set_visible(False)
        self.axes.spines["bottom"].set_color(SOFT)
        self.axes.tick_params(colors=SOFT, length=0, labelsize=9)
        self.axes.xaxis.label.set_color(SOFT)
        self.axes.grid(axis="y" if self.across else "x", color=GRID, lw=0.8)
        self.axes.set_axisbelow(True)

    def finish(self) -> str:
        """Returns the finished SVG element."""
        from matplotlib import rc_context

        style: Any = {"svg.fonttype": "none", "svg.hashsalt": self.name, "font.size": 9.5}
        buffer = io.StringIO()
        with rc_context(style):
            left = self._tick_labels() if self.left is None else self.left
            wide, high = WIDTH - left - self.right, self.height - self.bottom - 0.1
            place = (left / WIDTH, self.bottom / self.height, wide / WIDTH, high / self.height)
            self.axes.set_position(place)
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return _inline(buffer.getvalue(), self.name, self.label)

    def _tick_labels(self) -> float:
        ticks = self.axes.yaxis.get_majorticklocs()
        labels = self.axes.yaxis.get_major_formatter().format_ticks(list(ticks))
        longest = max((len(re.sub(r"\$|\\mathdefault|[{}^]", "", t)) for t in labels), default=0)
        return 0.12 + INCHES_A_LETTER * longest


def _inline(svg: str, name: str, label: str) -> str:
    """Returns the <svg> element alone, colours as CSS variables, ids unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    unique = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], unique), svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _tag(tag: str, unique: str) -> str:
    """Returns a tag with short coordinates; what stands between tags is text, which stays."""
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, variable)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r'\bid="', f'id="{unique}-', tag)
    return tag.replace("url(#", f"url(#{unique}-").replace('href="#', f'href="#{unique}-')


def plain(value: float | None) -> str:
    """Returns a number for a label: short, with a true minus sign."""
    return MISSING if value is None else f"{value:.3g}".replace("-", "−")
