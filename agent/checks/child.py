"""What may hang or crash in a library runs in a child process: cameras that are opened, the model's self-test.

`python -m agent.checks.child` is that process. It prints one JSON object per line, as soon as it knows it, and what it
has printed counts when it is killed at the deadline.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.checks.context import Context
from agent.config import Camera

SPARE_S = 0.2
"""What is kept back of a check's time, to say what was found."""

Report = dict[str, Any]


def look_at(context: Context, cameras: Sequence[Camera]) -> Iterator[tuple[Camera, Report]]:
    """Open `cameras` in a child; give what it saw of each. One that says nothing in time hangs (``camera-hung``)."""
    limit_s = context.patience_s - SPARE_S
    words = ["cameras", str(context.config_path), f"{limit_s:.2f}"]
    said = {str(report.get("camera")): report for report in ask(words, limit_s)}
    for camera in cameras:
        yield camera, said.get(camera.name) or _hung(camera, limit_s, crashed="ended" in said)


def _hung(camera: Camera, limit_s: float, *, crashed: bool) -> Report:
    what = "the process that opened it crashed" if crashed else f"opening it did not come back within {limit_s:.1f} s"
    return {"troubles": [{"code": "camera-hung", "message": f"camera {camera.name}: {what}", "hint": ""}]}


def ask(words: Sequence[str], limit_s: float) -> list[Report]:
    """Run the child with these arguments for at most `limit_s` seconds; give the objects that it printed.

    The last one is ``{"camera": "ended"}`` when it ended by itself.
    """
    until_s = time.monotonic() + limit_s
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.checks.child", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        start_new_session=True,
    )  # fmt: skip
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(child, lines), name="check-child", daemon=True).start()
    said: list[Report] = []
    try:
        while (line := lines.get(timeout=max(0.001, until_s - time.monotonic()))) is not None:
            with contextlib.suppress(ValueError):
                said.append(json.loads(line))
        said.append({"camera": "ended"})
    except queue.Empty:
        pass
    finally:
        _end(child)
    return said


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


def main(words: Sequence[str]) -> None:
    """Be the child."""
    what, *rest = words
    if what == "cameras":
        from agent.checks.look import look_at_cameras

        look_at_cameras(Path(rest[0]), float(rest[1]), _say)
    else:
        from agent.checks.selftest import test_model

        test_model(rest[0], rest[1], _say)
    sys.stdout.flush()
    os._exit(0)  # threads that hang in a library would hold up an ordinary exit


_printing = threading.Lock()


def _say(report: Report) -> None:
    with _printing:
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
