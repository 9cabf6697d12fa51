"""A file that is there while an accelerator is opened: a driver may end the process, and the next start knows by it."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.durable import write_file
from models.setup import Note, Setup

NAME: Final = "accelerator.opening"


@contextlib.contextmanager
def carefully(state_dir: Path, setup: Setup) -> Iterator[tuple[Setup, tuple[Note, ...]]]:
    """Give the setup to open, and what is to be said of it: the CPU, once, after a start that ended in opening it.

    The start after that tries the accelerator again, so that nobody must remember to allow it. A process that hangs is
    ended by its watchdog, and counts alike.
    """
    if setup.device in ("auto", "cpu"):
        yield setup, ()
        return
    path = state_dir / NAME
    if path.exists():
        path.unlink(missing_ok=True)
        yield replace(setup, device="cpu"), (_note(setup),)
        return
    with contextlib.suppress(OSError):  # a full disk keeps nobody from opening it
        write_file(path, f"{setup}\n".encode())
    try:
        yield setup, ()
    finally:
        path.unlink(missing_ok=True)


def _note(setup: Setup) -> Note:
    return Note(
        "device-crashed",
        f"the last start ended while the model was opened for device {setup.device}, so the CPU runs it until the next",
        "mend the accelerator's driver and restart vision, or set [model] device to cpu",
    )
