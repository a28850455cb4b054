"""A finished build of which one bit was flipped or one file cut: `verify` says which."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.faults.inject import run
from tests.faults.scenes import NO_FAULT
from tests.support.workspace import Workspace, quiz


def damage(folder: Path, most: int = 40) -> tuple[Counter[str], list[str]]:
    """Returns how many files were damaged in which way, and what was not found out."""
    work, out, scratch = Workspace(folder / "work"), folder / "out", folder / "scratch"
    scratch.mkdir()
    arguments = ["build", str(work.mix(quiz())), "--out", str(out), "--control"]
    assert run(arguments, out, NO_FAULT, scratch).status == 0
    files = sorted(path for path in out.rglob("*") if path.is_file())
    chance, counts, wrong = random.Random(0), Counter[str](), []
    for path in chance.sample(files, min(len(files), most // 2)):
        for way, change in (("flipped", _flipped), ("cut", _cut)):
            sound = path.read_bytes()
            path.write_bytes(change(chance, sound))
            ended = run(["verify", str(out), "--full"], scratch / "x", NO_FAULT, scratch)
            path.write_bytes(sound)
            counts[way] += 1
            named = path.name in ended.said and "error: " in ended.said
            if ended.status not in (1, 2) or not named or "Traceback" in ended.said:
                wrong.append(f"{path} {way}: verify ends with {ended.status}: {ended.said[-800:]}")
    return counts, wrong


def _flipped(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]
