"""Swap a real vision's model again and again while its cameras run: frames lost, delay at the swap, memory.

    .venv/bin/python scripts/bench_swaps.py [--swaps 50] [--cameras 2] [--rate 10]

Two bundles that differ in their release alone take turns: the link `current` is set by hand, which vision follows
within a second. Every frame is found again in the outbox with the model that answered it.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import apsw
from tqdm import tqdm

from agent.core.updates import Links
from agent.store.models import Models, key_of
from models import BUILTIN, Bundle
from models.bundle import MANIFEST

PATIENCE_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second of each camera")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), options.swaps, options.cameras, options.rate)


def run(folder: Path, swaps: int, cameras: int, rate_fps: float) -> None:
    models = Models(folder / "state" / "models")
    keys = [bring(models, folder / f"bundle-{release}", release) for release in (1, 2)]
    point(models, keys[0])
    config = folder / "device.toml"
    config.write_text(configuration(folder, cameras, rate_fps))
    vision = subprocess.Popen([sys.executable, "-m", "agent.cli", "vision", "-c", str(config)])
    try:
        memory = turns(folder, models, keys, swaps)
    finally:
        vision.send_signal(signal.SIGTERM)
        code = vision.wait(PATIENCE_S)
    tell(results(folder), memory, rate_fps, code)


def bring(models: Models, folder: Path, release: int) -> str:
    """Put a copy of the shipped bundle, with that release, into the store."""
    shutil.copytree(BUILTIN["produce"], folder)
    told = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**told, "release": release}))
    bundle = Bundle.load(folder)
    for file in bundle.manifest.files:
        shutil.copyfile(folder / file.path, models.blob(file.sha256))
    with models.journal.turn():
        models.assemble((folder / MANIFEST).read_bytes())
    return key_of(bundle.ref.digest)


def point(models: Models, key: str) -> None:
    with models.journal.turn():
        models.point(Links(current=key))


def configuration(folder: Path, cameras: int, rate_fps: float) -> str:
    device = f'[device]\nid = "bench"\nstate_dir = "{folder / "state"}"\nruntime_dir = "{folder / "run"}"\n'
    return device + "".join(
        f'[[camera]]\nname = "cam-{n}"\nurl = "synthetic:{n}?width=640&height=360"\nrate_fps = {rate_fps}\n'
        for n in range(cameras)
    )


def turns(folder: Path, models: Models, keys: list[str], swaps: int) -> list[int]:
    """Have the bundles take turns; gives vision's resident bytes after each."""
    memory = []
    wait_for(lambda: report(folder).get("first_answer_s"))
    quiet(folder, swaps)
    for n in tqdm(range(1, swaps + 1), unit="swap", disable=not sys.stderr.isatty()):
        release = n % 2 + 1
        point(models, keys[release - 1])
        wait_for(lambda release=release: report(folder)["model"]["release"] == release)
        memory.append(int(report(folder)["rss_bytes"]))
    time.sleep(1.0)
    return memory


def quiet(folder: Path, seconds: float) -> None:
    """Say what this machine loses anyway, without any swap, in about the time that the swaps take."""
    began = len(results(folder))
    time.sleep(seconds)
    answered = results(folder)[began:]
    print(f"lost without any swap     {sum(lost for lost, _ in gaps(answered))} of {len(answered)}, in {seconds:.0f} s")


def gaps(found: list[dict]) -> list[tuple[int, dict]]:
    """Give for each answer the frames that its camera lost right before it."""
    last: dict[str, int] = {}
    said = []
    for result in found:
        before = last.get(result["camera"], result["frame"] - 1)
        said.append((result["frame"] - before - 1, result))
        last[result["camera"]] = result["frame"]
    return said


def wait_for(holds: object) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        if time.monotonic() > until_s:
            raise TimeoutError("vision does not do it")
        time.sleep(0.02)


def report(folder: Path) -> dict:
    try:
        rows = read(folder, "SELECT value FROM fact WHERE name = 'vision'")
    except apsw.Error:
        return {}
    return json.loads(rows[0][0]) if rows else {}


def results(folder: Path) -> list[dict]:
    return [json.loads(body) for (body,) in read(folder, "SELECT body FROM outbox WHERE kind = 'result' ORDER BY seq")]


def read(folder: Path, sql: str) -> list[tuple]:
    with apsw.Connection(str(folder / "state" / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY) as db:
        db.set_busy_timeout(5000)
        return list(db.execute(sql))


def tell(found: list[dict], memory: list[int], rate_fps: float, code: int) -> None:
    by_camera = defaultdict(list)
    for result in found:
        by_camera[result["camera"]].append(result)
    lost, delays, swaps = 0, [], 0
    for answered in by_camera.values():
        for before, after in pairwise(answered):
            if before["model"]["release"] != after["model"]["release"]:
                swaps += 1
                lost += after["frame"] - before["frame"] - 1
                delays.append(after["total_ms"])
    usual = [result["total_ms"] for result in found]
    print(f"swaps seen by cameras     {swaps}")
    print(f"frames answered           {len(found)}")
    print(f"frames lost at a swap     {lost}")
    print(f"frames lost all in all    {sum(n for n, _ in gaps(found))}")
    print(f"first answer after a swap median {statistics.median(delays):.1f} ms, most {max(delays):.1f} ms")
    print(f"any answer                median {statistics.median(usual):.1f} ms, most {max(usual):.1f} ms")
    print(f"one frame interval        {1000 / rate_fps:.0f} ms")
    tenth = max(1, len(memory) // 10)
    first, last = statistics.median(memory[tenth : 2 * tenth]), statistics.median(memory[-tenth:])
    print(f"resident memory           {first / 1e6:.1f} MB after the first swaps, {last / 1e6:.1f} MB after the last")
    print(f"vision ended with code    {code}")


if __name__ == "__main__":
    main()
