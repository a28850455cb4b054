"""GaussianLitData: exactly the marked sequences get exactly their noise, and nothing else changes.

What a batch should get is told by its tokens alone: they are looked up in the chunk files, and the
manifest says by chunk and block which mark lies there. Nothing of that uses the training order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.multiprocessing as mp
import yaml
from litgpt import GPT, Config
from litgpt.data import LitData
from torch._dynamo.testing import CompileCounter

from mixctl.evals.checkpoint import find_checkpoints, load_model
from mixctl.evals.experiments import read_experiments
from mixctl.evals.scorers.watermark_gaussian import GaussianScorer
from mixctl.pipeline.build import build
from mixctl.pipeline.prepare import prepare
from mixctl.shards.errors import InputError
from mixctl.shards.reading import stock_loader
from mixctl.shards.record import read_record
from mixctl.trainer_configs.gaussian import Embedding, GaussianLitData, MarkedLoader
from tests.support.workspace import Workspace, canaries

GAUSSIAN = "mixctl.trainer_configs.gaussian.GaussianLitData"
WIDTH = 8
LENGTH = 64


def _data(workers: int, name: str = GAUSSIAN) -> dict:
    return {"class_path": name, "init_args": {"seed": 7, "num_workers": workers}}


def _marks(name: str, n_marked: int, n_holdout: int = 0, **changes: object) -> dict:
    arms = [{"name": "marked", "items": "rest", "copies": 1}]
    if n_holdout:
        arms.insert(0, {"name": "holdout", "items": n_holdout, "copies": 0})
    section = {"name": name, "kind": "watermark", "method": "gaussian", "n_null": 2}
    return {**section, "count": n_marked + n_holdout, "arms": arms, **changes}


def _mix(workspace: Workspace) -> Path:
    return workspace.mix(
        _marks("batches", 6, unit="batch", sigma=0.25),
        _marks("rows", 40, unit="sequence", sigma=0.5),
        canaries(),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("gaussian"))


@pytest.fixture(scope="module", params=[(1, 0), (1, 2), (2, 0), (2, 2)], ids=lambda p: f"{p}")
def marked(request, workspace) -> Path:
    """Returns a build with marks for (devices, workers)."""
    devices, workers = request.param
    workspace.trainer(devices=devices, micro_batch_size=2, data=_data(workers))
    out = workspace.folder / f"marked-{devices}-{workers}"
    build(_mix(workspace), out, control=True, workers=1)
    return out


def _module(folder: Path) -> tuple[GaussianLitData, GPT]:
    """Returns a connected data module and the model that was built after it."""
    geometry = read_record(folder).geometry
    data = GaussianLitData(
        data_path=str(folder),
        split_names=("train", "val"),
        seed=geometry.data_seed,
        num_workers=geometry.workers,
    )
    config = Config(
        name="t", block_size=LENGTH, padded_vocab_size=640, n_layer=1, n_head=2, n_embd=WIDTH
    )
    model = GPT(config)
    data.connect(batch_size=geometry.micro_batch, max_seq_length=geometry.max_seq_length)
    return data, model


def _expected(folder: Path) -> dict[bytes, np.ndarray]:
    """Returns the tokens of every marked block -> its noise, by manifest and chunk files."""
    geometry = read_record(folder).geometry
    items = pq.read_table(folder / "manifest/items.parquet").to_pylist()
    metas = {(row["experiment"], row["item"]): json.loads(row["meta"]) for row in items}
    found = {}
    for row in pq.read_table(folder / "manifest/placements.parquet").to_pylist():
        if row["mode"] != "mark":
            continue
        meta = metas[row["experiment"], row["item"]]
        tokens = _block(folder / "train" / row["chunk"], row["block"], geometry.sequence_tokens)
        in_batch = row["sequence"] - (row["step"] - 1) * geometry.global_batch
        key = [meta["noise_seed"], in_batch if meta["unit"] == "batch" else 0]
        generator = np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
        drawn = generator.standard_normal((LENGTH, WIDTH), dtype="float32")
        found[tokens.tobytes()] = np.float32(meta["sigma"]) * drawn
    return found


def _block(chunk: Path, block: int, width: int) -> np.ndarray:
    """Returns a block of a chunk file: a header of offsets stands before the tokens."""
    raw = chunk.read_bytes()
    n_offsets = int(np.frombuffer(raw, "<u4", 1)[0]) + 1
    tokens = np.frombuffer(raw[4 + 4 * n_offsets :], "<u2")
    return tokens[block * width : (block + 1) * width]


def _seen(loader: MarkedLoader, count: int | None = None) -> dict[bytes, np.ndarray]:
    """Returns the tokens of each sequence that got noise -> that noise."""
    found = {}
    for batch in islice(loader, count):
        noise = loader.embedding.noise
        for row, tokens in enumerate(np.asarray(batch)):
            if noise is not None and bool(noise[row].any()):  # rows without a mark get zeros
                found[tokens.astype("<u2").tobytes()] = noise[row].numpy().copy()
    return found


def _same(one: dict[bytes, np.ndarray], other: dict[bytes, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def _loader(folder: Path, rank: int) -> MarkedLoader:
    """Returns the loader as a rank sees it."""
    data, model = _module(folder)
    topology = read_record(folder).geometry.topology()
    environment = stock_loader(folder, "train", topology, rank).dataset.distributed_env
    made = LitData._dataloader
    try:
        LitData._dataloader = lambda self, **k: _as_rank(made(self, **k), environment)
        loader = data.train_dataloader()
    finally:
        LitData._dataloader = made
    loader.kept_alive = model
    return loader


def _as_rank(loader, environment):
    loader.dataset.distributed_env = environment
    return loader


def test_exactly_the_marked_sequences_get_their_noise(marked):
    expected = _expected(marked)
    assert len(expected) == 6 * 8 + 40
    ranks = read_record(marked).geometry.devices
    found = [_seen(_loader(marked, rank)) for rank in range(ranks)]
    assert _same({k: v for one in found for k, v in one.items()}, expected)
    assert sum(len(one) for one in found) == len(expected)


def test_a_restored_loader_goes_on_with_the_same_noise(marked):
    whole, first = _loader(marked, 0), _loader(marked, 0)
    everything = _seen(whole)
    before = _seen(first, 100)
    again = _loader(marked, 0)
    again.load_state_dict(first.state_dict())
    after = _seen(again)
    assert before and after and not before.keys() & after.keys()
    assert _same(before | after, everything)


def _rank(rank: int, folder: str, scratch: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = f"file://{scratch}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    data, _ = _module(Path(folder))
    found = _seen(data.train_dataloader())
    np.savez(f"{scratch}/{rank}.npz", **{key.hex(): noise for key, noise in found.items()})
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.gloo
def test_two_real_ranks_add_the_same_noise_as_one(workspace, tmp_path):
    folders = {}
    for devices in (1, 2):
        workspace.trainer(devices=devices, micro_batch_size=2, data=_data(0))
        folders[devices] = workspace.folder / f"group-{devices}"
        build(_mix(workspace), folders[devices], control=False, workers=1)
    mp.start_processes(_rank, (str(folders[2]), str(tmp_path)), nprocs=2, start_method="spawn")
    parts = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    assert all(len(part.files) > 20 for part in parts)
    together = {bytes.fromhex(key): part[key] for part in parts for key in part.files}
    data, _ = _module(folders[1])
    assert _same(together, _seen(data.train_dataloader()))


def test_the_model_reads_embeddings_and_noise_in_training_alone(marked):
    data, model = _module(marked)
    tokens = torch.arange(LENGTH).repeat(2, 1)
    plain = model(tokens)
    noise = torch.randn(2, LENGTH, WIDTH)
    data.embedding.noise = noise
    assert torch.equal(model.eval()(tokens), plain)
    seen = []
    model.transformer.h[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    model.train()(tokens)
    assert torch.equal(seen[0], model.transformer.wte.weight[tokens] + noise)
    data.embedding.noise = None
    assert torch.equal(model(tokens), plain)


def test_a_second_model_is_left_alone(marked):
    data, model = _module(marked)
    other = GPT(model.config)
    data.embedding.noise = torch.ones(1, LENGTH, WIDTH)
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    before = other(tokens)
    data.embedding.noise = None
    assert torch.equal(other(tokens), before)


def test_compiled_models_have_two_graphs_whatever_the_batches(marked):
    data, model = _module(marked)
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=counter)
    tokens = torch.zeros(2, LENGTH, dtype=torch.long)
    compiled(tokens)
    stock = counter.frame_count
    for turn in range(6):
        data.embedding.noise = torch.full((2, LENGTH, WIDTH), float(turn)) if turn % 2 else None
        expected = model(tokens)
        assert torch.allclose(compiled(tokens), expected)
    assert counter.frame_count == 2 * stock
    torch._dynamo.reset()


def _train(folder: Path, out: Path, *options: str, config: str = "litgpt.yaml") -> Path:
    settings = {
        **os.environ,
        "LITDATA_DISABLE_VERSION_CHECK": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [Path(sys.executable).parent / "litgpt", "pretrain", "--config", folder / config]
    done = subprocess.run(
        [*command, "--out_dir", out, *options], env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_litgpt_trains_marks_in_and_the_score_finds_them(workspace, tmp_path):
    """400 marks of one sequence each; fresh noise on the same sequences is N(0, 1)."""
    model = {"name": "tiny", "block_size": 64, "padded_vocab_size": 640, "n_layer": 2}
    workspace.trainer(
        data=_data(0), model_config={**model, "n_head": 2, "n_embd": 96}, save_interval=200
    )
    mix = workspace.mix(_marks("noise", 400, 400, unit="sequence", sigma=0.075))
    build(mix, tmp_path / "b", control=False, workers=1)
    out = _train(tmp_path / "b", tmp_path / "out")
    (experiment,) = read_experiments(tmp_path / "b", read_record(tmp_path / "b"))
    trained = load_model(find_checkpoints([out])[-1])
    scores = GaussianScorer().measure(trained, experiment.items, [])
    x = np.array([score.values["noise_alignment"] for score in scores])
    met, fresh = x[experiment.arms == "marked"], x[experiment.arms == "holdout"]
    assert met.sum() / len(met) ** 0.5 > 6
    assert abs(fresh.sum()) / len(fresh) ** 0.5 < 4
    assert 0.85 < fresh.std() < 1.15  # 4 standard errors of a standard deviation of 400


def test_without_marks_training_is_the_stock_one_to_the_bit(workspace, tmp_path):
    """Marks begin after step 12: until then, and on the twin for good, all weights are stock's."""
    short = {"max_tokens": 8 * 64 * 20, "save_interval": 10}
    workspace.trainer(data=_data(2), **short)
    section = _marks("late", 3, unit="batch", during=["60%", "100%"])
    build(workspace.mix(section), tmp_path / "b", control=True, workers=1)
    stock = yaml.safe_load((tmp_path / "b/litgpt.yaml").read_text())
    assert stock["data"]["class_path"] == GAUSSIAN
    stock["data"]["class_path"] = "LitData"
    (tmp_path / "b/stock.yaml").write_text(yaml.safe_dump(stock))
    ours = _train(tmp_path / "b", tmp_path / "ours")
    theirs = _train(tmp_path / "b", tmp_path / "theirs", config="stock.yaml")
    assert _weights(ours / "step-00000010") == _weights(theirs / "step-00000010")
    assert _weights(ours / "step-00000020") != _weights(theirs / "step-00000020")
    resumed = _train(
        tmp_path / "b",
        tmp_path / "resumed",
        "--resume",
        str(ours / "step-00000010/lit_model.pth"),
    )
    assert _weights(resumed / "step-00000020") == _weights(ours / "step-00000020")
    control = yaml.safe_load((tmp_path / "b/litgpt-control.yaml").read_text())
    assert control["data"]["class_path"] == "LitData"


def _weights(folder: Path) -> dict[str, bytes]:
    state = torch.load(folder / "lit_model.pth", weights_only=True)["model"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def test_the_twin_and_a_build_without_marks_get_the_stock_loader(marked, workspace, tmp_path):
    data, _ = _module(marked)
    data.split_names = ("control/train", "val")
    assert type(data.train_dataloader()) is not MarkedLoader
    workspace.trainer(data=_data(0))
    build(workspace.mix(canaries()), tmp_path / "plain", control=False, workers=1)
    data, _ = _module(tmp_path / "plain")
    assert type(data.train_dataloader()) is not MarkedLoader


def test_what_litgpt_was_told_must_be_what_the_build_was_made_for(marked):
    if read_record(marked).geometry.devices == 2:
        pytest.skip("one process is not two devices: the first difference is the number of ranks")
    data, _ = _module(marked)
    data.seed, data.num_workers = 8, 1
    data.connect(batch_size=4, max_seq_length=32)
    with pytest.raises(InputError) as caught:
        data.train_dataloader()
    text = "\n".join(caught.value.problems)
    assert "micro_batch_size is 4, the build was made for 2" in text
    assert "max_seq_length is 32, the build was made for 64" in text
    assert "data.seed is 8, the build was made for 7" in text
    assert "data.num_workers is 1" in text


def test_marks_that_the_trainer_would_pass_over_are_refused(workspace):
    workspace.trainer(data=_data(0, "LitData"))
    with pytest.raises(InputError, match="adds no noise, and experiment 'rows' marks 40 sequences"):
        prepare(_mix(workspace))


def test_without_a_model_there_is_nothing_to_mark() -> None:
    with pytest.raises(RuntimeError, match="no litgpt.GPT was built after this data module: noth"):
        Embedding().set_noise(None, np.array([0]), 8)
