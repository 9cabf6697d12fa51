"""The parent's hold on the process in which a new model is tried: deadlines, its memory, and what its end means."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.gates import Terms, latency_limit_ms, memory_limit_bytes
from agent.errors import Rejected
from agent.host.process import rss_bytes
from agent.ports import Picture
from agent.store.models import BUNDLE_CODES
from models.setup import Setup

LOOK_EVERY_S = 0.05
"""How often the child's memory is looked at while something is expected of it."""

MOST_LINE_BYTES = 64 * 1024
GATES = ("compiled", "golden", "memory", "latency")


@dataclass(frozen=True, slots=True)
class Trying:
    """What is tried, and beside what. `declared_bytes` is the bundle's own word on its memory, 0 for none.

    `setup` is how it is to be run, `running_setup` how the running one is, where that differs.
    """

    bundle: Path
    running: Path | None
    setup: Setup
    workers: int
    cache: Path
    declared_bytes: int = 0
    running_setup: Setup | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The new model's answer to a picture, before any threshold, and what it took."""

    label: str
    score: float
    took_ms: float
    peak_bytes: int


class Refusal(Rejected):
    """A gate that the model did not pass: an update's code, a sentence, and the numbers that decided."""

    def __init__(self, code: str, text: str, hint: str, numbers: dict[str, float]) -> None:
        super().__init__(code, text, hint)
        self.numbers = numbers


class Bench:
    """One child process with one new model. For one thread; `close` in any case."""

    def __init__(self, trying: Trying, terms: Terms, stop: threading.Event) -> None:
        self._terms = terms
        self._stop = stop
        self._limit_bytes = memory_limit_bytes(terms.memory_bytes, trying.declared_bytes)
        self.numbers: dict[str, float] = {}
        """What was measured so far, with the limits."""
        settings = {
            "bundle": str(trying.bundle),
            "running": str(trying.running) if trying.running is not None else "",
            "setup": trying.setup.to_json(),
            "running_setup": (trying.running_setup or trying.setup).to_json(),
            "workers": trying.workers,
            "cache": str(trying.cache),
            "memory_bytes": self._limit_bytes,
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "agent.proof.child", json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, start_new_session=True,
        )  # fmt: skip
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        self._rest = b""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    # The gates, in their order. Each raises `Refusal`.

    def compiled(self) -> None:
        """Wait until the model is loaded and compiled for this device."""
        report = self._expect("compiled", self._terms.compile_s)
        self.numbers["compile_s"] = round(report["took_s"], 3)

    def golden(self) -> None:
        """Wait until the golden pictures were answered as they should be, and look at the memory that took."""
        report = self._expect("golden", self._terms.golden_s)
        self.numbers["golden_inputs"] = float(report["inputs"])
        self._weigh(self._expect("memory", self._terms.golden_s))

    def fast(self) -> None:
        """Wait until it was measured, and compare it with its limit."""
        report = self._expect("latency", self._terms.golden_s)
        limit_ms = latency_limit_ms(self._terms.deadline_ms, report.get("running_p95_ms", 0.0))
        self.numbers |= {
            "p95_ms": round(report["p95_ms"], 2),
            "limit_p95_ms": round(limit_ms, 2),
            **({"running_p95_ms": round(report["running_p95_ms"], 2)} if "running_p95_ms" in report else {}),
        }
        if report["p95_ms"] > limit_ms:
            text = f"95 of 100 pictures take it up to {report['p95_ms']:.1f} ms; allowed are {limit_ms:.1f} ms"
            raise self._refuse("update-slow", text)

    def ask(self, picture: Picture) -> Seen | None:
        """Have the model classify a picture; None when the stop came meanwhile. Raises `Refusal`."""
        height, width = picture.shape[:2]
        head = json.dumps([height, width]).encode() + b"\n"
        until_s = time.monotonic() + self._terms.answer_s
        for part in (memoryview(head), memoryview(picture.tobytes())):
            if not self._write(part, until_s):
                return None
        report = self._report("a picture", until_s)
        if report is None:
            return None
        self._weigh(report)
        return Seen(str(report["label"]), float(report["score"]), float(report["ms"]), int(report["peak_bytes"]))

    def close(self) -> None:
        """End the child, whatever it does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1.0)

    # What comes from the child.

    def _expect(self, gate: str, limit_s: float) -> dict[str, Any]:
        report = self._report(f"the gate {gate!r}", time.monotonic() + limit_s)
        if report is None:
            raise Stopped
        if report.get("gate") != gate:
            raise self._refuse("update-crashed", f"the model's process spoke out of turn at {gate!r}")
        return report

    def _report(self, what: str, until_s: float) -> dict[str, Any] | None:
        """Give the next line of the child; None when the stop came. Raises `Refusal` for silence, end and error."""
        assert self._child.stdout is not None
        while b"\n" not in self._rest:
            if self._stop.is_set():
                return None
            self._look(what, until_s)
            if select.select([self._child.stdout], [], [], LOOK_EVERY_S)[0]:
                piece = os.read(self._child.stdout.fileno(), MOST_LINE_BYTES)
                if not piece or len(self._rest) > MOST_LINE_BYTES:
                    raise self._ended(what)
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return self._read(what, line)

    def _read(self, what: str, line: bytes) -> dict[str, Any]:
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._refuse("update-crashed", f"the model's process said nothing sensible at {what}") from None
        if "error" in report:
            raise self._error(what, report)
        return report

    def _error(self, what: str, report: dict[str, Any]) -> Refusal:
        code, text = str(report["error"]), str(report["message"])
        if code == "no-memory" or "bad_alloc" in text or "allocate" in text:
            return self._refuse("update-memory", f"at {what} it asked for more memory than there is: {text}")
        if code == "runtime":
            return self._refuse("update-crashed", f"at {what} the model failed: {text}")
        return self._refuse(BUNDLE_CODES.get(code, "update-bundle"), f"{text} [{code}]", str(report["hint"]))

    def _look(self, what: str, until_s: float) -> None:
        """Kill a child that takes too much memory or too long. Raises `Refusal`."""
        used_bytes = rss_bytes(self._child.pid)
        if used_bytes > self._limit_bytes:
            self._weigh({"peak_bytes": used_bytes})
        if time.monotonic() > until_s:
            raise self._refuse("update-hung", f"the model did not come back from {what} in time")

    def _weigh(self, report: dict[str, Any]) -> None:
        peak = float(report["peak_bytes"])
        self.numbers |= {
            "memory_bytes": max(peak, self.numbers.get("memory_bytes", 0.0)),
            "limit_memory_bytes": float(self._limit_bytes),
        }
        if peak > self._limit_bytes:
            text = f"its process takes {peak / 1e6:.0f} MB; allowed are {self._limit_bytes / 1e6:.0f} MB"
            raise self._refuse("update-memory", text)

    def _ended(self, what: str) -> Refusal:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(2.0)
        code = self._child.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
        if code == -signal.SIGKILL:
            return self._refuse("update-memory", f"at {what} the system killed the model's process, for its memory")
        return self._refuse("update-crashed", f"at {what} the model's process ended {how}")

    def _refuse(self, code: str, text: str, hint: str = "") -> Refusal:
        self.close()
        return Refusal(code, text, hint, dict(self.numbers))

    def _write(self, part: memoryview, until_s: float) -> bool:
        assert self._child.stdin is not None
        while part:
            if self._stop.is_set():
                return False
            self._look("a picture", until_s)
            try:
                if select.select([], [self._child.stdin], [], LOOK_EVERY_S)[1]:
                    part = part[os.write(self._child.stdin.fileno(), part) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended("a picture") from None
        return True


class Stopped(Exception):
    """The stop came while a gate was waited for; nothing was decided."""
