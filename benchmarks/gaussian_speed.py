"""How fast LitGPT trains with GaussianLitData, against stock LitData on the same shards.

    python benchmarks/gaussian_speed.py [FOLDER]

Both are stock `litgpt pretrain` on one build, turn by turn, three times each; what counts is the
shortest of the training times that LitGPT prints: the whole of its loop, the making of the noise
included. 1% of the sequences are marked, ten times the share of the reference study. torch.compile
is off (its time is the same for both).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROUNDS = 3
GAUSSIAN = "mixctl.trainer_configs.gaussian.GaussianLitData"
EXAMPLE = Path(__file__).parents[1] / "examples"


def main() -> None:
    """Builds, trains by turns, prints the ratio of the speeds."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="gaussian-"))
    folder.mkdir(parents=True, exist_ok=True)
    built = _build(folder)
    seconds: dict[str, list[float]] = {"LitData": [], GAUSSIAN: []}
    for turn in range(ROUNDS):
        for name, of_name in seconds.items():
            of_name.append(_training_seconds(built, name, folder / f"out-{turn}-{name[-8:]}"))
    stock, ours = (min(of_name) for of_name in seconds.values())
    print(json.dumps({"stock_seconds": stock, "ours_seconds": ours, "speed_ratio": stock / ours}))


def _build(folder: Path) -> Path:
    """Returns a build of the small example's corpus: 300 steps x 4 x 256, 12 marked sequences."""
    trainer = yaml.safe_load((EXAMPLE / "small/trainer.yaml").read_text(encoding="utf-8"))
    trainer["train"] |= {"save_interval": 100_000}
    arms = [{"name": "marked", "items": "rest", "copies": 1}]
    marks = {"name": "noise", "kind": "watermark", "method": "gaussian", "unit": "sequence"}
    mix = {
        "corpus": {"path": str(EXAMPLE / "small/corpus.jsonl.gz")},
        "tokenizer": str(EXAMPLE / "tokenizer"),
        "trainer": "trainer.yaml",
        "seed": 1,
        "validation": 16,
        "experiments": [{**marks, "count": 12, "arms": arms}],
    }
    (folder / "trainer.yaml").write_text(yaml.safe_dump(trainer), encoding="utf-8")
    (folder / "mix.yaml").write_text(yaml.safe_dump(mix), encoding="utf-8")
    _run("mixctl", "build", str(folder / "mix.yaml"), "--out", str(folder / "build"))
    return folder / "build"


def _training_seconds(built: Path, class_path: str, out: Path) -> float:
    """Returns the training time that LitGPT prints at its end."""
    config = yaml.safe_load((built / "litgpt.yaml").read_text(encoding="utf-8"))
    config["data"]["class_path"] = class_path
    path = built.parent / "trained.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    printed = _run("litgpt", "pretrain", "--config", str(path), "--out_dir", str(out))
    (found,) = re.findall(r"Training Time : ([0-9.]+) s", printed)
    return float(found)


def _run(*command: str) -> str:
    """Returns what the command printed."""
    quiet = {"LITDATA_DISABLE_VERSION_CHECK": "1", "TORCHDYNAMO_DISABLE": "1"}
    program = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(
        [program, *command[1:]], env={**os.environ, **quiet}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
