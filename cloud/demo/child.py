"""A process of the demo: started, looked after, and stopped with its owner."""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
RESTART_AFTER_S = 1.0


@dataclass(slots=True)
class Child:
    """A process of the demo. `log_file` keeps what it says; `cores` are those that it may use, empty for all."""

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()
    process: "subprocess.Popen[bytes] | None" = None
    died_at_s: float | None = None

    def start(self) -> None:
        """Start it in a process group of its own, so that Ctrl-C reaches the demo alone."""
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                process_group=0,
                env={**os.environ, **self.environment},
            )
        if self.cores:
            # Before it has started a thread; children inherit it.
            os.sched_setaffinity(self.process.pid, self.cores)

    @property
    def exit_code(self) -> int | None:
        """Its exit code once it has ended; None while it runs or was never started."""
        return None if self.process is None else self.process.poll()

    def look_after(self) -> None:
        """Start it again some time after it died."""
        if self.process is None or self.exit_code is None:
            return
        now_s = time.monotonic()
        if self.died_at_s is None:
            log.warning("%s ended with code %s; it starts again", self.name, self.process.returncode)
            self.died_at_s = now_s
        elif now_s - self.died_at_s >= RESTART_AFTER_S:
            self.died_at_s = None
            self.start()

    def stop(self, timeout_s: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Ask it to stop, and kill it when it does not. `meanwhile` is called every now and then."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LOOK_EVERY_S)
            meanwhile()
        if self.process.poll() is None:
            log.warning("%s does not stop; it is killed", self.name)
            self.process.kill()
            self.process.wait()
        self.process = None

    def last_words(self) -> str:
        """The end of its log, for an error."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n    ".join(lines[-8:])


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def rss_bytes(pid: int) -> int:
    """Resident memory of a process (Linux); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
