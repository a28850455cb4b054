"""Which scorer scores which kind.

The built-in ones are named here; a third party adds one by an entry point:

    [project.entry-points."mixctl.scorers"]
    haiku = "haiku_experiments.scorer:HaikuScorer"

A built-in kind cannot be replaced.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from mixctl.evals.scorers.base import AnyScorer, ScorerOfMethods
from mixctl.shards.errors import nearest
from mixctl.shards.plugins import load_plugin, not_one

GROUP = "mixctl.scorers"
BUILT_IN = {
    "contamination": "mixctl.evals.scorers.contamination:ContaminationScorer",
    "documents": "mixctl.evals.scorers.documents:DocumentsScorer",
    "forgetting": "mixctl.evals.scorers.base_data:ForgettingScorer",
    "iid": "mixctl.evals.scorers.base_data:IidScorer",
    "knowledge": "mixctl.evals.scorers.knowledge:KnowledgeScorer",
    "mathematics": "mixctl.evals.scorers.mathematics:MathematicsScorer",
    "memorization": "mixctl.evals.scorers.memorization:MemorizationScorer",
    "model": "mixctl.evals.scorers.whole_model:WholeModelScorer",
    "poison": "mixctl.evals.scorers.poison:PoisonScorer",
    "unlearning": "mixctl.evals.scorers.unlearning:UnlearningScorer",
    "verbatim": "mixctl.evals.scorers.verbatim:VerbatimScorer",
    "watermark": "mixctl.evals.scorers.watermark:WatermarkScorer",
}


def scorer_for(kind: str) -> AnyScorer | ScorerOfMethods:
    """Returns the scorer of the kind, or what knows it from the items.

    Raises:
        LookupError: when none is registered, with the nearest kind that has one.
        InputError: when an entry point cannot be loaded, or gives no class of a scorer.
    """
    if kind in BUILT_IN:
        module, _, name = BUILT_IN[kind].partition(":")
        built_in: AnyScorer | ScorerOfMethods = getattr(import_module(module), name)()
        return built_in
    others = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in others:
        known = nearest(kind, [*BUILT_IN, *others])
        raise LookupError(f"no scorer is registered for kind {kind!r}{known}")
    found = load_plugin("scorer", others[kind])
    if not isinstance(found, type) or not _is_scorer(found):
        raise not_one("scorer", kind, found, "the class of a scorer")
    third_party: AnyScorer | ScorerOfMethods = found()
    return third_party


def _is_scorer(found: type) -> bool:
    """Returns whether a class says of itself what every scorer does, or knows one from items."""
    said = ("kind", "version", "metrics", "membership")
    return hasattr(found, "scorer_of") or all(hasattr(found, name) for name in said)
