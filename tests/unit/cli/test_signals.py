"""Ctrl-C counts, whenever it comes; what a command must put right it puts right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, os, signal, sys, threading, time, uvloop
from cli.signals import signals_held, stop_request

if "thread" in sys.argv:
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()

async def work():
    with stop_request() as stop:
        async with asyncio.timeout(10):
            await stop.requested.wait()
        return stop.signal

with signals_held():
    os.kill(os.getpid(), signal.SIGINT)
    assert uvloop.run(work()) is signal.SIGINT
assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


@pytest.mark.parametrize("threads", [[], ["thread"]])
def test_a_signal_that_comes_while_the_loop_starts_is_not_lost(threads: list[str]) -> None:
    """It waits until somebody listens, also where another thread gets it; afterwards nothing is held.

    In a process of its own: here the threads of others might take the signal.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *threads], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


SWEEP = """
import asyncio, os, signal, sys
from cli import profile_run
from cli.main import main
from replay.profile_run import NoMeter
from replay.profile_sweep import Document

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests

async def sweep(*_, **__):
    try:
        os.kill(os.getpid(), signal.{name})
        await asyncio.sleep(20)
    finally:
        os.kill(os.getpid(), signal.{name})  # an impatient person
        await asyncio.sleep(0.1)
        print("clocks given back")

profile_run.ask_engine = lambda *_, **__: {{"model": "m", "version": None, "facts": {{}}}}
profile_run._document = lambda *_, **__: Document(settings={{}}, provenance={{}}, rows=[])
profile_run._meter = lambda *_, **__: NoMeter()
profile_run.sweep = sweep
sys.exit(main(["profile", "run", "--out", "{out}/mine.json"]))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_sweep_that_is_told_to_end_gives_the_clocks_back_first(name: str, tmp_path: Path) -> None:
    """GPUs that stay locked would be slow for whoever comes next."""
    script = SWEEP.format(name=name, out=tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert "clocks given back\ninterrupted; run it again" in done.stdout


NOHUP = """
import asyncio, os, signal
from cli.signals import stop_request

async def work():
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.1)
        return stop.signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)
assert asyncio.run(work()) is None
"""


def test_under_nohup_a_terminal_that_is_closed_ends_nothing() -> None:
    """It was asked for."""
    done = subprocess.run(
        [sys.executable, "-c", NOHUP], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
