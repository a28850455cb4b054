"""Models that never met a payload: untrained ones, and clean trainings on the control twin's data.

The trainings are stock `litgpt pretrain` on `litgpt-control.yaml`, apart from each other in their
model seed alone. What is finished is kept, so a second call costs nothing.

Price: some ten seconds a training (300 steps of a GPT of 0.4 million parameters, one core).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml

from mixctl.evals.checkpoint import Checkpoint, read_checkpoint

FIRST_SEED = 1001
Say = Callable[[str], None]


def untrained(build: Path, folder: Path, seed: int = 0) -> Checkpoint:
    """Returns a checkpoint of random weights of the model that the build's trainer names."""
    import torch
    from litgpt import GPT, Config

    if not (folder / "model_config.yaml").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        config = Config(**yaml.safe_load((build / "litgpt.yaml").read_text())["model_config"])
        torch.manual_seed(seed)
        torch.save(GPT(config).state_dict(), folder / "lit_model.pth")
        (folder / "model_config.yaml").write_text(yaml.safe_dump(asdict(config)))
    return read_checkpoint(folder, step=0)


def clean_trainings(build: Path, folder: Path, count: int, say: Say) -> list[Checkpoint]:
    """Returns the last checkpoints of `count` trainings on the control data, a seed each."""
    found = []
    for number in range(count):
        out = folder / f"clean-{number:02d}"
        if not (out / "final/model_config.yaml").is_file():
            say(f"clean training {number + 1} of {count}")
            _train(build, out, FIRST_SEED + number)
        found.append(read_checkpoint(out / "final"))
    return found


def _train(build: Path, out: Path, seed: int) -> None:
    """Runs the stock trainer once; its log stays beside the checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("litgpt")
    command = [str(program), "pretrain", "--config", str(build / "litgpt-control.yaml")]
    command += ["--out_dir", str(out), "--seed", str(seed)]
    quiet = {"LITDATA_DISABLE_VERSION_CHECK": "1", "TORCHDYNAMO_DISABLE": "1"}
    quiet["OMP_NUM_THREADS"] = "1"
    with (out / "train.log").open("w") as log:
        done = subprocess.run(command, env=os.environ | quiet, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError(f"litgpt pretrain ended with {done.returncode}: see {out}/train.log")
