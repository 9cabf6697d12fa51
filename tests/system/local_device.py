"""A real vision process with its page and API, on a socket that is handed in as systemd does it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from agent.host.activation import FIRST

START_S = 40.0


@dataclass(frozen=True, slots=True)
class Running:
    """A device at work. `url` has no slash at its end."""

    url: str
    process: "subprocess.Popen[bytes]"
    state: Path

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


def write_config(folder: Path, cameras: str, local: str = "", more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "device.toml"
    config.write_text(
        f'[device]\nid = "till-3"\nstore = "store-12"\n'
        f'state_dir = "{folder / "state"}"\nruntime_dir = "{folder / "run"}"\n'
        f'[outbox]\nreserve = "1 MiB"\n{cameras}\n[local]\n{local}\n{more}\n'
    )
    return config


def camera(name: str, url: str, rate_fps: float = 4, stall: str = "5 s") -> str:
    return (
        f'[[camera]]\nname = "{name}"\nurl = "{url}"\nrate_fps = {rate_fps}\n'
        f'stall_timeout = "{stall}"\nopen_timeout = "2 s"\n'
    )


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "agent.cli", "vision", "--config", str(config)]


NO_NETWORK = ["unshare", "--map-root-user", "--net"]
"""Runs what follows in a network of its own, with nothing in it, as PrivateNetwork= does."""


def can_be_without_network() -> bool:
    """Whether this machine lets a user make such a network."""
    return subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode == 0


def handed_in(config: Path, listener: socket.socket, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """Start vision with a listening socket as its file 3, as systemd does; a shell, since LISTEN_PID is its own."""
    script = f'exec {FIRST}<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=local; exec "$@"'
    with (config.parent / "log").open("ab") as log:
        return subprocess.Popen(
            [*before, "bash", "-c", script, "bash", *command(config)],
            pass_fds=[listener.fileno()],
            stderr=log,
            env={**os.environ, "LISTEN_FDNAMES": ""},
        )


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path, verify: object = True) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            if requests.get(f"{url}/v2/health/ready", timeout=5, verify=verify).status_code in (200, 401):  # type: ignore[arg-type]
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise AssertionError(f"vision did not get ready:\n{log.read_text()}")


def wait_for_answers(url: str, name: str) -> None:
    """Wait until a camera has been answered."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        cameras = requests.get(f"{url}/local/state", timeout=10).json()["cameras"]
        if any(one["answer"] for one in cameras if one["name"] == name):
            return
        time.sleep(0.05)
    raise AssertionError(f"the camera {name} was not answered")


@contextmanager
def running(
    folder: Path, cameras: str, local: str = "", more: str = "", before: Sequence[str] = ()
) -> Iterator[Running]:
    """Run a device until the end of the block; `before` are words that run its command."""
    config = write_config(folder, cameras, local, more)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = handed_in(config, listener, before)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            wait_until_ready(url, process, folder / "log")
            yield Running(url, process, folder / "state")
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
