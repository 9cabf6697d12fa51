"""The doctor's child: ``python -m agent.probe cameras CONFIG UNTIL`` or ``model BUNDLE SETUP UNTIL``.

It prints one JSON object per line: ``{"ready": true}`` once the libraries are loaded, then what it finds, as soon as it
knows it. UNTIL is the time on the monotonic clock, which all processes share, by which it will be killed.
"""

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_printing = threading.Lock()


def main(words: Sequence[str]) -> None:
    """Do one thing, and end whatever hangs in a library."""
    what, *rest = words
    if what == "cameras":
        from agent.probe.look import look_at_cameras

        say({"ready": True})
        look_at_cameras(Path(rest[0]), float(rest[1]), say)
    else:
        from agent.probe.selftest import test_model

        say({"ready": True})
        test_model(rest[0], rest[1], say)
    sys.stdout.flush()
    os._exit(0)


def say(report: dict[str, Any]) -> None:
    """Tell the doctor something."""
    with _printing:
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
