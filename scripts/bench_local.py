"""What the device's page and API cost the cameras: answer times, processor time and memory, in one run.

    .venv/bin/python scripts/bench_local.py [--seconds 6] [--rounds 5] [--cameras 2] [--fps 5]

Each round has a window in which nobody asks, one in which a phone looks at the page, and one in
which a program classifies as fast as it is answered. What counts are the ratios, taken over all rounds. Not part of the
tests: with the default it takes a good minute and a half, and wants a machine that does nothing else.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "system")]

from local_device import Running, camera, running, wait_for_answers  # noqa: E402

from agent.host.process import rss_bytes  # noqa: E402
from models import BUILTIN  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
PICTURE = next((BUILTIN["produce"] / "golden").glob("*.png"))
WINDOWS = ("nobody", "page", "api")
ASKERS = 4


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def last_seq(device: Running) -> int:
    with contextlib.closing(open_store(device)) as db:
        return int(next(iter(db.execute("SELECT coalesce(max(seq), 0) FROM outbox")))[0])


def open_store(device: Running) -> apsw.Connection:
    return apsw.Connection(str(device.state / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY)


def answers_ms(device: Running, after: int) -> list[float]:
    """Capture to answer of every frame recorded after this row, in milliseconds."""
    with contextlib.closing(open_store(device)) as db:
        bodies = db.execute("SELECT body FROM outbox WHERE kind = 'result' AND seq > ?", (after,)).fetchall()
    return [float(json.loads(body)["total_ms"]) for (body,) in bodies]


@contextlib.contextmanager
def nobody(_: Running) -> Iterator[dict[str, int]]:
    yield {}


@contextlib.contextmanager
def page(device: Running) -> Iterator[dict[str, int]]:
    """Ask as the page on a phone does; its drawing is the phone's own affair and would only share these cores."""
    stop, counts = threading.Event(), {"pictures": 0}

    def look() -> None:
        with requests.Session() as session:
            while not stop.wait(1.0):
                session.get(f"{device.url}/local/state", timeout=10)

    def watch(name: str) -> None:
        number = "0"
        with requests.Session() as session:
            while not stop.wait(0.2):
                got = session.get(f"{device.url}/local/cameras/{name}.jpg", params={"after": number}, timeout=10)
                if got.status_code == 200:
                    number = got.headers["Shelfwire-Frame"]
                    counts["pictures"] += 1

    with asking(
        [threading.Thread(target=look), *(threading.Thread(target=watch, args=(f"cam-{n}",)) for n in (0, 1))], stop
    ):
        yield counts


@contextlib.contextmanager
def asking(threads: list[threading.Thread], stop: threading.Event) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def api(device: Running) -> Iterator[dict[str, int]]:
    stop, counts, content = threading.Event(), {"pictures": 0}, PICTURE.read_bytes()

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                address = f"{device.url}/v2/models/produce/infer"
                headers = {"Inference-Header-Content-Length": "0"}
                counts["pictures"] += session.post(address, content, headers=headers, timeout=30).status_code == 200

    with asking([threading.Thread(target=ask) for _ in range(ASKERS)], stop):
        yield counts


def measure(options: argparse.Namespace, device: Running) -> dict[str, Any]:
    ms: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    pictures: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, int] = {"before": rss_bytes(device.process.pid)}
    for _ in range(options.rounds):
        for name, somebody in zip(WINDOWS, (nobody, page, api), strict=True):
            with somebody(device) as counts:
                before, spent_s, began_s = last_seq(device), cpu_s(device.process.pid), time.monotonic()
                had = counts.get("pictures", 0)
                until_s = began_s + options.seconds
                while time.monotonic() < until_s:
                    time.sleep(0.1)
                took_s = time.monotonic() - began_s
                shares[name].append((cpu_s(device.process.pid) - spent_s) / took_s)
                pictures[name].append((counts.get("pictures", 0) - had) / took_s)
                ms[name] += answers_ms(device, before)
            memory[name] = rss_bytes(device.process.pid)
    quantile = {name: statistics.quantiles(values, n=100) for name, values in ms.items()}
    return {
        "cameras": options.cameras,
        "fps": options.fps,
        "answers": {name: len(values) for name, values in ms.items()},
        "answer_p50_ms": {name: round(quantile[name][49], 2) for name in WINDOWS},
        "answer_p95_ms": {name: round(quantile[name][94], 2) for name in WINDOWS},
        "answer_p95_ratio": {name: round(quantile[name][94] / quantile["nobody"][94], 3) for name in WINDOWS},
        "cores_used": {name: round(statistics.mean(shares[name]), 3) for name in WINDOWS},
        "pictures_per_s": {name: round(statistics.mean(pictures[name]), 1) for name in WINDOWS},
        "memory_mb": {name: round(n / 1e6, 1) for name, n in memory.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--fps", type=float, default=5.0)
    options = parser.parse_args()
    cameras = "".join(
        camera(f"cam-{n}", f"synthetic:{n + 1}?width=1280&height=720", options.fps) for n in range(options.cameras)
    )
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), cameras) as device:
        wait_for_answers(device.url, "cam-0")
        time.sleep(3)
        print(json.dumps(measure(options, device), indent=2))


if __name__ == "__main__":
    main()
