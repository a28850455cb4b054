"""The kinds by name: the built-in ones, and those that other packages register by entry point.

In the other package's pyproject.toml:

    [project.entry-points."mixctl.kinds"]
    my-kind = "my_package.my_kind:KIND"
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from mixctl.injections.base import Kind
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.plugins import load_plugin, not_one

GROUP = "mixctl.kinds"
_BUILT_IN = (
    "contamination",
    "documents",
    "forgetting",
    "iid",
    "knowledge",
    "mathematics",
    "memorization",
    "poison",
    "unlearning",
    "verbatim",
    "watermark",
)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def kind_names() -> list[str]:
    """Returns the names of all kinds, built-in and registered, sorted."""
    return sorted({*_BUILT_IN, *_plugins()})


def is_kind(name: str) -> bool:
    """Returns whether there is a kind of that name; other packages are asked for unknown ones."""
    return name in _BUILT_IN or name in _plugins()


def find_kind(name: str) -> Kind:
    """Returns the kind of that name.

    Raises:
        InputError: when there is none, naming the nearest, or when a plugin's entry is not a Kind.
    """
    if name in _BUILT_IN:
        kind = import_module(f"mixctl.injections.{name}").KIND
    elif name in _plugins():
        kind = load_plugin("kind", _plugins()[name])
    else:
        raise InputError(f"unknown kind '{name}'{nearest(name, kind_names())}")
    if not isinstance(kind, Kind):
        raise not_one("kind", name, kind, "a mixctl Kind")
    return kind
