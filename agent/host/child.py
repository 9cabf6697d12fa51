"""What a process does that works for another one and must harm neither it nor the device."""

import contextlib
import ctypes
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
SPARE_BYTES = 2 << 30
"""Address space beyond the limit, for libraries and thread stacks; the parent looks at what is really used."""

Say = Callable[[dict[str, Any]], None]


def own_output() -> Say:
    """Keep standard output for our lines alone: what libraries print there goes to standard error."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(report: dict[str, Any]) -> None:
        lines.write(json.dumps(report).encode() + b"\n")

    return say


def stay_behind(niceness: int, memory_bytes: int) -> None:
    """Leave the processor to others, die with the parent, leave no core file, and be the first that is killed."""
    with contextlib.suppress(OSError):
        os.nice(niceness)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = 2 * memory_bytes + SPARE_BYTES
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
