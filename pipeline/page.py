"""What the pages of `mixctl plan --html` and `mixctl show --html` share: jinja2, styles, numbers.

A page is one file: no network, styles inside, every value escaped by jinja2, so a payload that
holds markup is shown as text. Its policy lets no script run but the one that the page names by
digest. The styles are those of the report (evals/templates/report.css.j2), and a few more.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from mixctl.evals import formatting
from mixctl.evals.templating import environment

if TYPE_CHECKING:
    from jinja2 import Template


def template(name: str) -> Template:
    """Returns a page's template, of those in pipeline/templates."""
    from markupsafe import Markup

    made = environment("mixctl.pipeline", "mixctl.evals")
    made.filters.update(
        drawn=Markup,
        count=count,
        share=share,
        amount=amount,
        duration=duration,
        number=formatting.number,
    )
    made.globals["script_digest"] = script_digest
    return made.get_template(name)


def script_digest(text: str) -> str:
    """Returns how a Content-Security-Policy names a script: sha256 of its text, in base64."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def count(value: float) -> str:
    """Returns a whole number with its thousands apart; a mean with two digits behind the point."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def share(value: float) -> str:
    """Returns a share as a percentage with three significant digits."""
    return f"{100 * value:.3g}%"


def amount(n_bytes: float) -> str:
    """Returns bytes in the largest decimal unit that leaves a number of 1 or more."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    raise ValueError("unreachable")


def duration(seconds: float) -> str:
    """Returns a time in the unit that one would say it in."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
