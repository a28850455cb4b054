"""The build: check everything, tokenize, search, settle, mix, seal.

    DIR/.work/tokens-<digest>/   token files and datatrove's marks of finished tasks
    DIR/.work/search-<digest>/   where the base corpus holds strings of the items, forbidden ones
    DIR/.work/mix-<digest>/      the overlay, a receipt for each chunk
    DIR/train, val, control, manifest, litgpt.yaml, then mix.json by atomic rename; .work is removed

A stage's folder is named by the digest of the contents it depends on. So a second run continues an
interrupted one, and a changed parameter never takes stale output for its own. What is wrong with
the input is found before the first byte is written, except for what only reading the corpus can
tell; then what this run had written is removed.

Price: the corpus is read once for its digest and once for its tokens; the disk holds its tokens
twice (three times with the twin) until the build is sealed.
"""

from __future__ import annotations

import json
from pathlib import Path

import fsspec

from mixctl.pipeline import stages
from mixctl.pipeline.base_stream import lay
from mixctl.pipeline.corpus_digest import DigestAhead
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executor_names import ExecutorName
from mixctl.pipeline.folder import check_folder, finished_build, own_folder
from mixctl.pipeline.mixfile import located
from mixctl.pipeline.prepare import Prepared, input_digests, prepare
from mixctl.pipeline.readers import Corpus
from mixctl.pipeline.resolve import resolve
from mixctl.pipeline.seal import Sealed, seal
from mixctl.pipeline.stages import STAGE_VERSION
from mixctl.pipeline.tokenize_stage import engine_of
from mixctl.pipeline.workers import start_workers
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_bytes
from mixctl.shards.journal import WORK
from mixctl.shards.record import RECORD_NAME, BuildRecord


def _check_outside(out: Path, corpus: Corpus) -> None:
    """Refuses a build folder inside the corpus folder: a later build would read it as text."""
    _, root = fsspec.core.url_to_fs(corpus.folder)
    if len(corpus.files) > 1 and Path(root).resolve() in out.parents:
        raise InputError(f"--out: {out} lies in the corpus folder {root}: choose another")


def build(
    mix_path: Path,
    out: Path,
    control: bool = False,
    workers: int | None = None,
    executor: ExecutorName | None = None,
) -> BuildRecord:
    """Returns the record of the finished build in `out`.

    Args:
        mix_path: the mix file.
        out: the build folder; must not hold anything but an unfinished build.
        control: whether the twin is written as well.
        workers: datatrove tasks at a time; None takes what the mix file says, else one here, and no
            limit on a cluster.
        executor: where tasks run; None takes what the mix file says, else local.

    Raises:
        InputError: with every problem; nothing is left behind then.
    """
    start_workers(executor, workers)
    out = out.resolve()
    with DigestAhead() as corpus:
        prepared = prepare(mix_path, found=corpus.begin)
        check_folder(out)
        _check_outside(out, prepared.corpus)
        where = prepared.plan.mix.config.executor.chosen(executor, workers)
        if problems := where.problems():
            raise InputError(located(problems, mix_path))
        try:
            return _build(prepared, out, control, where, corpus)
        except InputError as error:
            raise InputError(located(error.problems, mix_path)) from None


def _build(
    prepared: Prepared, out: Path, control: bool, executor: ExecutorConfig, corpus: DigestAhead
) -> BuildRecord:
    with own_folder(out):
        sought = stages.sought(prepared.plan)
        digests = input_digests(prepared, corpus.result())
        build_digest = _build_digest(prepared, digests, control)
        if (out / RECORD_NAME).exists():
            return finished_build(out, build_digest)
        source = stages.tokenize(prepared, sought.strings, out, digests, executor)
        if engine_of(source.folder).name != prepared.engine.name:
            prepared = prepare(prepared.plan.mix.path, "tokenizers")  # payloads as well
            sought = stages.sought(prepared.plan)
        searched = stages.search(prepared, sought, source, executor)
        del sought  # a kilobyte an item, which nothing needs from here on
        stream = lay(searched.source)  # too small a corpus is found here, before mixing
        dirty = stream.sequences_with(searched.forbidden)
        resolved = resolve(prepared.plan, stream, dirty)
        stage = out / WORK / f"mix-{build_digest}"
        mixed = stages.mix(prepared, resolved, searched.source, stage, out, control, executor)
        sealed = Sealed(
            prepared.plan,
            resolved,
            searched,
            mixed,
            {**digests, "build": build_digest},
            str(engine_of(source.folder)),
        )
        return seal(sealed, stream)


def _build_digest(prepared: Prepared, digests: dict[str, str], control: bool) -> str:
    """Returns the digest of all that decides the bytes of the build."""
    plan = prepared.plan
    kinds = [[e.config.kind, e.experiment.kind.version] for e in plan.experiments]
    parts = [STAGE_VERSION, digests, repr(plan.topology), repr(prepared.layout), kinds, control]
    return digest_bytes(json.dumps(parts, sort_keys=True).encode())
