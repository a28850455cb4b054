"""Everything that can be checked before the first byte of a build is written.

Price: items are made and placed in memory; of the corpus, one document is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from mixctl.pipeline.control_config import control_problems
from mixctl.pipeline.copies import MARK
from mixctl.pipeline.engines import (
    EngineChoice,
    EngineDiffers,
    EngineName,
    engine_problems,
    reference,
)
from mixctl.pipeline.litgpt_types import GAUSSIAN_DATA
from mixctl.pipeline.mixfile import Mix, located, read_mix
from mixctl.pipeline.parts import Part, read_part
from mixctl.pipeline.payload_encoder import FastEncoder
from mixctl.pipeline.plan import Plan, make_plan
from mixctl.pipeline.purge import payload_problems
from mixctl.pipeline.readers import Corpus, corpus_reader, find_corpus
from mixctl.pipeline.tokenizer_ahead import TokenizerAhead
from mixctl.pipeline.trainer import litgpt_config, litgpt_problems
from mixctl.shards.chunks import token_dtype
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes
from mixctl.shards.layout import Layout, train_layout, val_layout


@dataclass(frozen=True)
class Prepared:
    """A mix that passed every check that can be made before work begins."""

    plan: Plan
    corpus: Corpus
    layout: Layout
    val_layout: Layout
    engine: EngineChoice

    @property
    def dtype(self) -> str:
        """Returns the type that tokens are stored in."""
        return token_dtype(self.plan.encoder.vocab_size)


def prepare(
    mix_path: Path,
    engine: EngineName | None = None,
    found: Callable[[Corpus], None] | None = None,
) -> Prepared:
    """Returns the checked mix with its plan and its layouts; writes nothing.

    Args:
        mix_path: the mix file.
        engine: the engine to use; None takes what the mix file says.
        found: told of the corpus before the plan is made, where there is one.

    Raises:
        InputError: with every problem found.
    """
    with TokenizerAhead(engine) as tokenizer:
        mix = read_mix(mix_path, head=tokenizer.begin)
        return _prepared(mix, tokenizer, found)


def _prepared(
    mix: Mix, tokenizer: TokenizerAhead, found: Callable[[Corpus], None] | None
) -> Prepared:
    problems: list[str] = []
    made = litgpt_config(mix.trainer_raw, mix.trainer, mix.topology, mix.folder, "train")
    problems += litgpt_problems(made, mix.trainer_path)
    problems += engine_problems(tokenizer.asked)
    corpus = _corpus(mix, problems)
    if corpus is not None and found is not None:
        found(corpus)
    problems += _item_files_in(corpus, mix)
    problems += control_problems(mix)
    layouts: tuple[Layout, Layout] | None = None
    plan: Plan | None = None
    try:
        plan, chosen = _planned(mix, tokenizer)
        problems += payload_problems(plan)
        problems += marks_without_noise(plan)
        layouts = choose_layouts(plan)
    except InputError as error:
        problems += error.problems
    if problems or corpus is None or plan is None or layouts is None:
        raise InputError(located(problems, mix.path))
    return Prepared(plan, corpus, *layouts, chosen)


def _planned(mix: Mix, tokenizer: TokenizerAhead) -> tuple[Plan, EngineChoice]:
    """Returns the plan, and the engine that the build begins with: not one that differed here.

    The plan is begun while the engine is still compared; where it differs, it is made again.
    """
    encoder = tokenizer.encoder()
    if tokenizer.tries_fast:
        plan, difference = _fast_plan(mix, tokenizer)
        engine = tokenizer.engine()
        if engine.name == "fast" and plan is not None:
            return plan, engine
        if engine.name == "fast":
            engine = reference(f"{engine} {difference}")
    else:
        engine = tokenizer.engine()
    return make_plan(mix, encoder=encoder), engine


def _fast_plan(mix: Mix, tokenizer: TokenizerAhead) -> tuple[Plan | None, str]:
    """Returns the plan made with the fast engine, or None and where it differs.

    Raises:
        InputError: with the problems of the mix, unless the engine is not to be used.
    """
    try:
        return make_plan(mix, encoder=FastEncoder.of(tokenizer.encoder())), ""
    except EngineDiffers as difference:
        return None, str(difference)
    except InputError:
        if tokenizer.engine().name == "fast":
            raise
        return None, ""


def marks_without_noise(plan: Plan) -> list[str]:
    """Returns the experiments whose marks the trainer would pass over without a word."""
    if plan.mix.trainer.adds_noise:
        return []
    return [
        f"{plan.mix.trainer_path}: data: class_path is LitData, which adds no noise, and "
        f"experiment '{one.config.name}' marks {n_marks} sequences: write class_path: "
        f"{GAUSSIAN_DATA}"
        for one in plan.experiments
        if (n_marks := int((one.copies.mode == MARK).sum()))
    ]


def choose_layouts(plan: Plan) -> tuple[Layout, Layout]:
    """Returns the layouts of train/ and val/.

    Raises:
        InputError: when val/ is too small for LitGPT, or a worker would need too many chunks.
    """
    token_bytes = 2 if token_dtype(plan.encoder.vocab_size) == "uint16" else 4
    size = plan.mix.config.chunk_bytes
    train = train_layout(plan.topology, token_bytes, size)
    return train, val_layout(plan.topology, plan.mix.config.validation, token_bytes, size)


def _corpus(mix: Mix, problems: list[str]) -> Corpus | None:
    """Returns the corpus after a look at its first document; problems are added to the list."""
    config = mix.config.corpus
    if config.path is None:
        problems.append("corpus: 'tokens' is for mixctl plan alone; a build needs 'path'")
        return None
    try:
        corpus = find_corpus(mix.resolve(config.path), config.format, config.text_key, config.glob)
        next(read_part(corpus_reader(corpus), Part(corpus.files[0], 0)), None)
        return corpus
    except InputError as error:
        problems += error.problems
        return None


def _item_files_in(corpus: Corpus | None, mix: Mix) -> list[str]:
    """Returns the item files that are also base documents: the holdout would be trained on."""
    if corpus is None:
        return []
    _, root = fsspec.core.url_to_fs(corpus.folder)
    base = {(Path(root) / name).resolve() for name in corpus.files}
    return [
        f"corpus: path: reads {path} too, the items of experiment '{one.config.name}': all of "
        f"them, holdouts included, would be base text; give corpus.glob or another folder"
        for one in mix.experiments
        for path in one.kind.inputs(one.config, mix.folder)
        if path.resolve() in base
    ]


def input_digests(prepared: Prepared, corpus: str) -> dict[str, str]:
    """Returns the digests of everything the build depends on, by content; given the corpus's."""
    plan = prepared.plan
    digests = {
        "config": mix_digest(plan.mix.config.model_dump(mode="json")),
        "trainer": settings_digest(plan.mix.trainer_raw),
        "corpus": corpus,
        "tokenizer": plan.encoder.digest,
    }
    for experiment in plan.experiments:
        paths = experiment.experiment.kind.inputs(experiment.config, plan.mix.folder)
        for number, path in enumerate(paths):
            name = f"items:{experiment.config.name}:{number}:{path.name}"
            digests[name] = digest_bytes(path.read_bytes())
    return digests


def mix_digest(config: dict[str, Any]) -> str:
    """Returns the digest of a mix file's content, `engine` left out: the ids are the same."""
    return settings_digest({key: value for key, value in config.items() if key != "engine"})


def settings_digest(settings: dict[str, Any]) -> str:
    """Returns the digest of the content of a mix file or a trainer config."""
    return digest_bytes(json.dumps(settings, sort_keys=True, default=str).encode())
