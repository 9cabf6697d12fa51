"""What a device takes when nothing happens: cameras whose pictures stay the same, and a cloud that is there."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RATE_FPS = 5
WIDTH, HEIGHT = 1280, 720
SETTLE_S = 8.0
"""What a start takes: models, first connections."""
GOAL = 0.15
MORE = (4, 8)
"""With so many cameras it is measured too, for people who choose a device."""
BOUNDARY = b"shelfwire-idle"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Say = Callable[[str], None]


class StillCamera:
    """A network camera (MJPEG over HTTP) whose picture stays the same. Its own work is not the device's."""

    def __init__(self, jpeg: bytes) -> None:
        head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (BOUNDARY, len(jpeg))
        self._part = head + jpeg + b"\r\n"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/still.mjpg"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=%s\r\n\r\n" % BOUNDARY)
            while not self._stopping.wait(1 / RATE_FPS):
                peer.sendall(self._part)

    def close(self) -> None:
        self._stopping.set()
        self._listener.close()


@contextlib.contextmanager
def shop(url: str, cameras: int, root: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Run the demo with so many cameras; gives its folder, which is part of its device's command lines."""
    with tempfile.TemporaryDirectory(prefix="shelfwire-idle-") as folder:
        command = [sys.executable, "-m", "cloud.cli", "demo", "--json", *(["--camera", url] * cameras), "--rate",
                   str(RATE_FPS), "--keep", folder]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield Path(folder)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def find(folder: Path, role: str) -> int:
    """Give the process id of the device's `role`."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if role.encode() in words and b"agent.cli" in words and any(str(folder).encode() in w for w in words):
                    return int(entry.name)
        time.sleep(0.2)
    raise SystemExit(f"no {role} came up")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    """The most memory that a process has held, MB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) / 1024, 1)


def measure(
    jpeg: bytes, seconds: float, rounds: int, root: Path, environment: dict[str, str], say: Say
) -> dict[str, Any]:
    """Share of one core that vision and sync take, over `rounds` spans of `seconds`, and the most memory they held.

    The goal holds for one camera.
    """
    camera = StillCamera(jpeg)
    one = _with_cameras(1, camera.url, seconds, rounds, root, environment, say)
    more = {str(count): _with_cameras(count, camera.url, seconds, 1, root, environment, say) for count in MORE}
    camera.close()
    both = one["vision"] + one["sync"]
    return {
        **one,
        "both": round(both, 4),
        "with_more_cameras": more,
        "goal": f"at most {GOAL:.2f} of a core together, one still camera at {RATE_FPS} fps, {WIDTH} x {HEIGHT}",
        "met": both <= GOAL,
    }


def _with_cameras(
    cameras: int, url: str, seconds: float, rounds: int, root: Path, environment: dict[str, str], say: Say
) -> dict[str, Any]:
    shares: dict[str, list[float]] = {"vision": [], "sync": []}
    with shop(url, cameras, root, environment) as folder:
        pids = {role: find(folder, role) for role in shares}
        time.sleep(SETTLE_S)
        for n in range(rounds):
            began_s, before = time.monotonic(), {role: cpu_s(pid) for role, pid in pids.items()}
            time.sleep(seconds)
            took_s = time.monotonic() - began_s
            for role, pid in pids.items():
                shares[role].append((cpu_s(pid) - before[role]) / took_s)
            say(f"  cameras: {cameras}, round {n + 1}: vision {shares['vision'][-1]:.3f},"
                f" sync {shares['sync'][-1]:.3f} of a core")  # fmt: skip
        memory = {f"{role}_peak_mb": peak_mb(pid) for role, pid in pids.items()}
        frames = _frames(folder, root, environment)
    means = {role: round(sum(values) / rounds, 4) for role, values in shares.items()}
    return {**means, **memory, "frames": frames}


def _frames(folder: Path, root: Path, environment: dict[str, str]) -> dict[str, int]:
    """What the device counted: that it did answer, and dropped nothing."""
    config = next(folder.rglob("device.toml"))
    command = [sys.executable, "-m", "agent.cli", "status", "--json", "--config", str(config)]
    told = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=False).stdout
    frames = json.loads(told)["frames"]
    return {
        "captured": frames["captured"],
        "answered_here": frames["classified"],
        "dropped": sum(frames["dropped"].values()),
    }
