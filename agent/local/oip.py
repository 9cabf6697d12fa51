"""Open Inference Protocol v2 over HTTP: the cameras' classifier for other programs on this machine, behind the cameras.

Its documents and answers are those that a stock client (tritonclient) and KServe's specification expect.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from agent.local import tensors
from agent.local.exchange import Refusal, Reply, Request, as_json
from agent.local.tensors import IMAGE, MOST_BODY_BYTES, MOST_PICTURES, PIXELS, SCORES, Asked, Pixels, Scores

JSON_BYTES_HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ("classification", "binary_tensor_data", "model_repository", "model_configuration", "statistics")
MOST_IN_HAND = 2
"""Requests whose body is in memory: one is answered while the next is read."""
MOST_WAITING = 8
"""Requests that wait for that; more are told to come again."""
WAIT_S = 5.0
"""How long they wait."""
REST = 2.0
"""While frames of cameras wait, a picture from here is followed by a rest of this many times what it took."""
MOST_REST_S = 0.5
LEAST_PACKED_BYTES = 512


def too_many() -> Refusal:
    """Make the refusal of a request that came while as many others wait as may: it is for the clients to slow down."""
    hint = "try again in a moment, or send fewer at once"
    return Refusal(429, "too-many-requests", "too many pictures wait to be classified", hint, {"Retry-After": "1"})


def busy() -> Refusal:
    """Make the refusal of a request that waited in vain: the device has no time, and cameras come first."""
    hint = "try again in a few seconds, or send pictures when the cameras are calm"
    return Refusal(503, "busy", "the device had no time for this picture", hint, {"Retry-After": "5"})


class Scorer(Protocol):
    """One thread's way to the model (`models.Worker`)."""

    def scores(self, bgr: Pixels) -> Scores:
        """Score every label for one picture, (classes,), 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a client may know of the model."""

    name: str
    version: str
    runtime: str
    labels: Sequence[str]
    digest: str
    threshold: float
    setup: str = ""
    notes: Sequence[str] = ()
    """How it is run, and where that is not what was asked for."""


@dataclass(slots=True)
class _Stats:
    """Counts and times, guarded by `lock`; times in nanoseconds."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ok: int = 0
    failed: int = 0
    pictures: int = 0
    total_ns: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    last_ms: int = 0


class Gate:
    """Lets few requests in at once, and lets some wait. Thread safe."""

    def __init__(self, in_hand: int = MOST_IN_HAND, waiting: int = MOST_WAITING, wait_s: float = WAIT_S) -> None:
        self._free = threading.BoundedSemaphore(in_hand)
        self._places = threading.BoundedSemaphore(in_hand + waiting)
        self._wait_s = wait_s

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in. Raises `Refusal` (``too-many-requests``, ``busy``)."""
        if not self._places.acquire(blocking=False):
            raise too_many()
        try:
            if not self._free.acquire(timeout=self._wait_s):
                raise busy()
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._places.release()


class Oip:
    """Answers what lies under /v2.

    `make_scorer` opens a way to the model, at the first request that needs one. `cameras_wait` tells whether frames
    of cameras wait now; `rest` waits so many seconds, less at the stop.
    """

    def __init__(
        self,
        model: ModelFacts,
        make_scorer: Callable[[], Scorer],
        cameras_wait: Callable[[], bool],
        rest: Callable[[float], object],
        gate: Gate | None = None,
    ) -> None:
        self._model = model
        self._make_scorer = make_scorer
        self._cameras_wait = cameras_wait
        self._rest = rest
        self._gate = gate or Gate()
        self._scorer: Scorer | None = None
        self._turn = threading.Lock()  # one picture at a time
        self._stats = _Stats()

    def take_up(self, model: ModelFacts, make_scorer: Callable[[], Scorer]) -> None:
        """Have another model answer from the next request on; one that is being answered is finished by the former."""
        with self._turn:
            self._model, self._make_scorer, self._scorer = model, make_scorer, None

    def answer(self, request: Request) -> Reply:
        """Answer a request under /v2. Raises `Refusal`."""
        parts = request.path.strip("/").split("/")[1:]
        if parts[-1:] == ["infer"] and len(parts) > 1:
            _need(request, "POST")
            self._need_model(parts[:-1])
            return self._infer(request)
        if parts == ["repository", "index"]:
            _need(request, "POST", "GET")
            entry = {"name": self._model.name, "version": self._model.version, "state": "READY", "reason": ""}
            return as_json(200, [entry])
        _need(request, "GET", "HEAD")
        return as_json(200, self._document(parts))

    def _document(self, parts: list[str]) -> object:
        if not parts:
            return {"name": "shelfwire", "version": version("shelfwire"), "extensions": list(EXTENSIONS)}
        if parts in (["health", "live"], ["health", "ready"]):
            return {parts[1]: True}
        if parts == ["models", "stats"]:
            return self._statistics()
        wanted = {"ready": self._ready, "config": self._config, "stats": self._statistics}
        if parts[-1] in wanted and len(parts) in (3, 5):
            self._need_model(parts[:-1])
            return wanted[parts[-1]]()
        self._need_model(parts)
        return self._metadata()

    def _need_model(self, parts: list[str]) -> None:
        """Check models/NAME, or models/NAME/versions/VERSION. Raises `Refusal`."""
        if parts[:1] != ["models"] or len(parts) not in (2, 4) or (len(parts) == 4 and parts[2] != "versions"):
            hint = "see docs/local.md for what there is"
            raise Refusal(404, "no-such-address", "there is nothing at this address", hint)
        if parts[1] != self._model.name:
            hint = f"the model of this device is {self._model.name}; POST /v2/repository/index lists it"
            raise Refusal(404, "no-such-model", "there is no model of this name", hint)
        if len(parts) == 4 and parts[3] != self._model.version:
            hint = f"this device runs version {self._model.version}; leave the version away for the one that runs"
            raise Refusal(404, "no-such-version", "there is no such version of this model", hint)

    def _ready(self) -> object:
        return {"name": self._model.name, "ready": True}

    def _metadata(self) -> object:
        return {
            "name": self._model.name,
            "versions": [self._model.version],
            "platform": f"{self._model.runtime}_onnx",
            "inputs": [
                {"name": IMAGE, "datatype": "BYTES", "shape": [-1, 1]},
                {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            ],
            "outputs": [{"name": SCORES, "datatype": "FP32", "shape": [-1, len(self._model.labels)]}],
        }

    def _config(self) -> object:
        model = self._model
        facts = {"colour": "rgb", "threshold": f"{model.threshold:g}", "digest": model.digest}
        facts |= {"setup": model.setup, "notes": "\n".join(model.notes)}
        return {
            "name": model.name,
            "platform": f"{model.runtime}_onnx",
            "backend": model.runtime,
            "max_batch_size": MOST_PICTURES,
            "input": [
                {"name": IMAGE, "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [1], "optional": True},
                {
                    "name": PIXELS,
                    "data_type": "TYPE_UINT8",
                    "format": "FORMAT_NHWC",
                    "dims": [-1, -1, 3],
                    "optional": True,
                },
            ],
            "output": [{"name": SCORES, "data_type": "TYPE_FP32", "dims": [len(model.labels)]}],
            "parameters": {
                **{name: {"string_value": text} for name, text in facts.items()},
                "labels": {"string_value": "\n".join(model.labels)},
            },
        }

    def _statistics(self) -> object:
        stats = self._stats
        with stats.lock:
            each = {
                "success": (stats.ok, stats.total_ns),
                "fail": (stats.failed, stats.failed_ns),
                "queue": (stats.ok, stats.queue_ns),
                "compute_input": (stats.ok, stats.input_ns),
                "compute_infer": (stats.ok, stats.infer_ns),
                "compute_output": (stats.ok, 0),
            }
            entry = {
                "name": self._model.name,
                "version": self._model.version,
                "last_inference": stats.last_ms,
                "inference_count": stats.pictures,
                "execution_count": stats.pictures,
                "inference_stats": {name: {"count": n, "ns": ns} for name, (n, ns) in each.items()},
                "batch_stats": [],
            }
        return {"model_stats": [entry]}

    # Inference.

    def _infer(self, request: Request) -> Reply:
        began_ns = time.monotonic_ns()
        header_bytes = _header_bytes(request)
        with self._gate.entered():
            queued_ns = time.monotonic_ns() - began_ns
            try:
                reply = self._classify(request, header_bytes)
            except Refusal:
                with self._stats.lock:
                    self._stats.failed += 1
                    self._stats.failed_ns += time.monotonic_ns() - began_ns
                raise
        with self._stats.lock:
            self._stats.ok += 1
            self._stats.queue_ns += queued_ns
            self._stats.total_ns += time.monotonic_ns() - began_ns
            self._stats.last_ms = time.time_ns() // 1_000_000
        return reply

    def _classify(self, request: Request, header_bytes: int | None) -> Reply:
        began_ns = time.monotonic_ns()
        body = tensors.unpack(request.read_body(MOST_BODY_BYTES), request.header("Content-Encoding"))
        is_raw = header_bytes == 0
        asked = tensors.read_raw(body, request.query) if is_raw else tensors.read_request(body, header_bytes)
        with self._stats.lock:
            self._stats.input_ns += time.monotonic_ns() - began_ns
        model, scores = self._score(asked)
        reply, json_bytes = tensors.write_reply(asked, (model.name, model.version), model.labels, scores)
        headers = {} if json_bytes is None else {JSON_BYTES_HEADER: str(json_bytes)}
        if len(reply) >= LEAST_PACKED_BYTES:
            reply, encoding = tensors.pack(reply, request.header("Accept-Encoding"))
            headers |= {"Content-Encoding": encoding} if encoding else {}
        kind = "application/json" if json_bytes is None else "application/octet-stream"
        return Reply(200, reply, kind, headers)

    def _score(self, asked: Asked) -> tuple[ModelFacts, list[Scores]]:
        """Classify the pictures by one model, one at a time and with a rest after each while cameras wait."""
        with self._turn:
            if self._scorer is None:
                self._scorer = self._make_scorer()
            model, scorer = self._model, self._scorer
        scores = []
        for picture in asked.pictures:
            with self._turn:
                began_ns = time.monotonic_ns()
                decoded = picture.decode()
                decoded_ns = time.monotonic_ns()
                scores.append(scorer.scores(decoded))
                done_ns = time.monotonic_ns()
                with self._stats.lock:
                    self._stats.pictures += 1
                    self._stats.input_ns += decoded_ns - began_ns
                    self._stats.infer_ns += done_ns - decoded_ns
                if self._cameras_wait():
                    self._rest(min(MOST_REST_S, REST * (done_ns - began_ns) / 1e9))
        return model, scores


def _need(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise Refusal(
            405, "wrong-method", f"this address takes {methods[0]}", "correct the method", {"Allow": ", ".join(methods)}
        )


def _header_bytes(request: Request) -> int | None:
    text = request.header(JSON_BYTES_HEADER)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise Refusal(400, "inference-request", f"{JSON_BYTES_HEADER} is not a number", "send the length of the JSON")
    return int(text)


def write_error(refusal: Refusal) -> Mapping[str, Any]:
    """Write a refusal as the protocol wants it, with our code and cure in the one text that it has."""
    return {"error": f"{refusal} [{refusal.code}]; {refusal.hint}"}
