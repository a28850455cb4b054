"""Runs the tokenize stage with one engine, from its first task to its last.

The stage's folder says in `engine.json` which engine began it. A second run goes on with it; where
another one would be used now (another version, another choice in the mix file) the folder is begun
anew, but what `tokenizers` began stays: its ids are right by definition. When a task finds that the
engine differs, all is done again with `tokenizers`.

Price: after a difference, the time that the stage had taken until then.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from datatrove.pipeline.base import PipelineStep

from mixctl.injections.encode import Encoder
from mixctl.pipeline.engines import (
    EngineChoice,
    load_choice,
    reference,
    save_choice,
)
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.parts import corpus_tasks
from mixctl.pipeline.readers import Corpus
from mixctl.pipeline.tokenize import DIFFERENCE_NAME, ReadCorpus, TokenizeDocuments
from mixctl.shards.files import digest_bytes

ENGINE_NAME = "engine.json"


def run_tokenize(
    corpus: Corpus,
    encoder: Encoder,
    engine: EngineChoice,
    work: Path,
    keys: list[object],
    executor: ExecutorConfig,
    further: Callable[[Path], Sequence[PipelineStep]],
) -> tuple[Path, int]:
    """Returns the stage's folder and its number of tasks, all done.

    Args:
        corpus: what is tokenized.
        encoder: the tokenizer with its rule.
        engine: the engine to begin with.
        work: the folder of all stages.
        keys: what the tokens depend on, by digest.
        executor: where tasks run.
        further: from the stage's folder, the steps that go over what a task has written.
    """
    tasks = corpus_tasks(corpus)
    parts = [[[part.file, part.stretch] for part in task] for task in tasks]
    folder = work / f"tokens-{digest_bytes(json.dumps([*keys, parts]).encode())}"

    def run(engine: EngineChoice) -> None:
        read, write = ReadCorpus(corpus, tasks), TokenizeDocuments(folder, encoder, engine.name)
        run_stage("tokenize", [read, write, *further(folder)], folder, len(tasks), executor)

    run_with_one_engine(run, folder, engine)
    return folder, len(tasks)


def run_with_one_engine(
    run: Callable[[EngineChoice], None], folder: Path, chosen: EngineChoice
) -> None:
    """Runs all tasks with the engine that began the folder, or that is chosen now.

    Args:
        run: runs the tasks that are not done yet.
        folder: of the stage.
        chosen: the engine to begin with.
    """
    engine = _begun(folder, chosen)
    if engine.why:
        click.echo(f"engine: {engine}", err=True)
    try:
        run(engine)
    except Exception:
        if engine.name == "tokenizers" or not (folder / DIFFERENCE_NAME).exists():
            raise
        difference = (folder / DIFFERENCE_NAME).read_text(encoding="utf-8")
        instead = reference(f"{engine} {difference}")
        click.echo(f"engine: {instead}; tokenizing again from the start", err=True)
        _begin(folder, instead)
        run(instead)


def _begun(folder: Path, chosen: EngineChoice) -> EngineChoice:
    """Returns the engine that the folder is continued with, or begun with."""
    before = load_choice(folder / ENGINE_NAME)
    if before is not None and (before == chosen or before.name == "tokenizers"):
        return before
    _begin(folder, chosen)
    return chosen


def _begin(folder: Path, engine: EngineChoice) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_choice(engine, folder / ENGINE_NAME)


def engine_of(folder: Path) -> EngineChoice:
    """Returns the engine that a finished stage was made with."""
    made_with = load_choice(folder / ENGINE_NAME)
    if made_with is None:
        raise RuntimeError(f"{folder / ENGINE_NAME} is missing after its stage has ended")
    return made_with
