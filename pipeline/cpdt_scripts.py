"""The scripts that train dependence runs anywhere: stock `litgpt pretrain`, ended after its save.

LitGPT cannot stop at a step without changing its schedule. So each run saves once, at its last
step, and is ended when the checkpoint is complete: `model_config.yaml`, which LitGPT writes last,
is there.

    train-one.sh NAME    one run; nothing where it is trained already
    train-all.sh         all of them, one after the other
    slurm.sh             an array, a task a run: sbatch --partition=P slurm.sh
"""

from __future__ import annotations

import shlex
from pathlib import Path

from mixctl.shards.dependence_record import DependenceRecord, checkpoint_folder
from mixctl.shards.files import write_text
from mixctl.shards.record import Geometry

_ONE = """#!/bin/bash
# Trains one dependence run: train-one.sh NAME. LAUNCH goes before the command, for example srun.
set -u
cd {out} || exit 1
run=runs/$1
saved=$run/{saved}/model_config.yaml
[ -d "$run" ] || {{ echo "no such run: $1" >&2; exit 2; }}
[ -f "$saved" ] && exit 0
rm -rf "$run/out"
export LITDATA_DISABLE_VERSION_CHECK=1
setsid ${{LAUNCH:-}} litgpt pretrain --config "$run/litgpt.yaml" > "$run/train.log" 2>&1 &
trainer=$!
trap 'kill -TERM -- -$trainer 2> /dev/null' EXIT
while kill -0 $trainer 2> /dev/null && [ ! -f "$saved" ]; do sleep 2; done
[ -f "$saved" ] || {{ echo "$1: litgpt ended before it saved, see $run/train.log" >&2; exit 1; }}
sleep 5   # until the file is whole
"""

_ALL = """#!/bin/bash
# Trains all dependence runs, one after the other; those that are trained are left alone.
for name in {names}; do {out}/train-one.sh "$name" || exit 1; done
"""

_SLURM = """#!/bin/bash
#SBATCH --job-name=cpdt
#SBATCH --array=0-{last}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={devices}
#SBATCH --gres=gpu:{devices}
#SBATCH --output={out}/slurm-%a.log
names=({names})
LAUNCH=srun {out}/train-one.sh "${{names[$SLURM_ARRAY_TASK_ID]}}"
"""


def write_scripts(record: DependenceRecord, geometry: Geometry, out: Path) -> None:
    """Writes train-one.sh, train-all.sh and slurm.sh."""
    names = " ".join(shlex.quote(run.name) for run in record.runs)
    saved = checkpoint_folder(out, "-", record.end).relative_to(out / "runs/-")
    quoted = shlex.quote(str(out))
    texts = {
        "train-one.sh": _ONE.format(out=quoted, saved=saved),
        "train-all.sh": _ALL.format(out=quoted, names=names),
        "slurm.sh": _SLURM.format(
            out=quoted,
            names=names,
            last=len(record.runs) - 1,
            nodes=geometry.nodes,
            devices=geometry.devices,
        ),
    }
    for name, text in texts.items():
        write_text(out / name, text)
        (out / name).chmod(0o755)
