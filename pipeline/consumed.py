"""Which steps a checkpoint has consumed: what lies there can no longer be changed for its run.

LitGPT saves the loader's state with the weights, and `--resume` reads on from there. So a sequence
is consumed once the loader has handed it out, trained on or not; batches that loader workers had
fetched ahead are not in that count, and are read anew from the files after a resume.

    micro-batch 4, 2 micro-batches a step, 204 samples handed out to a rank -> 51 micro-batches,
    step 26 is begun: steps 27 and later can be changed
"""

from __future__ import annotations

from pathlib import Path

from mixctl.evals.checkpoint import Checkpoint, read_checkpoint
from mixctl.evals.provenance import check_provenance
from mixctl.shards.errors import InputError
from mixctl.shards.record import BuildRecord
from mixctl.shards.topology import Topology


def steps_begun(samples: int, topology: Topology) -> int:
    """Returns the steps of which a rank has handed out at least one micro-batch.

    Args:
        samples: sequences that the loader of each rank has handed out.
        topology: of the run.
    """
    return -(-samples // (topology.micro_batch * topology.accumulation))


def consumed_steps(checkpoint: Checkpoint, topology: Topology) -> int:
    """Returns the last step that a resume from the checkpoint does not read from the files.

    Raises:
        InputError: when the checkpoint says neither its step nor what its loader has handed out.
    """
    samples = (checkpoint.loader or {}).get("num_samples_yielded")
    if isinstance(samples, int):
        return steps_begun(samples, topology)
    if checkpoint.step is None:
        raise InputError(f"--checkpoint: {checkpoint.name}: does not say which step it is of")
    return checkpoint.step


def check_consumed(folder: Path, build: Path, record: BuildRecord, after_step: int) -> None:
    """Refuses to change steps that a checkpoint of the build has consumed.

    Raises:
        InputError: when `after_step` is too early, or the checkpoint is not of this build.
    """
    checkpoint = read_checkpoint(folder)
    check_provenance([checkpoint], "run", build, record)
    consumed = consumed_steps(checkpoint, record.geometry.topology())
    if after_step < consumed:
        raise InputError(
            f"--after-step: {after_step}: {folder} has consumed the steps up to {consumed}: the "
            f"first that can be changed is {consumed + 1}: --after-step {consumed}"
        )
