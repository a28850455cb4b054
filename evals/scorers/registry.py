"""Which scorer scores which kind.

The built-in ones are named here; a third party adds one by an entry point:

    [project.entry-points."mixctl.scorers"]
    haiku = "haiku_experiments.scorer:HaikuScorer"

A built-in kind cannot be replaced.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from mixctl.evals.scorers.base import Scorer
from mixctl.shards.errors import nearest

GROUP = "mixctl.scorers"
BUILT_IN = {
    "contamination": "mixctl.evals.scorers.contamination:ContaminationScorer",
    "documents": "mixctl.evals.scorers.documents:DocumentsScorer",
    "memorization": "mixctl.evals.scorers.memorization:MemorizationScorer",
}


def scorer_for(kind: str) -> Scorer:
    """Returns a scorer of the kind.

    Raises:
        LookupError: when none is registered, with the nearest kind that has one.
    """
    if kind in BUILT_IN:
        module, _, name = BUILT_IN[kind].partition(":")
        built_in: Scorer = getattr(import_module(module), name)()
        return built_in
    others = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in others:
        known = nearest(kind, [*BUILT_IN, *others])
        raise LookupError(f"no scorer is registered for kind {kind!r}{known}")
    third_party: Scorer = others[kind].load()()
    return third_party
