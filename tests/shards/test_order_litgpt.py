"""The training order against what a real `litgpt pretrain` trains on, and resumes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixctl.shards.layout import train_layout, val_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology
from tests.support.slots import coded_blocks, write_slots

VOCAB = 64
LENGTH = 8
STEPS = 12
ROOT = Path(__file__).parents[2]


def _topology(workers: int) -> Topology:
    """Returns 12 whole steps of two iterations each, and one more iteration that no step uses."""
    return Topology(
        devices=1,
        nodes=1,
        workers=workers,
        micro_batch=2,
        global_batch=4,
        max_seq_length=LENGTH,
        max_tokens=(STEPS * 4 + 2) * LENGTH,
        data_seed=11,
    )


def _config(build: Path, topology: Topology) -> dict:
    return {
        "model_name": "tiny",
        "model_config": {
            "name": "tiny",
            "block_size": LENGTH,
            "vocab_size": VOCAB,
            "padded_vocab_size": VOCAB,
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 16,
        },
        "out_dir": str(build / "out"),
        "precision": "32-true",
        "devices": topology.devices,
        "num_nodes": topology.nodes,
        "logger_name": "csv",
        "data": {
            "class_path": "LitData",
            "init_args": {
                "data_path": str(build),
                "split_names": ["train", "val"],
                "seed": topology.data_seed,
                "num_workers": topology.workers,
            },
        },
        "train": {
            "max_seq_length": LENGTH,
            "global_batch_size": topology.global_batch,
            "micro_batch_size": topology.micro_batch,
            "max_tokens": topology.max_tokens,
            "lr_warmup_steps": 2,
            "max_norm": 1.0,
            "save_interval": 5,
            "log_interval": 100,
            "tie_embeddings": False,
        },
        "eval": {"interval": 4, "max_iters": 1, "final_validation": False},
    }


def _build(folder: Path, topology: Topology) -> TrainingOrder:
    """Writes train/, val/ and litgpt.yaml and returns the order of train/."""
    layout = train_layout(topology, 2, 5 * topology.micro_batch * topology.sequence_tokens * 2)
    write_slots(folder / "train", layout, LENGTH + 1, base=VOCAB)
    write_slots(folder / "val", val_layout(topology, 16, 2, 2**20), LENGTH + 1, base=VOCAB)
    (folder / "litgpt.yaml").write_text(yaml.safe_dump(_config(folder, topology)))
    return TrainingOrder(topology, layout)


def _pretrain(folder: Path, log: Path, *options: str) -> list[list[np.ndarray]]:
    """Returns the micro-batches of each optimizer step of one `litgpt pretrain`, then the rest."""
    command = [sys.executable, "-m", "tests.support.litgpt_tap", str(log), "pretrain"]
    command += ["--config", str(folder / "litgpt.yaml"), *options]
    environment = os.environ | {
        "TORCHDYNAMO_DISABLE": "1",
        "LITDATA_DISABLE_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    steps: list[list[np.ndarray]] = [[]]
    for line in log.read_text().splitlines():
        if line == "step":
            steps.append([])
        else:
            steps[-1].append(np.array(json.loads(line.removeprefix("batch "))))
    return steps


def _check_steps(order: TrainingOrder, steps: list[list[np.ndarray]], first: int) -> None:
    """Compares the model's inputs at each step, from `first` on, with the predicted sequences."""
    topology = order.topology
    *whole, rest = steps
    assert len(whole) == STEPS - first + 1
    for step, batches in enumerate(whole, start=first):
        assert len(batches) == topology.accumulation
        begin = (step - 1) * topology.global_batch
        _check_rows(order, batches, np.arange(begin, begin + topology.global_batch), f"step {step}")
    assert len(rest) == topology.iterations - STEPS * topology.accumulation == 1
    _check_rows(order, rest, topology.sequences + np.arange(topology.micro_batch), "after the last")


def _check_rows(
    order: TrainingOrder, batches: list[np.ndarray], sequences: np.ndarray, what: str
) -> None:
    chunk, block = order.slots(sequences)
    slots = chunk * order.layout.blocks_per_chunk + block
    expected = coded_blocks(slots, LENGTH + 1, VOCAB, "uint16")[:, :-1]
    np.testing.assert_array_equal(np.concatenate(batches), expected, err_msg=what)


def _loader_state(checkpoint: Path) -> tuple[dict, int, int]:
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return state["train_dataloader"], state["iter_num"], state["step_count"]


@pytest.mark.parametrize("workers", [0, 2])
def test_pretrain_and_resume_train_on_the_predicted_sequences(tmp_path: Path, workers: int) -> None:
    topology = _topology(workers)
    assert (topology.problems(), topology.steps, topology.iterations) == ([], STEPS, 25)
    order = _build(tmp_path, topology)
    _check_steps(order, _pretrain(tmp_path, tmp_path / "run.log"), first=1)
    for step in (5, 10):
        _check_state(tmp_path / "out" / f"step-{step:08d}", topology, step * 2, step * 2, step)
    # LitGPT fetches one more micro-batch before it sees that it is done, and saves after that
    _check_state(tmp_path / "out" / "final", topology, 26, 25, STEPS)

    checkpoint = tmp_path / "out" / "step-00000005" / "lit_model.pth"
    options = ("--resume", str(checkpoint), "--out_dir", str(tmp_path / "resumed"))
    _check_steps(order, _pretrain(tmp_path, tmp_path / "resumed.log", *options), first=6)
    _check_state(tmp_path / "resumed" / "step-00000010", topology, 20, 20, 10)
    _check_state(tmp_path / "resumed" / "final", topology, 26, 25, STEPS)


def _check_state(
    folder: Path, topology: Topology, fetched: int, iterations: int, steps: int
) -> None:
    """Compares what a checkpoint says of its data with the topology: evals rely on these fields."""
    loader, iter_num, step_count = _loader_state(folder / "lit_model.pth")
    assert (iter_num, step_count) == (iterations, steps)
    assert loader["num_samples_yielded"] == fetched * topology.micro_batch
    assert loader["current_epoch"] == loader["dataset"]["current_epoch"] == 1
    data = loader["dataset"]
    assert data["num_samples_yielded"] == fetched * topology.micro_batch
    assert data["num_workers"] == topology.loader_workers
    assert data["batch_size"] == topology.micro_batch
    assert (data["seed"], data["world_size"]) == (topology.data_seed, topology.ranks)
    assert data["shuffle"] is True
    assert data["item_loader"] == {"block_size": topology.sequence_tokens}
    assert Path(data["input_dir_path"]).name == "train"
