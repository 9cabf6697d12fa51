"""The four ways to an answer on the same pictures: what `scripts/bench modes` measures, and how it is shown.

Each way is the real one, in the processes that it has in a shop and in its cloud, all on this machine:

real-time     the device's pipeline, from a camera's JPEG to the committed record
serverless    PUT by PUT through `serve` to a function host, until the verdict is committed
asynchronous  POST by POST through `serve` to a worker's queue, until the verdict is committed
batch         spooled, sealed by `nightly`, uploaded by sync, scored by `batch run`; without the wait for the night

The first three get pictures at a steady pace, for latency and freshness, and then as fast as they take them, for
throughput and processor time. Each may use as many processes as there are cores.
"""

import contextlib
import hashlib
import http.client
import json
import os
import queue
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg

from agent.camera.encode import to_jpeg
from agent.camera.mailboxes import Mailboxes
from agent.config import Config
from agent.core.records import Origin, frame_body, moment
from agent.host.clock import SystemClock
from agent.ports import Draft, Frame, Lane
from agent.store.shards import summary
from agent.store.writer import Limits, Writer

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))
PACE_FPS = 8.0
"""Slow enough that no way falls behind on two shared cores: latencies then tell of the way and not of a queue."""
SENDERS = 8
PATIENCE_S = 120.0
QUIET_S = 3.0
"""A device that falls behind drops frames, so not every answer comes: after so long none will."""
MODES = ("real-time", "serverless", "asynchronous", "batch")
LATE = {"serverless": ("PUT", "/v1/frames/{key}"), "asynchronous": ("POST", "/v1/jobs?sender=bench")}
TICK = os.sysconf("SC_CLK_TCK")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pictures:
    """What all ways are asked about: as cameras give it, and as a device sends it."""

    camera: Sequence[bytes]
    sent: Sequence[bytes]
    encode_cpu_s: float

    @classmethod
    def of(cls, jpegs: Sequence[bytes]) -> "Pictures":
        """Encode them as a device does."""
        spool = Config(device={"id": "bench"}).spool
        decoded = [_decode(jpeg) for jpeg in jpegs]
        began_s = time.process_time()
        sent = [to_jpeg(picture, spool.quality, spool.max_side)[0] for picture in decoded]
        return cls(jpegs, sent, (time.process_time() - began_s) / len(sent))

    def index(self, number: int) -> int:
        """Which picture a frame shows."""
        return number % len(self.camera)


@dataclass
class Way:
    """What one way did. Times of `paced` answers are (captured, answered) in seconds of the wall clock."""

    asked: int
    paced: list[tuple[float, float]]
    best: list[tuple[int, str]]
    """The best label of each answer, beside its picture's index."""
    twice: int
    per_s: float
    device_cpu_s: float
    cloud_cpu_s: float
    """Per answer."""
    bytes_per_answer: float
    usd: float | None = None
    more: dict[str, float] = field(default_factory=dict)


def measure(
    jpegs: Sequence[bytes], count: int, make_rig: Callable[[Any, SystemClock], Any], say: Say
) -> dict[str, Any]:
    """Measure all four with `count` frames each at the pace, and as many again as fast as they go."""
    pictures = Pictures.of(jpegs)
    ways = {"real-time": real_time(pictures, count, make_rig)}
    say(f"  real-time: {ways['real-time'].per_s:.1f} answers/s")
    with tempfile.TemporaryDirectory(prefix="shelfwire-bench-") as folder, cloud(Path(folder)) as running:
        for mode in LATE:
            ways[mode] = late(mode, pictures, count, running)
            say(f"  {mode}: {ways[mode].per_s:.1f} answers/s")
        ways["batch"] = batch(pictures, count, running, Path(folder))
        say(f"  batch: {ways['batch'].per_s:.1f} answers/s")
    seen = _most_said(ways["real-time"].best)
    whole = all(len(way.best) == way.asked and way.twice == 0 for way in ways.values())
    return {
        "frames_each_way": 2 * count,
        "pictures": len(jpegs),
        "pace_fps": PACE_FPS,
        "ways": {mode: _figures(ways[mode], seen) for mode in MODES},
        "goal": "every frame is answered each way, once",
        "met": whole,
    }


def read(folder: Path) -> list[Any]:
    """Read the pictures of a folder."""
    pictures = [cv2.imread(str(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    found = [picture for picture in pictures if picture is not None]
    if not found:
        raise SystemExit(f"--frames: there is no picture in {folder}; name a folder of JPEG or PNG files")
    return found


def _figures(way: Way, seen: Mapping[int, str]) -> dict[str, Any]:
    late_ms = [(answered - captured) * 1000 for captured, answered in way.paced]
    same = [seen[index] == label for index, label in way.best if index in seen]
    return {
        "answers": len(way.best),
        "latency_ms": {f"p{p}": _figure(float(np.percentile(late_ms, p))) for p in (50, 95, 99)},
        "answers_per_s": _figure(way.per_s),
        "cpu_ms_device": _figure(way.device_cpu_s * 1000),
        "cpu_ms_cloud": _figure(way.cloud_cpu_s * 1000),
        "bytes_per_answer": round(way.bytes_per_answer),
        "usd_per_1000": None if way.usd is None else _figure(way.usd / len(way.best) * 1000),
        "freshness_ms": _figure(freshness_s(way.paced) * 1000),
        "same_as_real_time": round(statistics.mean(same), 4) if same else None,
        **{name: _figure(value) for name, value in way.more.items()},
    }


def freshness_s(paced: Sequence[tuple[float, float]]) -> float:
    """How old the newest answered picture is, on average from the first answer to the last."""
    arrivals = sorted((answered, captured) for captured, answered in paced)
    newest, area, before = arrivals[0][1], 0.0, arrivals[0][0]
    for answered, captured in arrivals[1:]:
        area += (answered - before) * ((answered + before) / 2 - newest)
        newest, before = max(newest, captured), answered
    took = before - arrivals[0][0]
    return area / took if took else before - newest


def _figure(value: float) -> float:
    """Three digits: a shared machine does not give more."""
    return float(f"{value:.3g}")


def _most_said(best: Sequence[tuple[int, str]]) -> dict[int, str]:
    said: dict[int, Counter[str]] = {}
    for index, label in best:
        said.setdefault(index, Counter())[label] += 1
    return {index: counts.most_common(1)[0][0] for index, counts in said.items()}


def _decode(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def _wait_for(what: str, holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > until_s:
            raise SystemExit(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.02)


# -- processor time ----------------------------------------------------------------------------------------------------


def own_cpu_s(who: int = resource.RUSAGE_SELF) -> float:
    """Of this process, or with `RUSAGE_CHILDREN` of its children that have ended."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def cpu_s_of(roots: Sequence[int]) -> float:
    """Of these processes and all below them, also of those that have ended: their parents have inherited their time."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15])) / TICK

    def below(pid: int) -> bool:
        while pid in parents and pid not in roots:
            pid = parents[pid]
        return pid in roots

    return sum(seconds for pid, seconds in used.items() if below(pid))


# -- real time ---------------------------------------------------------------------------------------------------------


class Flood:
    """Frames as fast as they are taken, decoded as a camera's thread does; `take` gives None after the last one."""

    def __init__(self, pictures: Pictures, clock: SystemClock, first: int, count: int) -> None:
        self._pictures = pictures
        self._clock = clock
        self._numbers = iter(range(first, first + count))
        self._lock = threading.Lock()
        self.finished = False

    def take(self, timeout_s: float) -> Frame | None:
        """Give the next frame, if there is one."""
        with self._lock:
            number = next(self._numbers, None)
        if number is None:
            time.sleep(timeout_s)
            return None
        captured = self._clock.now()
        picture = _decode(self._pictures.camera[self._pictures.index(number)])
        return Frame("camera-0", number, picture, captured)

    def done(self, frame: Frame) -> None:
        """Any thread may take any frame."""

    def collect_drops(self) -> Mapping[str, int]:
        """None is dropped."""
        return {}


def real_time(pictures: Pictures, count: int, make_rig: Callable[[Any, SystemClock], Any]) -> Way:
    """The device's own way: once at the pace, once as fast as it goes."""
    clock = SystemClock()
    mailboxes = Mailboxes(["camera-0"])
    rig = make_rig(mailboxes, clock)
    rig.start()
    for number in _at_pace(count):
        captured = clock.now()
        mailboxes.put(Frame("camera-0", number, _decode(pictures.camera[pictures.index(number)]), captured))
    paced = _committed(rig, count)
    mailboxes.close()
    rig.finish()
    flood = Flood(pictures, clock, count + 1, count)
    rig = make_rig(flood, clock)
    cpu_s, began_s = own_cpu_s(), time.perf_counter()
    rig.start()
    fast = _committed(rig, count)
    took_s, cpu_s = time.perf_counter() - began_s, own_cpu_s() - cpu_s
    rig.finish()
    said = [*paced, *fast]
    return Way(
        asked=2 * count,
        paced=[_times(body) for body in paced],
        best=[(pictures.index(body["frame"]), body["labels"][0]["label"]) for body in said],
        twice=len(said) - len({body["frame"] for body in said}),
        per_s=count / took_s,
        device_cpu_s=cpu_s / count,
        cloud_cpu_s=0.0,
        bytes_per_answer=statistics.mean(len(json.dumps(body, separators=(",", ":"))) for body in said),
        usd=0.0,
    )


def _times(body: Mapping[str, Any]) -> tuple[float, float]:
    captured_s = datetime.fromisoformat(body["captured_at"]).timestamp()
    return captured_s, captured_s + body["total_ms"] / 1000


def _committed(rig: Any, count: int) -> list[dict[str, Any]]:
    """Wait until so many results are committed, or no more come, and read them from the device's store."""
    with contextlib.closing(sqlite3.connect(f"file:{rig.folder}/state/outbox.sqlite?mode=ro", uri=True)) as database:
        found, changed_s = 0, time.monotonic()
        while found < count and time.monotonic() - changed_s < QUIET_S:
            (now,) = database.execute("SELECT count(*) FROM outbox WHERE kind = 'result'").fetchone()
            if now != found:
                found, changed_s = now, time.monotonic()
            time.sleep(0.01)
        return [json.loads(body) for (body,) in database.execute("SELECT body FROM outbox WHERE kind = 'result'")]


def _at_pace(count: int, first: int = 1) -> Iterator[int]:
    began_s = time.monotonic()
    for n in range(count):
        time.sleep(max(0.0, began_s + n / PACE_FPS - time.monotonic()))
        yield first + n


# -- the cloud ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """What runs: `serve` with its PostgreSQL, a function host and a worker."""

    host: str
    port: int
    dsn: str
    data: Path
    processes: Mapping[str, int]

    def cpu_s(self, *names: str) -> float:
        """Processor time of these and of what serves them all."""
        return cpu_s_of([self.processes[name] for name in ("serve", "postgres", *names)])

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the store."""
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement.encode(), values).fetchall()


@contextlib.contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """Run a cloud of its own in a folder."""
    with contextlib.ExitStack() as stack:
        processes: dict[str, int] = {}

        def started(name: str, *words: str) -> dict[str, Any]:
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-m", "cloud.cli", name, *words, "--json"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
            )  # fmt: skip
            stack.callback(process.terminate)
            processes[name] = process.pid
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{name} does not start: run shelfwire-cloud {name} to see why")
            told: dict[str, Any] = json.loads(line)
            return told

        data = folder / "cloud"
        function = started("function", "--port", "0", "--concurrency", str(CORES), "--idle", "120")
        server = started("serve", "--port", "0", "--data", str(data), "--function", function["url"])
        started("worker", "--dsn", server["dsn"], "--concurrency", str(CORES))
        processes["postgres"] = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
        yield Cloud("127.0.0.1", int(server["port"]), server["dsn"], data, processes)


HELPERS = {"serverless": "function", "asynchronous": "worker"}


def late(mode: str, pictures: Pictures, count: int, running: Cloud) -> Way:
    """A way by HTTP. The first calls wake the function, all its workers, and are no frames of the measurement."""
    waking = "00000000000000c0"
    first_ms = _send(mode, pictures, running, [1], waking, senders=1) * 1000
    _send(mode, pictures, running, range(2, 2 + 4 * CORES), waking, senders=2 * CORES)
    _wait_for("the first answers", lambda: _answered(running, mode, waking) >= 1 + 4 * CORES)
    runs = ("00000000000000aa", "00000000000000ff")
    _send(mode, pictures, running, _at_pace(count), runs[0], senders=SENDERS)
    _wait_for("answers at the pace", lambda: _answered(running, mode, runs[0]) >= count)
    before_s, own_s, began_s = running.cpu_s(HELPERS[mode]), own_cpu_s(), time.perf_counter()
    _send(mode, pictures, running, range(count + 1, 2 * count + 1), runs[1], senders=CORES)
    sender_s = own_cpu_s() - own_s
    _wait_for("answers as fast as they go", lambda: _answered(running, mode, runs[1]) >= count)
    took_s, cloud_s = time.perf_counter() - began_s, running.cpu_s(HELPERS[mode]) - before_s
    paced, best, twice, usd = _verdicts(running, mode, pictures, runs)
    return Way(
        asked=2 * count,
        paced=paced,
        best=best,
        twice=twice,
        per_s=count / took_s,
        device_cpu_s=pictures.encode_cpu_s + sender_s / count,
        cloud_cpu_s=cloud_s / count,
        bytes_per_answer=statistics.mean(map(len, pictures.sent)),
        usd=usd,
        more={"first_call_ms": first_ms} if mode == "serverless" else {},
    )


def _answered(running: Cloud, mode: str, run: str) -> int:
    found = running.rows("SELECT count(*) FROM verdict WHERE mode = %s AND run = %s", mode, run)
    return int(found[0][0])


def _verdicts(
    running: Cloud, mode: str, pictures: Pictures, runs: Sequence[str]
) -> tuple[list[tuple[float, float]], list[tuple[int, str]], int, float | None]:
    """Read what the store has: times of the first run, best labels of all, how many frames have two, and the cost."""
    rows = running.rows(
        """SELECT run, frame, labels->0->>'label', extract(epoch FROM captured_at)::float8,
                  extract(epoch FROM committed_at)::float8, usd
           FROM verdict WHERE mode = %s AND run = ANY(%s)""",
        mode, list(runs),
    )  # fmt: skip
    paced = [(captured, answered) for run, _, _, captured, answered, _ in rows if run == runs[0]]
    best = [(pictures.index(frame), label) for _, frame, label, _, _, _ in rows]
    costs = [usd for *_, usd in rows if usd is not None]
    return paced, best, len(rows) - len({(run, frame) for run, frame, *_ in rows}), sum(costs) if costs else None


def _send(
    mode: str, pictures: Pictures, running: Cloud, numbers: Iterator[int] | Sequence[int], run: str, *, senders: int
) -> float:
    """Send frames as a device's sync does, from the moment at which each is due; gives the seconds it took."""
    method, path = LATE[mode]
    due: queue.Queue[tuple[int, float] | None] = queue.Queue(2 * SENDERS)
    wrong: list[str] = []

    def ask(connection: http.client.HTTPConnection, number: int, at_s: float) -> None:
        jpeg = pictures.sent[pictures.index(number)]
        key = f"bench/{run}/{number}"
        headers = {
            "Content-Type": "image/jpeg", "X-Shelfwire-Frame": key, "Idempotency-Key": key,
            "X-Shelfwire-Camera": "camera-0", "X-Shelfwire-Number": str(number), "X-Shelfwire-Clock": "synced",
            "X-Shelfwire-Captured-At": moment(int(at_s * 1e9)), "X-Shelfwire-Sha256": hashlib.sha256(jpeg).hexdigest(),
        }  # fmt: skip
        while True:
            connection.request(method, path.format(key=key), jpeg, headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status in (http.HTTPStatus.OK, http.HTTPStatus.ACCEPTED):
                return
            if answer.status not in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE):
                wrong.append(f"{mode}: HTTP {answer.status}: {told[:300]!r}")
                return
            time.sleep(float(answer.headers.get("Retry-After", "0.1")))

    def work() -> None:
        with contextlib.closing(http.client.HTTPConnection(running.host, running.port, timeout=30)) as connection:
            while (item := due.get()) is not None:
                ask(connection, *item)

    threads = [threading.Thread(target=work) for _ in range(senders)]
    for thread in threads:
        thread.start()
    began_s = time.perf_counter()
    for number in numbers:
        due.put((number, time.time()))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    if wrong:
        raise SystemExit(wrong[0])
    return time.perf_counter() - began_s


# -- the night ---------------------------------------------------------------------------------------------------------


def batch(pictures: Pictures, count: int, running: Cloud, folder: Path) -> Way:
    """The night's way with all frames at once, from the spool to the last verdict."""
    state = folder / "device"
    config = folder / "night.toml"
    share = sum(len(pictures.sent[pictures.index(n)]) for n in range(1, 2 * count + 1)) // CORES
    config.write_text(
        f'[device]\nid = "bench-night"\nstate_dir = "{state}"\nruntime_dir = "{folder / "run"}"\n'
        f'[privacy]\npictures = "frames"\n[cloud]\nbroker = "mqtt://127.0.0.1:9"\napi = "http://{running.host}:{running.port}"\n'
        f'[batch]\nbytes_per_second = "1 GB"\nshard = "{max(1_000_000, share)} B"\n'
    )
    own_s, ended_s, began_s = own_cpu_s(), own_cpu_s(resource.RUSAGE_CHILDREN), time.perf_counter()
    before_s = running.cpu_s()
    _spool(pictures, 2 * count, state)
    report = _run("agent.cli", "nightly", "--now", "--json", "--config", str(config))
    with _sync(config) as sync:
        _wait_for("the upload", lambda: sync.poll() is not None or summary(state).files == 0)
        if sync.poll() is not None:
            raise SystemExit(f"sync ended with code {sync.returncode}")
    device_s = own_cpu_s() - own_s + own_cpu_s(resource.RUSAGE_CHILDREN) - ended_s
    uploaded_s = time.perf_counter()
    ended_s = own_cpu_s(resource.RUSAGE_CHILDREN)
    days = {shard["day"] for shard in report["sealed"]}
    for day in sorted(days):
        _run("cloud.cli", "batch", "run", day, "--json", "--dsn", running.dsn, "--data", str(running.data),
             "--workers", str(CORES))  # fmt: skip
    scored_s = time.perf_counter()
    cloud_s = running.cpu_s() - before_s + own_cpu_s(resource.RUSAGE_CHILDREN) - ended_s
    runs = [run for (run,) in running.rows("SELECT DISTINCT run FROM verdict WHERE mode = 'batch'")]
    paced, best, twice, _ = _verdicts(running, "batch", pictures, runs)
    return Way(
        asked=2 * count,
        paced=paced,
        best=best,
        twice=twice,
        per_s=2 * count / (scored_s - began_s),
        device_cpu_s=pictures.encode_cpu_s + device_s / (2 * count),
        cloud_cpu_s=cloud_s / (2 * count),
        bytes_per_answer=sum(shard["bytes"] for shard in report["sealed"]) / (2 * count),
        more={"scored_per_s": 2 * count / (scored_s - uploaded_s)},
    )


def _spool(pictures: Pictures, count: int, state: Path) -> None:
    """Put frames aside for the night as vision does."""
    writer = Writer(state, Limits(), 0)
    writer.start_run("bench", 0, "bench")
    clock = SystemClock()
    for number in range(1, count + 1):
        jpeg = pictures.sent[pictures.index(number)]
        height, width = _decode(pictures.camera[pictures.index(number)]).shape[:2]
        now = clock.now()
        body = frame_body(
            Origin("camera-0", number, now.wall_ns, now.boot_ns, "synced"),
            size=(width, height), reason="deferred", answer=None, truth=None,
        )  # fmt: skip
        writer.put([Draft("frame", Lane.BATCH, body, now, "synced", writer.spool.keep(jpeg))])
    writer.close()


def _run(module: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *words]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if answer.returncode:
        raise SystemExit(f"{words[0]} ended with code {answer.returncode}:\n{answer.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


@contextlib.contextmanager
def _sync(config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run sync for as long as the upload takes. It finds no broker, which keeps no file from leaving."""
    command = [sys.executable, "-m", "agent.cli", "sync", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()
