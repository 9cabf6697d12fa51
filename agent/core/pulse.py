"""When a loop may be called alive, and the sentence that says what a process does."""

from collections.abc import Mapping, Sequence
from typing import Any

OUTSIDE_CODES = ("broker-dns", "broker-refused", "broker-unreachable", "broker-busy", "broker-quota")
"""Codes of a link that is down for the network's or the broker's sake."""


class Pulse:
    """Tells whether the frame loop has moved: the watchdog is petted for that and for nothing else."""

    def __init__(self) -> None:
        self._turns: tuple[int, ...] = ()
        self._progress = -1

    def beats(self, turns: Sequence[int], progress: int, *, waiting: bool) -> bool:
        """Whether every inference thread has turned, and a frame was finished if one waits, since this last was true.

        `turns` counts each thread's turns: one that finds no frame turns too, so a camera that is away is a pause and
        no hang. `progress` counts frames finished. A thread that hangs in the model does not turn, and where frames
        wait though all threads turn, something else holds them up.
        """
        turned = len(turns) == len(self._turns) and all(now != was for now, was in zip(turns, self._turns, strict=True))
        first = not self._turns
        if not first and not (turned and (progress != self._progress or not waiting)):
            return False
        self._turns, self._progress = tuple(turns), progress
        return True


def vision_sentence(
    cameras: Sequence[Mapping[str, Any]], model: Mapping[str, Any], waiting: int, link: str, trouble: str = ""
) -> str:
    """Say what vision does, as in "12.4 fps · produce 1.4.0 · outbox 0 · broker ok"; first what is wrong with it.

    `cameras` are its reports (name, phase, code, rate_fps), `waiting` is how many records should be on their way.
    """
    rate_fps = sum(camera["rate_fps"] for camera in cameras)
    ill = [f"camera {c['name']}: {c['code'] or c['phase']}" for c in cameras if c["phase"] in ("failed", "stalled")]
    ended = "all sources have ended" if all(c["phase"] == "ended" for c in cameras) else ""
    parts = [trouble, *ill, ended, f"{rate_fps:.1f} fps", f"{model['name']} {model['version']}"]
    return " · ".join(part for part in [*parts, _outbox(waiting), link] if part)


def sync_sentence(link: str, waiting: int, delivered: int, trouble: str = "") -> str:
    """Say what sync does; `link` as `link_words` gives it, `delivered` counts records since its start."""
    return " · ".join(part for part in (trouble, link, _outbox(waiting), f"{delivered} delivered") if part)


def _outbox(waiting: int) -> str:
    """Negative is: the store cannot be read now."""
    return f"outbox {waiting}" if waiting >= 0 else "outbox cannot be read"


def link_words(link: Mapping[str, Any]) -> str:
    """Say in two or three words how the connection is, from what sync last noted of it."""
    if not link:
        return "broker not tried yet"
    if link.get("code"):
        return f"broker {link['code']}"
    return "broker ok" if link.get("connected") else "broker not connected"
