"""The build: check everything, tokenize, mix, seal.

    DIR/.work/tokens-<digest>/   token files and datatrove's marks of finished tasks
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

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from mixctl.pipeline.base_stream import BaseSource, BaseStream
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.mixfile import Mix, located, read_mix
from mixctl.pipeline.mixing import MixChunks, MixSource, n_mix_tasks
from mixctl.pipeline.overlay import make_overlay, save_overlay
from mixctl.pipeline.plan import Plan, make_plan
from mixctl.pipeline.readers import Corpus, corpus_reader, find_corpus
from mixctl.pipeline.seal import Sealed, seal
from mixctl.pipeline.tokenize import ReadCorpus, TokenizeDocuments, n_tokenize_tasks
from mixctl.pipeline.trainer import litgpt_config, litgpt_problems
from mixctl.shards.chunks import token_dtype
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import FILE_DIGEST_BYTES, digest_bytes, remove_partials
from mixctl.shards.layout import Layout, train_layout, val_layout
from mixctl.shards.record import RECORD_NAME, BuildRecord, read_record
from mixctl.shards.verify_files import check_files

WORK = ".work"
STAGE_VERSION = 1
"""raised when a stage would write other bytes for the same input"""


@dataclass(frozen=True)
class Prepared:
    """A mix that passed every check that can be made before work begins."""

    plan: Plan
    corpus: Corpus
    layout: Layout
    val_layout: Layout

    @property
    def dtype(self) -> str:
        """Returns the type that tokens are stored in."""
        return token_dtype(self.plan.encoder.vocab_size)


def prepare(mix_path: Path) -> Prepared:
    """Returns the checked mix with its plan and its layouts; writes nothing.

    Raises:
        InputError: with every problem found.
    """
    mix = read_mix(mix_path)
    problems: list[str] = []
    made = litgpt_config(mix.trainer_raw, mix.trainer, mix.topology, mix.folder, "train")
    problems += litgpt_problems(made, mix.trainer_path)
    corpus = _corpus(mix, problems)
    problems += _item_files_in(corpus, mix)
    layouts: tuple[Layout, Layout] | None = None
    plan: Plan | None = None
    try:
        plan = make_plan(mix)
        layouts = choose_layouts(plan)
    except InputError as error:
        problems += error.problems
    if problems or corpus is None or plan is None or layouts is None:
        raise InputError(located(problems, mix_path))
    return Prepared(plan, corpus, *layouts)


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
        next(iter(corpus_reader(corpus).read_file(corpus.files[0])), None)
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


def _check_outside(out: Path, corpus: Corpus) -> None:
    """Refuses a build folder inside the corpus folder: a later build would read it as text."""
    _, root = fsspec.core.url_to_fs(corpus.folder)
    if len(corpus.files) > 1 and Path(root).resolve() in out.parents:
        raise InputError(f"--out: {out} lies in the corpus folder {root}: choose another")


def build(mix_path: Path, out: Path, control: bool = False, workers: int = 1) -> BuildRecord:
    """Returns the record of the finished build in `out`.

    Args:
        mix_path: the mix file.
        out: the build folder; must not hold anything but an unfinished build.
        control: whether the twin is written as well.
        workers: datatrove tasks at a time.

    Raises:
        InputError: with every problem; nothing is left behind then.
    """
    prepared = prepare(mix_path)
    out = out.resolve()
    _check_folder(out)
    _check_outside(out, prepared.corpus)
    try:
        return _build(prepared, out, control, workers)
    except InputError as error:
        raise InputError(located(error.problems, mix_path)) from None


def _build(prepared: Prepared, out: Path, control: bool, workers: int) -> BuildRecord:
    with _own(out):
        digests = input_digests(prepared)
        build_digest = _build_digest(prepared, digests, control)
        if (out / RECORD_NAME).exists():
            return _finished(out, build_digest)
        source = _tokenize(prepared, out, digests, workers)
        stream = BaseStream(source)  # a corpus that is too small is found here, before mixing
        stage = out / WORK / f"mix-{build_digest}"
        mixed = _mix(prepared, source, stage, out, control, workers)
        sealed = Sealed(prepared.plan, mixed, {**digests, "build": build_digest})
        return seal(sealed, stream)


def _check_folder(out: Path) -> None:
    """Refuses a folder that holds something else than a build."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file")
    ours = {WORK, RECORD_NAME}
    if out.exists() and any(out.iterdir()) and not any((out / name).exists() for name in ours):
        raise InputError(f"--out: {out} is not empty and holds no build: choose a new folder")


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Keeps a second build out of the folder; on wrong input removes what this run began."""
    fresh = [folder for folder in (out / WORK, out, *out.parents) if not folder.exists()]
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror})") from None
    lock = FileLock(out / WORK / "lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise InputError(f"--out: {out}: another build is at work in this folder") from None
    except InputError:
        if fresh:
            shutil.rmtree(out if out in fresh else out / WORK, ignore_errors=True)
        for parent in (folder for folder in fresh if folder in out.parents):
            with suppress(OSError):
                parent.rmdir()  # only where nobody else has put something meanwhile
        raise
    finally:
        if (out / RECORD_NAME).exists():
            shutil.rmtree(out / WORK, ignore_errors=True)


def _finished(out: Path, build_digest: str) -> BuildRecord:
    record = read_record(out)
    if record.digests.get("build") != build_digest:
        raise InputError(
            f"--out: {out} already holds another build: choose a new folder, or remove it"
        )
    findings, _ = check_files(out, record, full=False)
    if findings:
        raise VerificationError(findings)
    return record


def input_digests(prepared: Prepared) -> dict[str, str]:
    """Returns the digests of everything the build depends on, by content."""
    plan = prepared.plan
    config = plan.mix.config.model_dump(mode="json")
    digests = {
        "config": digest_bytes(json.dumps(config, sort_keys=True).encode()),
        "trainer": digest_bytes(
            json.dumps(plan.mix.trainer_raw, sort_keys=True, default=str).encode()
        ),
        "corpus": corpus_digest(prepared.corpus),
        "tokenizer": plan.encoder.digest,
    }
    for experiment in plan.experiments:
        for path in experiment.experiment.kind.inputs(experiment.config, plan.mix.folder):
            name = f"items:{experiment.config.name}:{path.name}"
            digests[name] = digest_bytes(path.read_bytes())
    return digests


def corpus_digest(corpus: Corpus) -> str:
    """Returns the digest of the corpus: the names and contents of its files, in order."""
    digest = hashlib.blake2b(digest_size=FILE_DIGEST_BYTES)
    filesystem, root = fsspec.core.url_to_fs(corpus.folder)
    for name in corpus.files:
        digest.update(f"{len(name)}:{name}".encode())
        inner = hashlib.blake2b(digest_size=FILE_DIGEST_BYTES)
        with filesystem.open(f"{root}/{name}", "rb") as file:
            while data := file.read(1 << 20):
                inner.update(data)
        digest.update(inner.digest())
    return digest.hexdigest()


def _build_digest(prepared: Prepared, digests: dict[str, str], control: bool) -> str:
    """Returns the digest of all that decides the bytes of the build."""
    plan = prepared.plan
    kinds = [[e.config.kind, e.experiment.kind.version] for e in plan.experiments]
    parts = [STAGE_VERSION, digests, repr(plan.topology), repr(prepared.layout), kinds, control]
    return digest_bytes(json.dumps(parts, sort_keys=True).encode())


def _tokenize(prepared: Prepared, out: Path, digests: dict[str, str], workers: int) -> BaseSource:
    corpus, plan = prepared.corpus, prepared.plan
    parts = [STAGE_VERSION, digests["corpus"], digests["tokenizer"], corpus.format, corpus.text_key]
    folder = out / WORK / f"tokens-{digest_bytes(json.dumps(parts).encode())}"
    folder.mkdir(parents=True, exist_ok=True)
    n_tasks = n_tokenize_tasks(corpus)
    steps = [ReadCorpus(corpus), TokenizeDocuments(folder, plan.encoder)]
    run_stage("tokenize", steps, folder, n_tasks, workers)
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


def _mix(
    prepared: Prepared, base: BaseSource, stage: Path, out: Path, control: bool, workers: int
) -> MixSource:
    source = MixSource(
        base=base,
        overlay=stage / "overlay.npz",
        topology=prepared.plan.topology,
        layout=prepared.layout,
        val_layout=prepared.val_layout,
        eod_id=prepared.plan.encoder.eod_id,
        out=out,
        receipts=stage / "receipts",
        control=control,
    )
    if not stage.exists():
        _remove_stale(out)
    stage.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    save_overlay(make_overlay(prepared.plan), source.overlay)
    n_tasks = n_mix_tasks(prepared.layout, prepared.val_layout)
    run_stage("mix", [MixChunks(source)], stage, n_tasks, workers)
    return source


def _remove_stale(out: Path) -> None:
    """Removes what an interrupted build of another mix left in the folder."""
    for name in ("train", "val", "control", "manifest", "tokenizer"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        (out / name).unlink(missing_ok=True)
