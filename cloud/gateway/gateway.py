"""THE page of the serverless way: look up -> call the function -> judge its answer -> commit -> say so.

The device hears 200 only when the verdict is in the store. A frame that is asked for again, because the answer got
lost, is answered from the store and costs nothing; two that are asked for at the same moment may both be called, and
the store keeps one.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from math import ceil, isfinite
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import psycopg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from psycopg_pool import PoolTimeout
from pydantic import ValidationError

from cloud.errors import CloudError, Retryable
from cloud.frame import About
from cloud.function.exchange import CAMERA, CAPTURED_AT, FRAME, LOCAL_LABEL, NUMBER
from cloud.function.meter import BILLED_MS, USD, price
from cloud.gateway.function import MOST_ANSWER_BYTES, Answer, Function
from cloud.store.verdicts import Kept, keep, serverless
from wire import WireError, strict
from wire.records import Verdict, rfc3339

if TYPE_CHECKING:
    from cloud.store import Pool

MOST_UNDER_WAY = 32
"""Pictures taken in at once: bounds memory, and what a slow function can hold up."""
STORE_THREADS = 3
"""Of the store's connections as many; the others are left to the pages."""
MOST_CALL_S = 10.0
WAIT_S = 5.0
STATEMENT_MS = 10_000
MEMORY_MB = 1024
"""To estimate a price where the function's platform does not say it."""
MOST_RETRY_AFTER_S = 60

_CODE = re.compile(r"[a-z0-9-]{1,48}")
_OF_PICTURE = (400, 413, 415, 422)
_AWAY = (psycopg.OperationalError, PoolTimeout)

T = TypeVar("T")


class NoAnswer(CloudError):
    """There is no answer: `status` is what the device is told, `outcome` what is counted."""

    def __init__(
        self, status: HTTPStatus, outcome: str, code: str, message: str, hint: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(code, message, hint)
        self.status = status
        self.outcome = outcome
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Costs:
    """What a call cost; None where nobody knows."""

    billed_ms: int | None
    usd: float | None


class Metrics:
    """What the gateway counts for Prometheus; no label carries a device."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "shelfwire_gateway_calls", "Frames that devices asked about, by what became of it", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.call_s = Histogram(
            "shelfwire_gateway_call_seconds", "Time of a call of the function", registry=registry,
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self.total_s = Histogram(
            "shelfwire_gateway_total_seconds", "From the picture to its committed answer", registry=registry,
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self.under_way = Gauge("shelfwire_gateway_under_way", "Frames under way now", registry=registry)
        self.usd = Counter("shelfwire_gateway_usd", "What the calls cost, where it is known", registry=registry)
        self.billed_ms = Counter("shelfwire_gateway_billed_ms", "Billed milliseconds", registry=registry)


class Gateway:
    """Answers frames by the function at a URL, None for no function. For one event loop.

    `on_step` is told ``called`` and ``committed`` as they happen, for fault tests.
    """

    def __init__(
        self,
        pool: "Pool",
        function: Function | None,
        registry: CollectorRegistry,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._function = function
        self._now = now
        self._on_step = on_step
        self._threads = ThreadPoolExecutor(STORE_THREADS, "gateway-store")
        self._under_way = 0
        self.metrics = Metrics(registry)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count why there is no answer."""
        try:
            yield
        except NoAnswer as error:
            self.metrics.calls.labels(error.outcome).inc()
            raise

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for frames under way. Raises `NoAnswer` (``gateway-busy``)."""
        if self._under_way >= MOST_UNDER_WAY:
            told, hint = f"{MOST_UNDER_WAY} frames are under way already", "try again shortly"
            raise NoAnswer(HTTPStatus.TOO_MANY_REQUESTS, "busy", "gateway-busy", told, hint, 1)
        self._under_way += 1
        self.metrics.under_way.set(self._under_way)
        try:
            yield
        finally:
            self._under_way -= 1
            self.metrics.under_way.set(self._under_way)

    async def answer(self, about: About, picture: bytes, kind: str, within_s: float) -> Costs:
        """Have a picture of that kind (``jpeg``, ...) answered within the time; gives what it cost.

        Raises `NoAnswer`, and `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
        """
        began_s = time.monotonic()
        try:
            asked_at, known = await self._in_thread(self._look_up, about)
            if known is not None:
                self.metrics.calls.labels("known").inc()
                return known
            answer, costs = await self._call(about, picture, kind, min(within_s, MOST_CALL_S))
            self._on_step("called")
            verdict = judge(answer, about)
            kept = Kept(verdict, asked_at, len(picture), costs.billed_ms, costs.usd)
            await self._in_thread(self._keep, kept)
            self._on_step("committed")
        except _AWAY:
            self.metrics.calls.labels("database").inc()
            raise
        self.metrics.calls.labels("answered").inc()
        self.metrics.total_s.observe(time.monotonic() - began_s)
        return costs

    def close(self) -> None:
        """End what is kept open; calls under way are the server's to end."""
        if self._function is not None:
            self._function.close()
        self._threads.shutdown(wait=False)

    # -- the store, in threads of our own --------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def _look_up(self, about: About) -> tuple[datetime, Costs | None]:
        with self._cursor() as cursor:
            found = serverless(cursor, about.device, about.run, about.seq)
        return found.now, Costs(found.billed_ms, found.usd) if found.known else None

    def _keep(self, kept: Kept) -> None:
        try:
            with self._cursor() as cursor:
                keep(cursor, [kept])
        except psycopg.DataError as error:
            raise _bad_reply(f"the store cannot hold it: {error}") from error

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[tuple[object, ...]]]:
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
            with connection.cursor() as cursor:
                yield cursor

    # -- the function ----------------------------------------------------------------------------------------------

    async def _call(self, about: About, picture: bytes, kind: str, within_s: float) -> tuple[Answer, Costs]:
        """Call the function; gives its answer with status 200. Raises `NoAnswer`."""
        if self._function is None:
            told, hint = "no function answers here", "start shelfwire-cloud serve with --function URL"
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise NoAnswer(status, "missing", "function-missing", told, hint, MOST_RETRY_AFTER_S)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                answer = await self._function.post(_headers(about, kind), picture)
        except TimeoutError:
            told, hint = f"no answer within {max(0.0, within_s):.1f} s", "try again, or leave the frame to the night"
            raise NoAnswer(HTTPStatus.GATEWAY_TIMEOUT, "timeout", "function-timeout", told, hint) from None
        except Retryable as error:
            away = error.code == "function-away"
            status = HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.BAD_GATEWAY
            outcome = {"function-away": "away", "function-lost": "lost"}.get(error.code, "reply")
            raise NoAnswer(status, outcome, error.code, str(error), error.hint, 5 if away else None) from error
        took_s = time.monotonic() - began_s
        self.metrics.call_s.observe(took_s)
        costs = read_costs(answer.headers)
        if answer.status == HTTPStatus.OK and costs.billed_ms is None:
            billed_ms = ceil(took_s * 1000)
            costs = Costs(billed_ms, price(MEMORY_MB, billed_ms))
        self.metrics.usd.inc(costs.usd or 0.0)
        self.metrics.billed_ms.inc(costs.billed_ms or 0)
        if answer.status != HTTPStatus.OK:
            raise explain(answer)
        return answer, costs


def judge(answer: Answer, about: About) -> Verdict:
    """Read what the function answered. What the cloud knows itself is taken from here and not from the function.

    Raises `NoAnswer` (``function-reply``).
    """
    try:
        verdict = Verdict.model_validate(strict.loads(answer.body, MOST_ANSWER_BYTES))
    except WireError as error:
        raise _bad_reply(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _bad_reply(f"{where or 'the answer'}: {first['msg']}") from None
    given = f"{verdict.device}/{verdict.run}/{verdict.seq}"
    if given != about.id:
        raise _bad_reply(f"it speaks of {given}, asked was {about.id}")
    if verdict.mode != "serverless":
        raise _bad_reply(f"its mode is {verdict.mode}")
    agrees = None if about.local_label is None else about.local_label == verdict.label
    own = {"camera": about.camera, "frame": about.frame, "captured_at": about.captured_at, "agrees": agrees}
    return verdict.model_copy(update=own)


def explain(answer: Answer) -> NoAnswer:
    """Say what a status other than 200 means for the device: its picture is wrong, or it may try again."""
    code, detail, hint = _problem(answer)
    status = answer.status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait_s = _retry_after_s(answer)
        return NoAnswer(HTTPStatus.TOO_MANY_REQUESTS, "throttled", code or "function-busy", detail, hint, wait_s)
    if status in _OF_PICTURE and code is not None and (code == "content-type" or code.startswith("picture-")):
        return NoAnswer(HTTPStatus(status), "picture", code, detail, hint)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and code is None:
        hint = "save it smaller or at a lower quality"
        return NoAnswer(HTTPStatus(status), "picture", "picture-too-large", "the function takes no such picture", hint)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return NoAnswer(HTTPStatus(status), "away", code or "function-away", detail, hint, _retry_after_s(answer))
    if status in (HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT):
        return NoAnswer(HTTPStatus.GATEWAY_TIMEOUT, "timeout", code or "function-timeout", detail, hint)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return NoAnswer(HTTPStatus.BAD_GATEWAY, "failed", code or "function-failed", detail, hint)
    hint = "see that --function names the function, and that this server may call it"
    return NoAnswer(HTTPStatus.BAD_GATEWAY, "refused", "function-refused", f"HTTP {status}: {detail}", hint)


def read_costs(headers: Mapping[str, str]) -> Costs:
    """Read what a call cost, where its platform says it."""
    billed, usd = headers.get(BILLED_MS, ""), headers.get(USD, "")
    try:
        price_usd = float(usd)
    except ValueError:
        price_usd = float("nan")
    return Costs(
        int(billed) if re.fullmatch(r"[0-9]{1,9}", billed) else None,
        price_usd if isfinite(price_usd) and 0 <= price_usd < 1000 else None,
    )


def _headers(about: About, kind: str) -> dict[str, str]:
    named = {
        FRAME: about.id,
        CAMERA: about.camera,
        NUMBER: str(about.frame),
        CAPTURED_AT: rfc3339(about.captured_at),
        "content-type": f"image/{kind}",
    }
    return named if about.local_label is None else {**named, LOCAL_LABEL: quote(about.local_label, safe="")}


def _problem(answer: Answer) -> tuple[str | None, str, str]:
    """Read code, detail and hint of a problem document; what is none of ours has no code."""
    hint = "try again; the function's log says more"
    try:
        said = json.loads(answer.body)
        code, detail = said["code"], said["detail"]
        if isinstance(code, str) and isinstance(detail, str) and _CODE.fullmatch(code):
            return code, detail[:300], str(said.get("hint") or hint)[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None, f"the function answered with HTTP {answer.status}", hint


def _retry_after_s(answer: Answer) -> int:
    told = answer.headers.get("retry-after", "")
    return min(max(int(told), 1), MOST_RETRY_AFTER_S) if re.fullmatch(r"[0-9]{1,6}", told) else 1


def _bad_reply(what: str) -> NoAnswer:
    return NoAnswer(
        HTTPStatus.BAD_GATEWAY, "reply", "function-reply", f"the function's answer is no verdict: {what}"[:300],
        "see that --function names the function, and of the same version",
    )  # fmt: skip
