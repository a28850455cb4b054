"""The stages of a build: tokenize and search, mix. Each in a folder named by what it depends on.

A stage's folder is named by the digest of the contents it depends on, so a second run continues an
interrupted one, and a changed parameter never takes stale output for its own.

What the items hold is looked for by the task that writes the tokens, while they are at hand; so the
search is a stage of its own only where an earlier run wrote them and looked for other strings.

Price: the base tokens are written once, searched once where something is searched for, mixed once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from mixctl.pipeline.base_stream import BaseSource
from mixctl.pipeline.decontamination import Patterns, patterns
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.folder import remove_stale
from mixctl.pipeline.matches import documents_to_drop, hits_table
from mixctl.pipeline.mixing import MixChunks, MixSource, n_mix_tasks
from mixctl.pipeline.overlay import make_overlay, save_overlay
from mixctl.pipeline.plan import Plan
from mixctl.pipeline.prepare import Prepared
from mixctl.pipeline.resolve import Resolved
from mixctl.pipeline.searching import (
    BaseDocuments,
    Hits,
    SearchTokens,
    first_documents,
    hits,
    hits_path,
)
from mixctl.pipeline.tokenize_stage import engine_of, run_tokenize
from mixctl.shards.draws import I64
from mixctl.shards.files import digest_bytes, remove_partials, replacing
from mixctl.shards.journal import WORK
from mixctl.shards.order import TrainingOrder
from mixctl.shards.search import TokenStrings, save_patterns, token_strings

STAGE_VERSION = 6
"""raised when a stage would write other bytes for the same input"""


@dataclass(frozen=True)
class Sought:
    """What is looked for in the base corpus.

    Attributes:
        forbidden: strings that must be absent, in the order of `Plan.forbidden`.
        known: strings of the other items; none when decontamination is off.
        strings: all of them, the forbidden ones first.
    """

    forbidden: TokenStrings
    known: Patterns
    strings: TokenStrings


def sought(plan: Plan) -> Sought:
    """Returns what is looked for in the base corpus."""
    rule = plan.mix.config.decontamination
    experiments = () if rule.action == "off" else plan.experiments
    items = ((e.config.name, e.experiment.kind, e.assigned.items) for e in experiments)
    known = patterns(items, plan.encoder, rule)
    forbidden = token_strings([ids for _, _, ids in plan.forbidden])
    return Sought(forbidden, known, _joined(forbidden, known.strings))


def tokenize(
    prepared: Prepared,
    strings: TokenStrings,
    out: Path,
    digests: dict[str, str],
    executor: ExecutorConfig,
) -> BaseSource:
    """Returns the tokenized base corpus, no document left out.

    Each task searches what it has written for the strings.
    """
    corpus, plan = prepared.corpus, prepared.plan
    keys = [STAGE_VERSION, digests["corpus"], digests["tokenizer"], corpus.format, corpus.text_key]

    def searched(folder: Path) -> list[PipelineStep]:
        return [_search_step(strings, folder, prepared.dtype)] if len(strings) else []

    folder, n_tasks = run_tokenize(
        corpus, plan.encoder, prepared.engine, out / WORK, keys, executor, searched
    )
    return BaseSource(
        folder=folder,
        n_tasks=n_tasks,
        dtype=prepared.dtype,
        sequence_tokens=plan.topology.sequence_tokens,
        seed=plan.mix.config.seed,
        n_validation=plan.mix.config.validation,
        n_needed=plan.topology.sequences,
        repeat=plan.mix.config.corpus.repeat,
    )


@dataclass(frozen=True)
class Searched:
    """What the search found in the base corpus.

    Attributes:
        source: the base corpus, without the documents that are dropped.
        forbidden: shape (n, 5), the hits of forbidden strings, as `BaseStream.sequences_with` takes
            them.
        matches: manifest/decontamination.parquet.
        counts: what mix.json says: strings looked for, documents dropped, ...
    """

    source: BaseSource
    forbidden: I64
    matches: pa.Table
    counts: dict[str, int]


def search(
    prepared: Prepared, looked_for: Sought, source: BaseSource, executor: ExecutorConfig
) -> Searched:
    """Returns where the base corpus holds strings of the items, and forbidden strings."""
    plan, rule = prepared.plan, prepared.plan.mix.config.decontamination
    forbidden, known, strings = looked_for.forbidden, looked_for.known, looked_for.strings
    found = _hits(strings, source, executor)
    is_forbidden = found.pattern < len(forbidden)
    mine = Hits(
        found.pattern[~is_forbidden] - len(forbidden),
        *(column[~is_forbidden] for column in (found.task, found.document, found.offset)),
    )
    documents = BaseDocuments(source.folder, source.dtype)
    table = hits_table(mine, known, documents, plan.encoder, rule)
    n_dropped = 0
    if rule.action == "drop":
        source, n_dropped = _without(source, documents_to_drop(mine))
    rows = (found.pattern, found.task, found.document, found.offset, strings.length[found.pattern])
    counts = {
        "strings": len(known.strings),
        "matches": table.num_rows,
        "documents_dropped": n_dropped,
        "items_not_searched": len(known.not_searched),
        "absent_strings_not_found": _not_found(plan, found.pattern[is_forbidden]),
    }
    return Searched(source, np.stack(rows, axis=1)[is_forbidden], table, counts)


def _not_found(plan: Plan, string: I64) -> int:
    """Returns how many strings that must be absent occur nowhere in the base corpus anyway."""
    owners = [(experiment, item) for experiment, item, _ in plan.forbidden]
    return len(set(owners) - {owners[n] for n in np.unique(string).tolist()})


def _joined(one: TokenStrings, other: TokenStrings) -> TokenStrings:
    """Returns the strings of both, those of the first first."""
    if not len(one):
        return other
    return TokenStrings(
        np.concatenate([one.tokens, other.tokens]),
        np.concatenate([one.begin, other.begin + len(one.tokens)]),
        np.concatenate([one.length, other.length]),
    )


def _strings_digest(strings: TokenStrings) -> str:
    parts = (strings.tokens, strings.begin, strings.length)
    return digest_bytes(b"".join(digest_bytes(part.tobytes()).encode() for part in parts))


def _hits(strings: TokenStrings, source: BaseSource, executor: ExecutorConfig) -> Hits:
    """Returns where the strings occur in the token files; those not searched yet are searched."""
    if not len(strings):
        none = np.empty(0, dtype=np.int64)
        return Hits(none, none, none, none)
    step = _search_step(strings, source.folder, source.dtype)
    if not all(hits_path(step.folder, task).exists() for task in range(source.n_tasks)):
        run_stage("search", [step], step.folder, source.n_tasks, executor)
    return hits(step.folder, source.n_tasks)


def _search_step(strings: TokenStrings, tokens: Path, dtype: str) -> SearchTokens:
    """Returns the step that looks for the strings, its folder made.

    Token files that another engine had begun to write are others, so the engine is in its name.
    """
    parts = [STAGE_VERSION, tokens.name, str(engine_of(tokens)), _strings_digest(strings)]
    folder = tokens.parent / f"search-{digest_bytes(json.dumps(parts).encode())}"
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "patterns.npz"
    if not saved.exists():
        save_patterns(strings, saved)
    return SearchTokens(tokens, dtype, saved, folder)


def _without(source: BaseSource, dropped: dict[int, I64]) -> tuple[BaseSource, int]:
    """Returns the base corpus without some documents, and how many they are."""
    first = first_documents(source.folder, source.n_tasks)
    numbers = [first[task] + documents for task, documents in sorted(dropped.items())]
    every = np.concatenate([np.empty(0, np.int64), *numbers]).astype(np.int64)
    name = f"dropped-{digest_bytes(every.tobytes())}.npy"
    path = source.folder.parent / name
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, every)
    return replace(source, dropped=path), len(every)


def mix(
    prepared: Prepared,
    resolved: Resolved,
    base: BaseSource,
    stage: Path,
    out: Path,
    control: bool,
    executor: ExecutorConfig,
) -> MixSource:
    """Returns what was mixed: all chunks are written, each with its receipt."""
    plan, forbidden = prepared.plan, stage / "forbidden.npz"
    source = MixSource(
        base=base,
        overlay=stage / "overlay",
        topology=plan.topology,
        layout=prepared.layout,
        val_layout=prepared.val_layout,
        eod_id=plan.encoder.eod_id,
        out=out,
        receipts=stage / "receipts",
        control=control,
        forbidden=forbidden if plan.forbidden else None,
    )
    if not stage.exists():
        remove_stale(out)
    stage.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    order = TrainingOrder(source.topology, source.layout)
    save_overlay(make_overlay(plan, resolved), order, source.overlay)
    if plan.forbidden:
        save_patterns(token_strings([ids for _, _, ids in plan.forbidden]), forbidden)
    n_tasks = n_mix_tasks(prepared.layout, prepared.val_layout)
    run_stage("mix", [MixChunks(source)], stage, n_tasks, executor)
    return source
