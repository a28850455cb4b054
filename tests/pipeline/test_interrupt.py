"""Ctrl-C is not lost, even where Python drops the exception."""

import signal
import subprocess
import sys
import time
from importlib import import_module
from multiprocessing import popen_forkserver
from pathlib import Path

import pytest

from mixctl.pipeline import interrupt
from mixctl.pipeline.interrupt import Interrupted, InterruptHandler, raise_if_interrupted


@pytest.fixture
def handler(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # to have it back
    before, ours = signal.getsignal(signal.SIGINT), InterruptHandler()
    signal.signal(signal.SIGINT, ours)
    yield ours
    signal.signal(signal.SIGINT, before)


class Dying:
    """Meets the signal while it is destroyed, where exceptions are dropped."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dropped_interrupt_is_raised_at_the_end_of_the_stage(handler):
    raise_if_interrupted()
    dying = Dying()
    del dying
    assert handler.seen
    with pytest.raises(Interrupted):
        raise_if_interrupted()


class HalfMade:
    """Meets the signal while it is made, and cannot be destroyed then."""

    def __init__(self):
        signal.raise_signal(signal.SIGINT)
        self.made = True

    def __del__(self):
        print(self.made)


def test_what_was_half_made_is_not_complained_about(handler, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(Interrupted):
        HalfMade()
    assert complaints == []


def test_it_is_a_keyboard_interrupt_but_not_the_plain_one(handler):
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(signal.SIGINT)
    assert type(caught.value) is not KeyboardInterrupt


INTERRUPTED_IMPORT = """
import signal, time
signal.raise_signal(signal.SIGINT)
begin = time.monotonic()
while time.monotonic() < begin + 0.1:
    pass
whole = True
time.sleep({more})
"""


@pytest.fixture
def alarm():
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_in_an_import_it_is_raised_when_that_is_done(handler, alarm, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "interrupted_import.py").write_text(INTERRUPTED_IMPORT.format(more=0))
    with pytest.raises(Interrupted):
        import_module("interrupted_import")
        time.sleep(30)
    assert handler.seen == signal.SIGINT
    assert sys.modules["interrupted_import"].whole
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_start_of_a_worker_is_not_broken_off(handler, alarm):
    """By the file of its code: what multiprocessing does there is not of interest here."""
    start = compile(INTERRUPTED_IMPORT.format(more=0), popen_forkserver.__file__, "exec")
    found = {}
    with pytest.raises(Interrupted):
        exec(start, found)
        time.sleep(30)
    assert found["whole"]


def test_an_import_that_does_not_end_is_broken_off(handler, alarm, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupt, "_IMPORT_SECONDS", 0.3)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "endless_import.py").write_text(INTERRUPTED_IMPORT.format(more=600))
    with pytest.raises(Interrupted):
        import_module("endless_import")


def test_another_handler_is_left_alone():
    raise_if_interrupted()


LEAVES_A_CHILD = """
import time
import multiprocessing
from mixctl.pipeline import cli
from mixctl.pipeline.interrupt import Interrupted

def interrupted(**_):
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    raise Interrupted

cli.cli.main = interrupted
cli.main()
"""


KEPT = b"what is done is kept: the same command goes on from there"


def test_a_child_that_was_just_started_is_not_waited_for():
    done = subprocess.run([sys.executable, "-c", LEAVES_A_CHILD], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (130, b"interrupted; " + KEPT)


LEAVES_A_STRAY = """
import os, signal, time
from mixctl.pipeline import cli
from mixctl.pipeline.interrupt import Interrupted

def interrupted(**_):
    if os.fork() == 0:  # what multiprocessing had no time to note
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    raise Interrupted

cli.cli.main = interrupted
cli.main()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_child_that_nobody_noted_is_ended():
    """It would hold the terminal's pipe open, and whoever reads that would wait for ever."""
    done = subprocess.run([sys.executable, "-c", LEAVES_A_STRAY], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (130, b"interrupted; " + KEPT)


BECOMES_ANOTHER_ERROR = """
import signal
from mixctl.pipeline import cli
from mixctl.pipeline.interrupt import Interrupted

def interrupted(**_):
    try:
        signal.raise_signal(signal.SIGTERM)
    except Interrupted as met:
        raise RuntimeError("building a class failed") from met

cli.cli.main = interrupted
cli.main()
"""


def test_an_interrupt_that_comes_out_as_another_error_is_one():
    command = [sys.executable, "-c", BECOMES_ANOTHER_ERROR]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (143, b"terminated; " + KEPT)


A_THREAD_WAITS = """
import atexit, threading
from mixctl.pipeline import cli
from mixctl.pipeline.interrupt import Interrupted

def interrupted(**_):
    atexit.register(print, "tidied")
    threading.Thread(target=taken.acquire).start()
    raise Interrupted

taken = threading.Lock()
taken.acquire()
cli.cli.main = interrupted
cli.main()
"""


def test_a_thread_that_waits_for_ever_is_not_waited_for():
    done = subprocess.run([sys.executable, "-c", A_THREAD_WAITS], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (
        130,
        b"tidied\n",
        b"interrupted; " + KEPT,
    )
