"""Processes that end when the one that started them does, however it ended.

A build that is ended by SIGKILL, or for want of memory, can end no other process. Its workers
would go on to the end of their tasks, beside those of the next build.

    end_with_parent()      # whoever multiprocessing starts from here on watches this process

Price: one thread in each of them, which waits for a pipe to close.
"""

from __future__ import annotations

import os
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.util import register_after_fork
from threading import Thread

_ORPHANED = 1
"""the exit code that nobody is left to read"""


def end_with_parent() -> None:
    """Has every process that `multiprocessing` starts from this one end when this one does."""
    register_after_fork(_watch, lambda watch: watch())


def _watch() -> None:
    """Begins to watch the process that started this one."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    """Ends this process when the sentinel of its parent says that there is none."""
    wait([sentinel])
    os._exit(_ORPHANED)
