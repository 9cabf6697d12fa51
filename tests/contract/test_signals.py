"""A signal that asks a process to stop is heard whatever its main thread does at that moment."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A wait holds the lock of its event for a moment when it begins and when it ends. Here the signal always comes then.
MEETS_A_WAIT = """
import os, signal
from {module} import Stop

stop = Stop()
stop.listen()
with stop.event._cond:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass
print("ended:", stop.event.wait(10))
"""

TWICE = """
import os, signal
from {module} import Stop

stop = Stop()
stop.listen()
with stop.event._cond:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""


@pytest.mark.parametrize("module", ["agent.app", "cloud.cli.common"])
def test_a_stop_that_meets_a_wait_of_the_main_thread_ends_it(module: str) -> None:
    command = [sys.executable, "-c", MEETS_A_WAIT.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("ended: True\n", 0), done.stderr


@pytest.mark.parametrize("module", ["agent.app", "cloud.cli.common"])
def test_a_second_signal_means_now(module: str) -> None:
    command = [sys.executable, "-c", TWICE.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", 128 + signal.SIGINT), done.stderr
