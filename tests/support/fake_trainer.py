"""A stand-in for `litgpt pretrain` that reads the shards, writes down what it read, and is quick.

    python -m tests.support.fake_trainer LOG TEMPLATES pretrain --config C --out_dir O [--resume P]

It reads the blocks of each step in the training order, from the files, as they are then. A line of
LOG is a step and the digest of each of its sequences. Its checkpoints are copies of those in
TEMPLATES (step-00000020, ..., final), model_config.yaml last, as LitGPT writes them. With
FAKE_TRAINER_DIES=41-47 in the environment it kills itself, once, at step 47 of a start at step 41.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import yaml

from mixctl.shards.chunks import block_digests
from mixctl.shards.reading import read_sequences
from mixctl.shards.record import read_record

SECONDS_A_STEP = 0.004


def value(name: str) -> str | None:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def save(template: Path, out: Path) -> None:
    folder = out / template.name
    folder.mkdir(parents=True)
    for name in ("lit_model.pth", "model_config.yaml"):
        time.sleep(0.02)
        shutil.copyfile(template / name, folder / name)


def main() -> None:
    log, templates = Path(sys.argv[1]), Path(sys.argv[2])
    config = yaml.safe_load(Path(value("--config") or "").read_text())
    build, out = Path(config["data"]["init_args"]["data_path"]), Path(value("--out_dir") or "")
    resumed = value("--resume")
    first = int(Path(resumed).parent.name.partition("-")[2]) + 1 if resumed else 1
    assert resumed is None or Path(resumed).is_file()
    geometry, died = read_record(build).geometry, log.parent / "died"
    for step in range(first, geometry.steps + 1):
        if os.environ.get("FAKE_TRAINER_DIES") == f"{first}-{step}" and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        begin = (step - 1) * geometry.global_batch
        sequence = list(range(begin, begin + geometry.global_batch))
        digests = block_digests(read_sequences(build, geometry, sequence))
        with log.open("a") as file:
            print(json.dumps([step, digests]), file=file, flush=True)
        print(f"Epoch 1 | iter {step} step {step} | loss", flush=True)
        time.sleep(SECONDS_A_STEP)
        if step % config["train"]["save_interval"] == 0:
            save(templates / f"step-{step:08d}", out)
    save(templates / "final", out)


if __name__ == "__main__":
    main()
