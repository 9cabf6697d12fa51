"""What this processor is and may do, and how many threads work on frames on it."""

import hashlib
import os
import platform
import sys
from functools import cache
from pathlib import Path

from agent.config import Config

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that comes back from the model may wait for another that runs Python; Python's own is 5 ms."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def workers_for(config: Config) -> int:
    """How many frames are worked on at once: at most one per camera, since each camera's frames stay in order.

    One camera is answered soonest by all cores together. With several, two workers per core keep the core busy: one
    waits for the model while the other prepares or records.
    """
    return config.model.workers or workers_of(len(config.camera))


def workers_of(cameras: int) -> int:
    """How many frames of so many cameras are worked on at once where the configuration does not say."""
    return max(1, min(cameras, 2 * cores()))


def at_once_for(config: Config, workers: int) -> int:
    """How many of these may work while frames pile up: one per core, for each would be answered later with more."""
    return config.model.workers or min(workers, cores())


def share_cores(workers: int) -> None:
    """Keep the threads of readers, workers, store and OpenCV out of each other's way.

    With several frames in work every core has enough to do, and a resize that is split over cores waits for the one
    that is busy with another frame.
    """
    import models  # noqa: F401 - sets the decoder's limits, which OpenCV reads when it is loaded

    import cv2  # isort: skip

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if workers > 1:
        cv2.setNumThreads(1)


@cache
def describe() -> str:
    """Name the processor with a digest of its instructions, as Linux tells them: `AMD EPYC 7763 #1f3a90c2`.

    Runtimes choose their code by these, so that speed and rounding follow from them.
    """
    lines = _lines(Path("/proc/cpuinfo"))
    name = next((lines[key] for key in ("model name", "Model", "Hardware", "CPU part") if key in lines), "")
    instructions = lines.get("flags") or lines.get("Features") or ""
    digest = hashlib.sha256(" ".join(sorted(instructions.split())).encode()).hexdigest()
    return f"{name or platform.machine()} #{digest[:8]}"


def _lines(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


class Others:
    """What other programs take of the processor, from its making on: measurements are worth less beside them."""

    def __init__(self) -> None:
        self._first = self._look()

    def part(self) -> float:
        """The part of all cores' time that others took, this process's children not counted; 0 where none can say."""
        busy_s, whole_s, own_s = (now - was for now, was in zip(self._look(), self._first, strict=True))
        return max(0.0, min(1.0, (busy_s - own_s) / whole_s)) if whole_s > 0 else 0.0

    def _look(self) -> tuple[float, float, float]:
        """Seconds in which cores were busy, of all there were, and those of this process with its ended children."""
        own = os.times()
        own_s = own.user + own.system + own.children_user + own.children_system
        try:
            words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        except OSError:
            return 0.0, 0.0, own_s
        ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in words]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks), own_s
