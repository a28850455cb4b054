"""Ctrl-C is not lost, even where Python drops the exception."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_another_handler_is_left_alone():
    raise_if_interrupted()


LEAVES_A_CHILD = """
import time
import multiprocess
from mixctl.pipeline import cli
from mixctl.pipeline.interrupt import Interrupted

def interrupted(**_):
    multiprocess.get_context("fork").Process(target=time.sleep, args=(600,)).start()
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
