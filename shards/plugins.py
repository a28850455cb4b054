"""Code of other packages: registered by entry point, named on standard error when it is loaded.

    [project.entry-points."mixctl.kinds"]          also: mixctl.scorers, mixctl.controllers
    my-kind = "my_package.my_kind:KIND"

So whoever runs a mix sees whose code it runs, once a process:

    kind 'my-kind': my_package.my_kind:KIND of my-package 1.2
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint

from mixctl.shards.errors import InputError, printable


@cache
def load_plugin(what: str, point: EntryPoint) -> object:
    """Returns what the entry point names, having said whose code it is that runs now.

    Args:
        what: that which is registered, for the messages: kind, scorer, controller.
        point: the entry point.

    Raises:
        InputError: when it cannot be imported.
    """
    owner = "an unknown package"
    if point.dist is not None:
        owner = f"{point.dist.name} {point.dist.version}"
    whose = f"{what} '{point.name}': {point.value} of {owner}"
    print(printable(whose), file=sys.stderr)
    try:
        return point.load()
    except Exception as error:  # the other package's own failure, whatever it is
        raise InputError(f"{whose} cannot be loaded ({type(error).__name__}: {error})") from error


def not_one(what: str, name: str, found: object, needed: str) -> InputError:
    """Returns the error for an entry point that gives something else than is needed."""
    return InputError(f"{what} '{name}': the entry point gives {found!r:.200}, not {needed}")
