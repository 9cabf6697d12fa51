"""Runs the device's command with another wall clock, as on a device without a battery: `wrong_clock.py FILE WORDS...`.

FILE says by how many nanoseconds the clock is off, and whether a time service keeps it: ``-100 unsure``. It is read
at every look at the clock, so that a test can set the clock while the process runs. Only the wall clock moves: files
keep the times of the machine's own.
"""

import sys
import time
from pathlib import Path
from typing import Any

FILE = Path(sys.argv[1])
_right_ns, _right_s = time.time_ns, time.time


def told() -> tuple[int, str]:
    off_ns, trust = FILE.read_text().split()
    return int(off_ns), trust


def wrong_ns() -> int:
    return _right_ns() + told()[0]


def wrong_s() -> float:
    return _right_s() + told()[0] / 1e9


def trust(_clock: Any) -> str:
    return told()[1]


time.time_ns, time.time = wrong_ns, wrong_s

from agent.cli import main  # noqa: E402 - the clock is wrong before anything of ours looks at it
from agent.host.clock import SystemClock  # noqa: E402

SystemClock.trust = trust  # type: ignore[method-assign, assignment]
sys.exit(main(sys.argv[2:]))
