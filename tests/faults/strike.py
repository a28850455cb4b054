"""One fault: struck, the state looked at, the command run again, the end compared."""

from __future__ import annotations

from tests.faults.inject import Fault, run
from tests.faults.scenes import NO_FAULT, Scene

_ENDS = {"killed": (-9,), "terminated": (143,), "clock": (0,)}
"""the exit codes of a fault; of all others 1 or 2, with one message, or 0 where it was survived"""


def strike(scene: Scene, fault: Fault) -> str | None:
    """Returns what went wrong with a fault; None when all is as it should be."""
    scene.begin()
    ended = run(scene.arguments, scene.out, fault, scene.scratch)
    if ended.status not in _ENDS.get(fault.kind, (0, 1, 2)):
        return f"ends with {ended.status}: {ended.said[-1500:]}"
    if "Traceback" in ended.said:
        return f"a traceback: {ended.said[-1500:]}"
    said = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    if ended.status in (1, 2) and (len(said) != 1 or str(scene.out) not in said[0]):
        return f"no single message that names the file: {said}"
    if (problem := scene.wrong()) is not None:
        return problem
    again = run(scene.arguments, scene.out, NO_FAULT, scene.scratch)
    if again.status != 0:
        return f"the second run ends with {again.status}: {again.said[-1500:]}"
    return _difference(scene)


def _difference(scene: Scene) -> str | None:
    found = scene.state()
    if found == scene.new:
        return None
    names = sorted(found.keys() ^ scene.new.keys())
    names += [name for name in found if name in scene.new and found[name] != scene.new[name]]
    return f"differs from a run without a fault in {names[:5]}"


def places(scene: Scene, count: int) -> list[int]:
    """Returns `count` writes of the scene, spread over all of them, first and last among them."""
    last = scene.n_writes
    return sorted({1 + (last - 1) * turn // max(count - 1, 1) for turn in range(count)})
