"""Before the expensive run begins: shards, config, disk, and the loader against the model.

    $ mixctl preflight out/run1 --step-time 1.9
    shards  ok    1,042 files, 300 placements, ...
    config  ok    100,000 steps x 512 sequences x 4,096 tokens on 64 devices, as built
    disk    FAIL  101 saves x 17.82 GB = 1,799.76 GB in /scratch/out, 903.11 GB are free
    loader  ok    1,204,000 tokens/s a rank, a step needs 17,246: 69.8 times as fast
    time    ok    100,000 steps x 1.9 s = 52.8 h, 3,378 device hours

Shards are verified in bounded time (`mixctl verify` without --full). The loader is the stock one,
set up as LitGPT does for one rank, with the config's workers, and read for some seconds. A step's
time is given, or measured with random weights where the model is small; else it is said to be
unknown, and no verdict hangs on it.

Price: that of `mixctl verify`, the seconds of the loader, and a few steps of a small model.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mixctl.evals.skeleton import litgpt_config, skeleton
from mixctl.pipeline.litgpt_types import known_models
from mixctl.pipeline.trainer import (
    TrainerConfig,
    litgpt_problems,
    model_vocabulary,
    read_topology,
    read_trainer,
)
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.reading import read_batches
from mixctl.shards.record import BuildRecord, read_record
from mixctl.shards.topology import Topology
from mixctl.shards.verify import verify

if TYPE_CHECKING:
    import torch

Verdict = Literal["ok", "FAIL", "unknown"]
LOADER_SECONDS = 5.0
SMALL_MODEL = 30_000_000
"""parameters up to which a step's time is measured here"""
_MEASURED = 3
"""micro-batches whose time is taken, after one to begin with"""


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: shards, config, disk, loader or time.
        verdict: ok; FAIL; unknown: could not be found out, and does not fail.
        said: what was found, with the numbers.
    """

    name: str
    verdict: Verdict
    said: str


@dataclass(frozen=True)
class Preflight:
    """All that was looked at; plain values, as --json prints them."""

    build: str
    config: str
    checks: list[Check]
    numbers: dict[str, float | int | None]

    @property
    def failed(self) -> bool:
        """Returns whether anything must be put right first."""
        return any(check.verdict == "FAIL" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "ok": not self.failed}


def preflight(
    build: Path,
    config: Path | None = None,
    step_time: float | None = None,
    seconds: float = LOADER_SECONDS,
) -> Preflight:
    """Returns what was found.

    Args:
        build: the folder of a build.
        config: for `litgpt pretrain --config`; None: the build's litgpt.yaml.
        step_time: seconds of an optimizer step, where they are known.
        seconds: how long the loader is read.

    Raises:
        InputError: when the folder holds no build, or the config cannot be read.
    """
    record, path = read_record(build), config or build / "litgpt.yaml"
    trainer, raw = read_trainer(path)
    topology = read_topology(trainer, path)
    n_parameters = parameters(raw, path)
    checks = [_shards(build), _config(build, record, path, trainer, raw, topology)]
    disk, n_bytes = _disk(trainer, raw, topology, n_parameters)
    split = (raw.get("data") or {}).get("init_args", {}).get("split_names") or ["train"]
    rate = None
    if all(check.verdict == "ok" for check in checks):
        rate = loader_rate(build, str(split[0]), topology, seconds)
    how = "as given"
    if step_time is None and n_parameters <= SMALL_MODEL:
        step_time, how = (
            measured_step_time(raw, path, topology),
            "measured here, without torch.compile",
        )
    checks += [disk, _loader(topology, rate, step_time), _time(topology, step_time, how)]
    numbers: dict[str, float | int | None] = {
        "parameters": n_parameters,
        "checkpoint_bytes": n_bytes,
        "saves": n_saves(topology.steps, trainer.train.save_interval),
        "loader_tokens_per_second": rate,
        "step_seconds": step_time,
    }
    return Preflight(str(build), str(path), checks, numbers)


def _shards(build: Path) -> Check:
    try:
        report = verify(build)
    except VerificationError as error:
        return Check("shards", "FAIL", "; ".join(error.findings[:3]))
    return Check(
        "shards",
        "ok",
        f"{report.files:,} files, {report.placements:,} placements, {report.blocks:,} blocks and "
        f"{report.batches:,} micro-batches of the stock loader (a sample)",
    )


def _config(
    build: Path,
    record: BuildRecord,
    path: Path,
    trainer: TrainerConfig,
    raw: Mapping[str, Any],
    topology: Topology,
) -> Check:
    """Compares the config with the build's geometry, and asks LitGPT's own parser."""
    expected = record.geometry.topology()
    problems = [
        f"{name} is {found}, the build has {wanted}"
        for name, found, wanted in _differences(topology, expected)
    ]
    folder = Path(str(trainer.data.init_args.data_path))
    if folder.resolve() != build.resolve():
        problems.append(f"data_path is {folder}, the build is in {build.resolve()}")
    known = model_vocabulary(trainer)
    if known is not None and known < record.tokenizer.vocab_size:
        problems.append(f"the model embeds {known} of {record.tokenizer.vocab_size} token ids")
    problems += litgpt_problems(dict(raw), path)
    if problems:
        return Check("config", "FAIL", "; ".join(problems))
    return Check(
        "config",
        "ok",
        f"{topology.steps:,} steps x {topology.global_batch:,} sequences x "
        f"{topology.max_seq_length:,} tokens on {topology.ranks} devices, as built",
    )


def _differences(found: Topology, wanted: Topology) -> list[tuple[str, object, object]]:
    pairs = zip(vars(found).items(), vars(wanted).values(), strict=True)
    return [(name, one, other) for (name, one), other in pairs if one != other]


def _disk(
    trainer: TrainerConfig, raw: Mapping[str, Any], topology: Topology, n_parameters: int
) -> tuple[Check, int]:
    """Returns the check of room and right to write, and the bytes of a checkpoint."""
    out = Path(trainer.out_dir).resolve()
    size = checkpoint_bytes(n_parameters, trainer.precision, trainer.optimizer)
    saves = n_saves(topology.steps, trainer.train.save_interval)
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    needed, free = saves * size, shutil.disk_usage(there).free
    said = f"{saves:,} saves x {gigabytes(size)} = {gigabytes(needed)} in {out}"
    if reason := _cannot_write(there):
        return Check("disk", "FAIL", f"{out} cannot be written ({reason})"), size
    if old := sorted(out.glob("step-*/lit_model.pth")):
        said += f"; holds {len(old)} checkpoints of an earlier run, which this one overwrites"
    if needed > free:
        return Check("disk", "FAIL", f"{said}, {gigabytes(free)} are free"), size
    return Check("disk", "ok", f"{said}; {gigabytes(free)} are free"), size


def _cannot_write(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _loader(topology: Topology, rate: float | None, step_time: float | None) -> Check:
    tokens = topology.accumulation * topology.micro_batch * topology.max_seq_length
    if rate is None:
        return Check("loader", "unknown", "not read: shards or config come first")
    said = f"{rate:,.0f} tokens/s a rank with {topology.workers} workers"
    if step_time is None:
        needs = f"a step of {tokens:,} tokens a rank takes it {tokens / rate:.3g} s"
        return Check("loader", "unknown", f"{said}: {needs}; the model's time: --step-time")
    needed = tokens / step_time
    ratio = rate / needed
    verdict: Verdict = "ok" if ratio >= 1 else "FAIL"
    return Check(
        "loader", verdict, f"{said}, the model takes {needed:,.0f}: {ratio:.3g} times as fast"
    )


def _time(topology: Topology, step_time: float | None, how: str) -> Check:
    if step_time is None:
        return Check("time", "unknown", "a step's time is not known: give it by --step-time")
    hours = topology.steps * step_time / 3600
    return Check(
        "time",
        "ok",
        f"{topology.steps:,} steps x {step_time:.3g} s ({how}) = {hours:,.3g} h, "
        f"{hours * topology.ranks:,.3g} device hours",
    )


def n_saves(steps: int, interval: int | None) -> int:
    """Returns the checkpoints that LitGPT writes: one every `interval` steps, and `final`."""
    return 1 + (steps // interval if interval else 0)


def checkpoint_bytes(
    n_parameters: int, precision: str | None, optimizer: str | Mapping[str, Any] | None
) -> int:
    """Returns the bytes of a LitGPT checkpoint: weights, and what the optimizer keeps of each.

    Adam and its kin keep two numbers a parameter, SGD one where it has a momentum; an optimizer of
    another name is taken for one of the first. Numbers have 2 bytes with `bf16-true` and `16-true`,
    8 with `64-true`, else 4 (`*-mixed` keeps weights in 32 bits).
    """
    width = {"bf16-true": 2, "16-true": 2, "64-true": 8}.get(precision or "", 4)
    named: Mapping[str, Any] = {"class_path": optimizer}
    described = optimizer if isinstance(optimizer, Mapping) else named
    name = str(described.get("class_path") or "AdamW").rpartition(".")[2]
    kept = 2
    if name == "SGD":
        arguments = described.get("init_args") or {}
        kept = 1 if arguments.get("momentum") else 0
    return n_parameters * width * (1 + kept)


def _gpt_config(raw: Mapping[str, Any], path: Path) -> Any:
    """Returns the `litgpt.Config` of a trainer config.

    Raises:
        InputError: naming `path`, when LitGPT knows no such model or does not accept its sizes.
    """
    settings, known = raw.get("model_config"), known_models()
    name = str(raw.get("model_name")).split("/")[-1]
    if not settings and name not in known:
        raise InputError(litgpt_problems(dict(raw), path))
    return litgpt_config(settings or known[name], path)


def parameters(raw: Mapping[str, Any], path: Path) -> int:
    """Returns the number of parameters of the config's model; no memory is taken for them.

    Raises:
        InputError: naming `path`, the config's file, when LitGPT makes no model of it.
    """
    model = skeleton(_gpt_config(raw, path), path)
    if (raw.get("train") or {}).get("tie_embeddings"):
        model.transformer.wte.weight = model.lm_head.weight
    return sum(one.numel() for one in model.parameters())


def loader_rate(build: Path, split: str, topology: Topology, seconds: float) -> float:
    """Returns the tokens a second that the stock loader gives one rank, as LitGPT counts them.

    The first micro-batch is not counted: it waits for the workers to start.
    """
    batches = read_batches(build, split, topology, rank=0)
    next(batches)
    began, n_read = time.perf_counter(), 0
    for _ in batches:
        n_read += 1
        if time.perf_counter() - began >= seconds:
            break
    took = time.perf_counter() - began
    return n_read * topology.micro_batch * topology.max_seq_length / took


def measured_step_time(raw: Mapping[str, Any], path: Path, topology: Topology) -> float:
    """Returns the seconds of an optimizer step of one device, with random weights and tokens.

    Without torch.compile, and in 32 bits on a CPU: an upper bound where the training does better.
    """
    import torch
    from litgpt import GPT

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = _gpt_config(raw, path)
    model = GPT(config).to(device)
    model.max_seq_length = topology.max_seq_length
    optimizer = torch.optim.AdamW(model.parameters())
    shape = (topology.micro_batch, topology.max_seq_length + 1)
    tokens = torch.randint(config.vocab_size, shape, device=device)
    _micro_batch(model, tokens)
    optimizer.step()
    began = time.perf_counter()
    for _ in range(_MEASURED):
        _micro_batch(model, tokens)
    each = (time.perf_counter() - began) / _MEASURED
    began = time.perf_counter()
    optimizer.step()
    return topology.accumulation * each + time.perf_counter() - began


def _micro_batch(model: torch.nn.Module, tokens: torch.Tensor) -> None:
    """Runs one micro-batch forward and backward, as LitGPT does."""
    import torch
    from litgpt.utils import chunked_cross_entropy

    chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
    if tokens.is_cuda:
        torch.cuda.synchronize()


def gigabytes(n: int) -> str:
    """Returns bytes for people: 17.82 GB, or MB below a hundredth of one."""
    return f"{n / 1e9:,.2f} GB" if n >= 10**7 else f"{n / 1e6:,.2f} MB"
