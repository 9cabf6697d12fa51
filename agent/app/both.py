"""`shelfwire-agent run`: vision and sync as two child processes in the foreground, for containers and the demo.

What systemd does in a shop is done here in small: each is started anew when it dies, after a pause that grows.
"""

import ctypes
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.app import Stop
from agent.core.backoff import Backoff

log = logging.getLogger(__name__)

RESTART_BASE_S = 0.5
RESTART_CEILING_S = 30.0
STEADY_S = 30.0
STOP_S = 20.0
LOOK_EVERY_S = 0.2
PR_SET_PDEATHSIG = 1

CANNOT_START = (2, 4)
"""Exit codes of an input or an installation that a person must mend: starting again would not help."""


@dataclass(slots=True)
class _Child:
    role: str
    arguments: list[str]
    backoff: Backoff
    process: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    codes: list[int] = field(default_factory=list)

    def start(self) -> None:
        # A process group of its own: Ctrl-C in a terminal reaches the parent alone, which stops them in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", self.role, *self.arguments],
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread only
        )
        self.started_s = time.monotonic()


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies: a killed parent leaves no camera open."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_both(
    arguments: list[str], stop: Stop, roles: tuple[str, ...], waiting: Callable[[], int], drain_s: float
) -> int:
    """Run the roles until stopped; gives the exit code. `arguments` go to both.

    The stop waits up to `drain_s` until `waiting` gives no records any more, before it ends sync.
    """
    rng = random.Random()  # noqa: S311 - spreads restarts
    children = [_Child(role, arguments, Backoff(RESTART_BASE_S, RESTART_CEILING_S, rng)) for role in roles]
    code = 0
    while not stop.event.wait(LOOK_EVERY_S if any(c.process for c in children) else 0):
        for child in children:
            code = code or _look_after(child)
        if code:
            break
    for child in children:
        if child.role == "sync" and child.process is not None and not code:
            _drain(child, waiting, drain_s)
        _stop(child)
    return code


def _look_after(child: _Child) -> int:
    """Start a child that should run; gives an exit code when it cannot."""
    now_s = time.monotonic()
    if child.process is None:
        if now_s >= child.start_at_s:
            child.start()
        return 0
    code = child.process.poll()
    if code is None:
        return 0
    child.process = None
    if code in CANNOT_START:
        return code
    if now_s - child.started_s > STEADY_S:
        child.backoff.reset()
    pause_s = child.backoff.next()
    child.start_at_s = now_s + pause_s
    log.warning("%s ended with code %d; it starts again in %.1f s", child.role, code, pause_s)
    return 0


def _drain(sync: _Child, waiting: Callable[[], int], drain_s: float) -> None:
    """Wait until nothing waits for the cloud any more, starting sync again should it die meanwhile."""
    deadline_s = time.monotonic() + drain_s
    pause = threading.Event()
    while waiting() and time.monotonic() < deadline_s:
        _look_after(sync)
        pause.wait(LOOK_EVERY_S)


def _stop(child: _Child) -> None:
    if child.process is None:
        return
    child.process.terminate()
    try:
        child.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        log.warning("%s does not stop; it is killed", child.role)
        child.process.kill()
        child.process.wait()
