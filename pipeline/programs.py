"""How a program of this installation is called from here: by name where the shell finds it.

mixctl                  the environment is activated
.venv/bin/mixctl        it is not
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """Returns what to type for a program that was installed with this Python."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.exists() or (found is not None and Path(found).samefile(beside)):
        return name
    return shlex.quote(shown(beside))


def shown(path: Path) -> str:
    """Returns a path as it is shortest from the working folder: relative below it, else whole."""
    whole = os.path.abspath(path)
    near = os.path.relpath(whole)
    return whole if near.startswith(os.pardir) else near
