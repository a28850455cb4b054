"""The checkpoint that every dependence run begins from, and the trainer config of a run.

Stock LitGPT continues with `--resume`: weights, optimizer, step and iteration come from the
checkpoint, and so does the state of the loader, which is bound to the folder and the place where
training was. The runs have data sets of their own, to be read from the beginning. So start/ holds
the checkpoint with one entry changed: the loader has yielded nothing yet.

    lit_model.pth   {"model": ..., "optimizer": ..., "iter_num": 400, "step_count": 100,
                     "train_dataloader": {"num_samples_yielded": 0, ...}}

`max_tokens` stays that of the build, and with it the learning rate of every step. A run trained on
the build's own next sequences ends with the very weights of the build's run (the tests compare bit
by bit). LitGPT saves once, at the last step of the run (`save_interval`), and is ended then.

Price: one copy of the checkpoint for all runs, its tensors mapped.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mixctl.evals.checkpoint import CONFIG_NAME, STATE_NAME, Checkpoint, read_state
from mixctl.shards.files import replacing, write_bytes
from mixctl.shards.record import Geometry

START = "start"
NOTHING_READ: dict[str, Any] = {
    "dataset": {},
    "current_epoch": 0,
    "num_samples_yielded": 0,
    "latest_worker_idx": 0,
}
"""the state of a litdata loader that has not begun"""


def write_start(checkpoint: Checkpoint, out: Path) -> Path:
    """Returns the folder of the checkpoint whose loader has not begun, after writing it."""
    import torch

    folder = out / START
    state = {**read_state(checkpoint.state_path), "train_dataloader": NOTHING_READ}
    with replacing(folder / STATE_NAME) as partial:
        torch.save(state, partial)
    write_bytes(folder / CONFIG_NAME, (checkpoint.folder / CONFIG_NAME).read_bytes())
    return folder


def run_config(
    trainer: dict[str, Any], geometry: Geometry, end: int, folder: Path, start: Path
) -> dict[str, Any]:
    """Returns the config of a run for `litgpt pretrain --config`.

    Args:
        trainer: the config that the checkpoint was trained with.
        geometry: of the build.
        end: the step at which LitGPT saves.
        folder: of the run, absolute: its data, and its out_dir.
        start: the folder of the checkpoint to resume.
    """
    made = copy.deepcopy(trainer)
    made.pop("initial_checkpoint_dir", None)
    made["data"] = {
        "class_path": "LitData",
        "init_args": {
            "data_path": str(folder),
            "split_names": ["train", "val"],
            "seed": geometry.data_seed,
            "num_workers": geometry.workers,
        },
    }
    made["train"] |= {
        "max_tokens": geometry.max_tokens,
        "max_seq_length": geometry.max_seq_length,
        "global_batch_size": geometry.global_batch,
        "micro_batch_size": geometry.micro_batch,
        "save_interval": end,
    }
    never = geometry.steps + 1
    checks = {"interval": never, "initial_validation": False, "final_validation": False}
    made["eval"] = {**(made.get("eval") or {}), **checks}
    made |= {"devices": geometry.devices, "num_nodes": geometry.nodes, "logger_name": "csv"}
    return made | {"resume": str(start / STATE_NAME), "out_dir": str(folder / "out")}
