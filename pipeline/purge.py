"""Token strings that must occur nowhere in the run: found, replaced, and proven absent.

The strings are the items of experiments whose kind is `absent` (verbatim). The search stage finds
them in the base documents; a sequence of the run that holds one whole is replaced by a clean spare
one (`resolve.py`). A payload that holds one is refused here, before anything is written. A string
holds no end-of-document token, and every payload is set apart by one, so none can arise where a
payload meets base text. At last every block written is searched.

Price: a search of all payloads, once; of all blocks, while they are written.
"""

from __future__ import annotations

import numpy as np

from mixctl.injections.base import TokenIds
from mixctl.pipeline.plan import Plan
from mixctl.shards.errors import VerificationError
from mixctl.shards.search import TokenSearch

_MOST_NAMED = 5


def reasons(plan: Plan) -> list[str]:
    """Returns, for each forbidden string, why sequences are replaced: `purge:` and experiment."""
    return [f"purge:{experiment}" for experiment, _, _ in plan.forbidden]


Forbidden = list[tuple[str, str, TokenIds]]
"""(experiment, item, tokens) of strings that must occur nowhere in the run"""


def payload_problems(plan: Plan, others: Forbidden | None = None) -> list[str]:
    """Returns the payloads that hold a forbidden string, of the plan or among the `others`."""
    forbidden = [*plan.forbidden, *(others or [])]
    if not forbidden:
        return []
    search = TokenSearch([ids for _, _, ids in forbidden])
    problems = []
    for one in plan.experiments:
        if one.experiment.kind.absent:
            continue
        named = [(item.item, ids) for item in one.assigned.items for ids in item.variants]
        if not named:
            continue
        ends = np.cumsum([len(ids) for _, ids in named])
        string, begin = search.find(np.concatenate([ids for _, ids in named]))
        payload = np.searchsorted(ends, begin, side="right")
        inside = begin + search.strings.length[string] <= ends[payload]
        pairs = sorted(set(zip(payload[inside].tolist(), string[inside].tolist(), strict=True)))
        problems += [
            f"experiment '{one.config.name}': item '{named[p][0]}': the payload holds the string "
            f"of item '{forbidden[s][1]}', which experiment '{forbidden[s][0]}' wants nowhere in "
            f"the run: drop one of the two"
            for p, s in pairs
        ]
    rest = len(problems) - _MOST_NAMED
    return problems[:_MOST_NAMED] + ([f"... and {rest} more such payloads"] if rest > 0 else [])


def prove_absent(forbidden: dict[str, int]) -> None:
    """Returns nothing; the blocks that were written hold no forbidden string.

    Args:
        forbidden: how many each chunk file holds, by its name.

    Raises:
        VerificationError: naming the files that hold one: a defect, and no build is sealed.
    """
    found = [f"{name}: holds {n} forbidden strings" for name, n in forbidden.items() if n]
    if found:
        raise VerificationError(found)
