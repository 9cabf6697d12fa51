"""The parent's hold on the process that measures: what it says, how far it is, and what its end means."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.setups import Figures
from agent.errors import Broken
from agent.host.process import rss_bytes
from models.setup import Setup

MOST_LINE_BYTES = 1 << 20
MOST_CRASHES = 3
"""Ways of running a model that may end the process that measures them; with more, nothing here is to be trusted."""
SILENT_S = 120.0
"""How long nothing may be heard: no turn takes as long, a compilation may."""
AGAIN = "run shelfwire-agent bench to see more, and send a support-bundle"


@dataclass(frozen=True, slots=True)
class Asking:
    """What is measured, and how. `niceness` 0 is for a person who waits, `labelled` are (path, label)."""

    bundle: Path
    asked: Setup
    workers: int
    seconds: float
    cache: Path
    memory_bytes: int
    niceness: int = 0
    labelled: Sequence[tuple[Path, str]] = ()


class Measuring:
    """One child after another: where a way of running the model ends it, the next one leaves that out.

    For one thread; `close` it in any case.
    """

    def __init__(self, asking: Asking) -> None:
        self.part = 0.0
        """How far it is, 0 to 1."""
        self.turn: Setup | None = None
        """The setup whose turn it is."""
        self.figures: list[Figures] | None = None
        """What was found, once it has ended."""
        self.others = 0.0
        """The part of the processor that other work took meanwhile."""
        self._asking = asking
        self._skipped: list[tuple[Setup, str]] = []
        self._start()

    def _start(self) -> None:
        asking = self._asking
        settings = {
            "bundle": str(asking.bundle),
            "asked": asking.asked.to_json(),
            "workers": asking.workers,
            "seconds": asking.seconds,
            "cache": str(asking.cache),
            "memory_bytes": asking.memory_bytes,
            "niceness": asking.niceness,
            "labelled": [(str(path), label) for path, label in asking.labelled],
            "skipped": [(setup.to_json(), why) for setup, why in self._skipped],
        }
        self._rest = b""
        self._heard_s = time.monotonic()
        # A group of its own, to be ended whole, but no session: where the kernel groups sessions (sched_autogroup),
        # being behind would count inside it alone.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "agent.bench.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, process_group=0,
        )  # fmt: skip
        assert self._child.stdin is not None
        with contextlib.suppress(OSError), self._child.stdin as way:  # one that has ended already is found by `hear`
            way.write(json.dumps(settings).encode())

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def hear(self, timeout_s: float) -> bool:
        """Take in what the child says, waiting at most so long for it; False once `figures` are there.

        Raises `Broken` when nothing can be measured: ``bench-failed``, or the code of what is wrong with the bundle.
        """
        assert self._child.stdout is not None
        self._look()
        if self.figures is None and select.select([self._child.stdout], [], [], timeout_s)[0]:
            piece = os.read(self._child.stdout.fileno(), 1 << 16)
            self._heard_s = time.monotonic()
            self._rest += piece
            while b"\n" in self._rest and self.figures is None:
                line, _, self._rest = self._rest.partition(b"\n")
                self._take(line)
            if (not piece or len(self._rest) > MOST_LINE_BYTES) and self.figures is None:
                self._crashed()
        return self.figures is None

    def _look(self) -> None:
        """Kill a child that says nothing for long or takes too much memory: what it did at that moment is left out."""
        silent = time.monotonic() - self._heard_s > SILENT_S
        if silent or rss_bytes(self._child.pid) > self._asking.memory_bytes:
            self._crashed("it did not come back" if silent else "it takes more memory than it may")

    def _take(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                raise self._broken(str(said["message"]), str(said["error"]), str(said["hint"]))
            if "figures" in said:
                self.figures = [Figures.from_json(each) for each in said["figures"]]
                self.part, self.others = 1.0, float(said["others"])
            else:
                self.part, self.turn = float(said["part"]), Setup.from_json(said["setup"])
        except (ValueError, KeyError, TypeError):
            raise self._broken("the process that measures said nothing sensible") from None

    def _crashed(self, why: str = "") -> None:
        """Start anew without the setup whose turn it was. Raises `Broken` when that does not help."""
        self.close()
        code = self._child.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        why = why or f"it ended the process that measured it ({how})"
        if self.turn is None or len(self._skipped) + 1 >= MOST_CRASHES:
            raise self._broken(f"the measuring ended without figures: {why}")
        self._skipped.append((self.turn, why))
        self.part, self.turn = 0.0, None
        self._start()

    def _broken(self, text: str, code: str = "bench-failed", hint: str = "") -> Broken:
        self.close()
        return Broken(code, text, hint or AGAIN)

    def close(self) -> None:
        """End the child, whatever it does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        if self._child.stdout is not None:
            self._child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(2.0)
