"""Has pictures looked at in limited child processes: one that dies or hangs costs its own job an attempt, no more."""

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from cloud.errors import Broken, Retryable
from cloud.jobs.rows import Fault, Found
from models import BUILTIN
from wire.records import ModelName

START_S = 30.0
"""A child opens the model in this time, or something is wrong with the machine."""
MOST_ANSWER_BYTES = 1024 * 1024


class Child:
    """One child process with an open model. Serves one picture at a time."""

    def __init__(self, command: Sequence[str], limit_s: float, bundle: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            given = ("--fd", str(theirs.fileno()), "--limit-s", str(limit_s), "--bundle", str(bundle))
            self._process = subprocess.Popen(
                [*command, *given], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self._pipe = Connection(ours.detach())
        self._limit_s = limit_s
        self._too_slow = False
        try:
            said = self._receive(START_S)
            self._model, self._runtime = ModelName.model_validate(said["model"]), str(said["runtime"])
        except Retryable as error:
            raise Broken(
                "model-child", f"no process could open the model: {error}", "the log above says why"
            ) from error

    @property
    def model(self) -> str:
        """Name and version of the open model."""
        return f"{self._model.name} {self._model.version}"

    def look(self, picture: bytes) -> Found | Fault:
        """Classify a picture. Raises `Retryable` (``picture-crash``, ``picture-timeout``): the child is gone."""
        try:
            self._pipe.send_bytes(picture)
        except OSError as error:
            raise self._gone() from error
        said = self._receive(self._limit_s + 1.0)
        thumbnail = self._receive_bytes(1.0)
        result = said.get("result")
        if isinstance(result, dict):
            return Found(result, thumbnail, self._model, self._runtime)
        return Fault(str(said["code"]), str(said["detail"]), str(said["hint"]))

    def close(self) -> None:
        """End the child, which has nothing to lose."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, within_s: float) -> dict[str, object]:
        said = json.loads(self._receive_bytes(within_s))
        assert isinstance(said, dict)
        return said

    def _receive_bytes(self, within_s: float) -> bytes:
        try:
            if not self._pipe.poll(within_s):
                self._too_slow = True
                self._process.kill()
            return self._pipe.recv_bytes(MOST_ANSWER_BYTES)
        except (EOFError, OSError) as error:
            raise self._gone() from error

    def _gone(self) -> Retryable:
        """Say how the child ended."""
        self.close()
        code = self._process.returncode
        if self._too_slow or code == -signal.SIGALRM:
            return Retryable(
                "picture-timeout", f"looking at the picture took longer than {self._limit_s:g} s", "send it smaller"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Retryable(
            "picture-crash", f"the process that looked at the picture ended ({how})",
            "open the picture with an editor, save it as JPEG and send that",
        )  # fmt: skip


class Lookers:
    """A pool of children; `look` may be called by as many threads at once."""

    def __init__(
        self,
        children: int,
        limit_s: float,
        bundle: Path = BUILTIN["produce"],
        command: Sequence[str] = (sys.executable, "-m", "cloud.jobs.child"),
    ) -> None:
        """Start the children. Raises `Broken` (``model-child``) when the model cannot be opened."""
        self._command, self._limit_s, self._bundle = tuple(command), limit_s, bundle
        self._closed = threading.Event()
        self._free: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        self._children: set[Child] = set()
        self._wait_s = limit_s + START_S
        for _ in range(children):
            self._free.put(self._started())

    def look(self, picture: bytes) -> Found | Fault:
        """See Child.look. Raises also `Retryable` (``all-busy``)."""
        try:
            child = self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise Retryable("all-busy", "no process was free to look at the picture", "it is tried again") from None
        try:
            child = child or self._started()
            found = child.look(picture)
        except BaseException:
            if child is not None:
                self._children.discard(child)
                child.close()
            self._free.put(None)  # the next one starts a new child in this place
            raise
        self._free.put(child)
        return found

    def close(self) -> None:
        """End all children."""
        self._closed.set()
        for child in list(self._children):
            child.close()
        self._children.clear()

    @property
    def model(self) -> str:
        """Name and version of the model that the children have opened."""
        for child in self._children:
            return child.model
        return "none"

    def _started(self) -> Child:
        if self._closed.is_set():
            raise Retryable("stopping", "the worker stops", "another worker takes the job over")
        child = Child(self._command, self._limit_s, self._bundle)
        self._children.add(child)
        return child
