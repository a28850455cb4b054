"""Templates of pages and files, as all of them are read: strict, and pages with escaping.

environment("mixctl.evals").get_template("report.html.j2")                 a page
environment("mixctl.pipeline", escape=False).get_template("card.md.j2")    a plain text
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*packages: str, escape: bool = True) -> Environment:
    """Returns jinja2's environment for the templates/ of these packages, the first found taken.

    Args:
        packages: names of packages.
        escape: whether every value is escaped for HTML; without it the last newline is kept.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not escape,
    )
