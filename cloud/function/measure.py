"""Measure the local function host against the bare function: `python -m cloud.function.measure PICTURE...`

Starts a host of its own and prints: cold start to first answer, what a warm call costs more than the function alone
(both in turn on the same pictures), and how many workers are left after the idle time.
"""

import argparse
import http.client
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from cloud.errors import Broken, CloudError, Rejected
from cloud.function.exchange import Reply, reply_to_request
from cloud.function.handler import Model
from models.errors import PictureError
from models.picture import picture_size

IDLE_S = 1.0
PATIENCE_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the figures; gives the exit code."""
    options = _options(arguments)
    try:
        shown = measure([_read(path) for path in options.picture], options.starts, options.calls)
    except CloudError as error:
        print(f"error: {error} [{error.code}]\n  cure: {error.hint}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            print(f"{name.replace('_', ' '):<34} {value}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cloud.function.measure", description=__doc__)
    parser.add_argument("picture", type=Path, nargs="+", help="JPEG, PNG or WebP files to call it with")
    parser.add_argument("--starts", type=int, default=5, metavar="N", help="cold starts (%(default)s)")
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="warm calls (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    if options.starts < 1 or options.calls < 1:
        parser.error("--starts and --calls must be at least 1")
    return options


def measure(pictures: Sequence[tuple[str, bytes]], starts: int, calls: int) -> dict[str, object]:
    """Measure with pictures, each a content type and bytes. Raises `Rejected` and `Broken`."""
    model = Model.open({name: value for name, value in os.environ.items() if name.startswith("SHELFWIRE_")})
    load = os.getloadavg()[0]
    with _host() as port, closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as caller:
        cold_s: list[float] = []
        for _ in range(starts):
            _wait_for_none(caller)
            cold_s.append(_call(caller, *pictures[0]))
        bare_ms: list[float] = []
        warm_ms: list[float] = []
        for number in range(calls):
            kind, picture = pictures[number % len(pictures)]
            bare_ms.append(_alone(model, kind, picture) * 1000)
            warm_ms.append(_call(caller, kind, picture) * 1000)
        began_s = time.monotonic()
        left = _wait_for_none(caller)
        gone_s = time.monotonic() - began_s
    more_ms = [warm - bare for warm, bare in zip(warm_ms, bare_ms, strict=True)]
    return {
        "load_before": round(load, 1),
        "cold_start_s_each": [round(value, 3) for value in cold_s],
        "cold_start_s_p50": round(_rank(cold_s, 0.5), 3),
        "cold_start_s_most": round(max(cold_s), 3),
        "bare_ms_p50": round(_rank(bare_ms, 0.5), 2),
        "bare_ms_p95": round(_rank(bare_ms, 0.95), 2),
        "warm_ms_p50": round(_rank(warm_ms, 0.5), 2),
        "warm_ms_p95": round(_rank(warm_ms, 0.95), 2),
        "overhead_ms_p50": round(_rank(more_ms, 0.5), 2),
        "overhead_ms_p95": round(_rank(more_ms, 0.95), 2),
        "workers_after_idle": left,
        "idle_s": IDLE_S,
        "last_worker_gone_after_s": round(gone_s, 2),
        "load_after": round(os.getloadavg()[0], 1),
    }


@contextmanager
def _host() -> Iterator[int]:
    """Run a host; gives its port."""
    command = [sys.executable, "-m", "cloud.cli", "function", "--port", "0", "--idle", str(IDLE_S), "--json"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise Broken(
                    "function-host", "the function host does not start", "run shelfwire-cloud function to see why"
                )
            yield int(json.loads(line)["port"])
        finally:
            process.terminate()


def _headers(kind: str) -> dict[str, str]:
    return {
        "content-type": kind,
        "x-shelfwire-frame": "measure/0000000000000000/1",
        "x-shelfwire-camera": "measure",
        "x-shelfwire-captured-at": "2026-01-31T12:00:00Z",
    }


def _call(caller: http.client.HTTPConnection, kind: str, picture: bytes) -> float:
    """Call the host, and give the time it took in seconds. Raises `Rejected`."""
    began_s = time.perf_counter()
    caller.request("POST", "/", picture, _headers(kind))
    answer = caller.getresponse()
    body = answer.read()
    took_s = time.perf_counter() - began_s
    _check(Reply(answer.status, body))
    return took_s


def _alone(model: Model, kind: str, picture: bytes) -> float:
    """Call the function in this process, and give the time it took in seconds. Raises `Rejected`."""
    began_s = time.perf_counter()
    reply = reply_to_request(model, "POST", _headers(kind), picture)
    took_s = time.perf_counter() - began_s
    _check(reply)
    return took_s


def _check(reply: Reply) -> None:
    if reply.status != 200:
        told = json.loads(reply.body)
        raise Rejected(told["code"], told["detail"], told["hint"])


def _wait_for_none(caller: http.client.HTTPConnection) -> int:
    """Wait until no worker is left; gives how many are."""
    deadline_s = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while True:
        caller.request("GET", "/healthz")
        workers = int(json.loads(caller.getresponse().read())["workers"])
        if workers == 0 or time.monotonic() > deadline_s:
            return workers
        pause.wait(0.02)


def _rank(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _read(path: Path) -> tuple[str, bytes]:
    try:
        content = path.read_bytes()
        return f"image/{picture_size(content)[2]}", content
    except OSError as error:
        raise Rejected("measure-picture", f"{path} cannot be read: {error.strerror}", "name a picture") from error
    except PictureError as error:
        raise Rejected(error.code, f"{path}: {error}", error.hint) from error


if __name__ == "__main__":
    sys.exit(main())
