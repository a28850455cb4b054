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
    """
    if kind in BUILT_IN:
        module, _, name = BUILT_IN[kind].partition(":")
        built_in: AnyScorer | ScorerOfMethods = getattr(import_module(module), name)()
        return built_in
    others = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in others:
        known = nearest(kind, [*BUILT_IN, *others])
        raise LookupError(f"no scorer is registered for kind {kind!r}{known}")
    third_party: AnyScorer | ScorerOfMethods = others[kind].load()()
    return third_party
