"""`litgpt_tap` that also says at which step it starts: a line `start 40` before its batches.

python -m tests.support.tapped_start LOG pretrain --config litgpt.yaml [--resume .../step-40/...]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    step = 0
    if "--resume" in sys.argv:
        folder = Path(sys.argv[sys.argv.index("--resume") + 1]).parent.name
        step = int(folder.removeprefix("step-"))
    with open(sys.argv[1], "a", encoding="utf-8") as log:
        print("start", step, file=log)
    runpy.run_module("tests.support.litgpt_tap", run_name="__main__")
