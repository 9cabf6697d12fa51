"""What may hang or crash in a library runs in a child process (`agent.probe`): cameras, the model's self-test."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SPARE_S = 0.2
"""What is kept back of a check's time, to say what was found."""

FAIR_S = 1.2
"""A child that has worked for less than this, or for less than it took to start, had no fair chance to say anything."""

BUSY = "nothing was heard in time: the device is too busy, or it hangs; --patience 20 tells which"

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What a child said until it ended or was ended."""

    reports: tuple[Report, ...]
    fair: bool
    """Whether it had time to work: a busy device may need all of it to load the libraries."""
    ended: bool
    """Whether it ended by itself, after its work or by a crash."""
    excuse: str = BUSY
    """Why it may have said nothing, when nothing of what it looked at is to blame."""


def ask(patience_s: float, *words: str) -> Said:
    """Run the child with these arguments for at most `patience_s`; what it has said until then counts."""
    began_s = time.monotonic()
    until_s = began_s + patience_s - SPARE_S
    try:
        child = _start([*words, f"{until_s:.3f}"])
    except OSError as error:
        return Said((), False, False, f"no process could be started: {error.strerror}")
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(child, lines), name="check-child", daemon=True).start()
    said: list[Report] = []
    ready_s = None
    ended = False
    try:
        while (line := lines.get(timeout=max(0.001, until_s - time.monotonic()))) is not None:
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                if "ready" in report:
                    ready_s = time.monotonic()
                else:
                    said.append(report)
        ended = True
    except queue.Empty:
        pass
    finally:
        _end(child)
    now_s = time.monotonic()
    fair = ready_s is not None and now_s - ready_s >= max(FAIR_S, ready_s - began_s)
    return Said(tuple(said), fair, ended)


def _start(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(part for part in sys.path if part)
    return subprocess.Popen(
        [sys.executable, "-m", "agent.probe", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip


def _pump(child: "subprocess.Popen[bytes]", lines: "queue.SimpleQueue[bytes | None]") -> None:
    assert child.stdout is not None
    with child.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Kill it and what it started. One that hangs in the kernel cannot be waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(0.1)
