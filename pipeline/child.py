"""Runs a command that is to end when the process that asked for it does.

    python -m mixctl.pipeline.child PARENT command argument ...

PARENT is the process id of whoever asks. On Linux the kernel kills the command when its parent
ends, even by SIGKILL; elsewhere it runs on. The command takes this process's place, so its own name
stands in the process table.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Replaces this process by the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(parent):  # else it has ended already
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
