"""Workers that come when there are calls and go when there are none, each with one call at a time.

    starting -> idle <-> busy -> (asks for its next call) idle ...       any -> gone

A call goes to the worker that was idle last, so that the others may go. With none idle, workers are started, up to
the limit; at the limit a call waits a moment for one to become free. All of it runs in one event loop.
"""

import asyncio
import enum
import logging
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloud.errors import CloudError, Retryable
from cloud.function import runtime_api
from cloud.function.meter import Meter, Outcome, Report
from cloud.function.runtime_api import Invocation

log = logging.getLogger(__name__)

INIT_S = 10.0
"""A worker that has not asked for its first call by then is killed, as on Lambda."""
RETURN_S = 2.0
"""How long a worker may take to ask for its next call."""
WAIT_S = 0.25
"""How long a call waits for a worker to become free when no more may be started."""
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
KEPT_PREFIXES = ("PYTHON", "LC_", "SHELFWIRE_")
"""What a worker sees of the host's environment. All else stays here: passwords are none of the function's business."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the function is run."""

    concurrency: int = 4
    idle_s: float = 30.0
    timeout_s: float = 10.0
    memory_mb: int = 1024
    """For the bill alone: nothing keeps a worker from using more."""
    entry: str = "cloud.function.aws.lambda_handler"


class Throttled(Retryable):
    """All workers are busy, or the host stops."""


class Failed(CloudError):
    """The call has no answer. `outcome` says why; `detail` is what the function itself said, JSON, or nothing.

    `report` says what it cost all the same.
    """

    def __init__(self, outcome: Outcome, code: str, message: str, hint: str, detail: bytes = b"") -> None:
        super().__init__(code, message, hint)
        self.outcome = outcome
        self.detail = detail
        self.report: Report | None = None


class State(enum.StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETURNING = "returning"
    GONE = "gone"


def _looked_at(future: "asyncio.Future[bytes] | asyncio.Future[Worker]") -> None:
    """Nobody may be left to see an error: the caller has gone, or the host stops."""
    if not future.cancelled():
        future.exception()


@dataclass(slots=True, eq=False)
class Call:
    """A call on its way. `started` is set by a worker that takes it, `answer` by what became of it."""

    event: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: "asyncio.Future[Worker]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    answer: "asyncio.Future[bytes]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    began_s: float = 0.0
    init_ms: float | None = None
    report: Report | None = None

    def __post_init__(self) -> None:
        self.started.add_done_callback(_looked_at)
        self.answer.add_done_callback(_looked_at)


@dataclass(frozen=True, slots=True)
class Answered:
    """What the function gave back, JSON, and what the call cost."""

    body: bytes
    report: Report


class Worker:
    """One process, seen from its Runtime API (`runtime_api.Desk`)."""

    def __init__(self, pool: "Pool", number: int) -> None:
        self._pool = pool
        self.number = number
        self.state = State.STARTING
        self.born_s = time.monotonic()
        self.init_ms: float | None = None
        """How long the start took, until a call has paid for it."""
        self.call: Call | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.last_words = b""
        self._offer: asyncio.Future[Call | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.killed = False
        self.kill_after(INIT_S, f"it did not start within {INIT_S:g} s")

    def kill_after(self, delay_s: float, reason: str) -> None:
        """Kill it unless it moves on in time."""
        self.moved()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.kill, reason)

    def moved(self) -> None:
        """Stop the clock that would kill it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def kill(self, reason: str) -> None:
        """End the process; what it leaves behind is put right when it is gone."""
        self.moved()
        self.killed = True
        self._pool.forget(self)
        if self.state is State.STARTING:
            self.last_words = reason.encode()
        if self.process is not None and self.process.returncode is None:
            level = logging.DEBUG if reason == "idle" else logging.INFO
            log.log(level, "worker %d is stopped: %s", self.number, reason)
            self.process.kill()

    def give(self, call: Call) -> None:
        """Hand it a call; it must be idle."""
        assert self._offer is not None
        self.moved()
        self.state, self.call, call.began_s = State.BUSY, call, time.monotonic()
        call.init_ms, self.init_ms = self.init_ms, None
        self._offer.set_result(call)
        call.started.set_result(self)

    def gone(self) -> None:
        """Let go of what waits for it."""
        self.moved()
        self.state = State.GONE
        if self._offer is not None and not self._offer.done():
            self._offer.set_result(None)

    async def next(self) -> Invocation | None:
        """See `runtime_api.Desk`."""
        if self.killed or self.state not in (State.STARTING, State.RETURNING):
            return None
        if self.state is State.STARTING:
            self.init_ms = (time.monotonic() - self.born_s) * 1000
        self.state = State.IDLE
        self._offer = asyncio.get_running_loop().create_future()
        self.kill_after(self._pool.options.idle_s, "idle")
        self._pool.match(self)
        call = await self._offer
        if call is None:
            return None
        deadline_ms = int((time.time() + self._pool.options.timeout_s) * 1000)
        return Invocation(call.request_id, call.event, deadline_ms, self._pool.arn)

    def answered(self, request_id: str, body: bytes) -> bool:
        """See `runtime_api.Desk`."""
        call = self._finish(request_id)
        if call is not None:
            self._pool.report(self, call, "answered")
            call.answer.set_result(body)
        return call is not None

    def failed(self, request_id: str, body: bytes) -> bool:
        """See `runtime_api.Desk`."""
        call = self._finish(request_id)
        if call is not None:
            self._pool.report(self, call, "error")
            call.answer.set_exception(
                Failed("error", "function-failed", "the function raised an error", "see the host's log", body)
            )
        return call is not None

    def init_failed(self, body: bytes) -> None:
        """See `runtime_api.Desk`."""
        self.last_words = body

    def _finish(self, request_id: str) -> Call | None:
        call = self.call
        if call is None or call.request_id != request_id or call.answer.done():
            return None
        self.call = None
        self.state = State.RETURNING
        self.kill_after(RETURN_S, "it did not ask for its next call")
        return call

    def used_mb(self) -> int:
        """The most memory that it has had (VmHWM of proc_pid_status(5)); 0 when it is gone."""
        try:
            status = Path(f"/proc/{self.process.pid if self.process else 0}/status").read_text("ascii", "replace")
        except OSError:
            return 0
        return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


class Pool:
    """The workers and the calls that wait for them."""

    def __init__(self, options: Options, meter: Meter, environment: Mapping[str, str] = os.environ) -> None:
        self.options = options
        self.meter = meter
        self.arn = "arn:aws:lambda:local:000000000000:function:shelfwire"
        self.workers: dict[int, Worker] = {}
        self._environment = environment
        self._numbers = 0
        self._idle: list[Worker] = []
        self._waiting: deque[Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def invoke(self, event: bytes) -> Answered:
        """Give one event, JSON, to a worker. Raises `Throttled` and `Failed`."""
        if self._stopping:
            raise _stopping()
        call = Call(event)
        self._waiting.append(call)
        self.match()
        try:
            await self._start(call)
            body = await self._answer(call)
        except Failed as error:
            error.report = call.report
            raise
        assert call.report is not None
        return Answered(body, call.report)

    async def _start(self, call: Call) -> None:
        """Wait until a worker has taken the call. One that is starting for it is waited for."""
        try:
            for patience_s in (WAIT_S, INIT_S + WAIT_S):
                await asyncio.wait((call.started,), timeout=patience_s)
                if call.started.done() or self._waiting.index(call) >= self._count(State.STARTING):
                    break
        finally:
            if call in self._waiting:
                self._waiting.remove(call)
        if not call.started.done():
            self.meter.throttled()
            raise Throttled(
                "function-busy",
                f"all {self.options.concurrency} workers are busy",
                "try again after the time in Retry-After, or raise --concurrency",
            )

    async def _answer(self, call: Call) -> bytes:
        worker = await call.started
        try:
            async with asyncio.timeout(self.options.timeout_s - (time.monotonic() - call.began_s)):
                return await asyncio.shield(call.answer)
        except TimeoutError:
            if call.answer.done():  # in the very last moment
                return await call.answer
            worker.call = None
            worker.kill("its call took too long")
            self.report(worker, call, "timeout")
            raise Failed(
                "timeout",
                "function-timeout",
                f"the function took longer than {self.options.timeout_s:g} s",
                "try again, or raise --timeout",
            ) from None

    def match(self, ready: Worker | None = None) -> None:
        """Bring calls and workers together, and start workers when there are too few."""
        if ready is not None:
            self._idle.append(ready)
        while self._waiting and self._idle:
            self._idle.pop().give(self._waiting.popleft())
        while (
            not self._stopping
            and len(self._waiting) > self._count(State.STARTING) + self._count(State.RETURNING)
            and len(self.workers) < self.options.concurrency
        ):
            self._spawn()

    def forget(self, worker: Worker) -> None:
        """Give it no calls any more."""
        if worker in self._idle:
            self._idle.remove(worker)

    def _count(self, state: State) -> int:
        return sum(worker.state is state for worker in self.workers.values())

    def report(self, worker: Worker, call: Call, outcome: Outcome) -> None:
        """Count a call that has ended, and log it."""
        duration_ms = (time.monotonic() - call.began_s) * 1000
        if outcome == "timeout":
            duration_ms = self.options.timeout_s * 1000
        call.report = self._report(call.request_id, outcome, duration_ms, call.init_ms, worker.used_mb())

    def _report(self, name: str, outcome: Outcome, duration_ms: float, init_ms: float | None, used_mb: int) -> Report:
        report = Report(name, outcome, duration_ms, init_ms, self.options.memory_mb, used_mb)
        self.meter.add(report)
        log.info("%s", report.line())
        return report

    def _spawn(self) -> None:
        self._numbers += 1
        worker = Worker(self, self._numbers)
        self.workers[worker.number] = worker
        task = asyncio.create_task(self._live(worker), name=f"worker-{worker.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, worker: Worker) -> None:
        """A worker's life, from its start until it is put away."""
        server: asyncio.Server | None = None
        try:
            server, port = await runtime_api.listen(worker)
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cloud.function.worker", self.options.entry,
                env=self._variables(worker, port), stdin=asyncio.subprocess.DEVNULL, stdout=2,
            )  # fmt: skip
            if self._stopping or worker.killed:
                worker.kill("it was stopped before it ran")
            await worker.process.wait()
        except OSError as error:
            worker.last_words = str(error).encode()
        finally:
            if server is not None:
                server.close()
            self._bury(worker)

    def _variables(self, worker: Worker, port: int) -> dict[str, str]:
        kept = {k: v for k, v in self._environment.items() if k in KEPT_VARIABLES or k.startswith(KEPT_PREFIXES)}
        return kept | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": "shelfwire",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.options.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/shelfwire",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"worker-{worker.number}",
            "SHELFWIRE_HOST_PID": str(os.getpid()),
            "OMP_NUM_THREADS": "1",  # threads that only cost time: one worker computes on one core
            "OPENBLAS_NUM_THREADS": "1",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",  # looking for them reads every installed package
        }

    def _bury(self, worker: Worker) -> None:
        """Put right what a worker has left behind."""
        before = worker.state
        worker.gone()
        del self.workers[worker.number]
        self.forget(worker)
        if (call := worker.call) is not None and not call.answer.done():
            self.report(worker, call, "crashed")
            died = Failed("crashed", "function-crashed", "the worker died in the middle of the call", "try again")
            call.answer.set_exception(_stopping() if self._stopping else died)
        if before is State.STARTING and not self._stopping:
            self._start_failed(worker)
        elif worker.init_ms is not None:
            self._report("-", "unused", 0.0, worker.init_ms, 0)
        self.match()

    def _start_failed(self, worker: Worker) -> None:
        """Fail the oldest waiting call: a function that cannot start must not be started for ever."""
        init_ms = (time.monotonic() - worker.born_s) * 1000
        said = worker.last_words.decode("utf-8", "replace")[:500] or "it said nothing"
        log.error("worker %d did not start: %s", worker.number, said)
        if not self._waiting:  # whoever it was started for was served by another, or has gone: no call has failed
            self._report("-", "unused", 0.0, init_ms, 0)
            return
        call = self._waiting.popleft()
        call.report = self._report(call.request_id, "init-error", 0.0, init_ms, 0)
        call.started.set_exception(
            Failed("init-error", "function-init", f"the function does not start: {said}", "see the host's log")
        )

    async def stop(self, drain_s: float = 0.0) -> None:
        """Take no calls any more, give those under way `drain_s`, and end all workers."""
        self._stopping = True
        deadline_s = time.monotonic() + drain_s
        while (under_way := self._under_way()) and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(under_way, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        while self._waiting:
            self._waiting.popleft().started.set_exception(_stopping())
        for worker in list(self.workers.values()):
            worker.kill("the host stops")
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _under_way(self) -> list[asyncio.Future[bytes]]:
        """Answers that are still to come, of calls that a worker has."""
        calls = [worker.call for worker in self.workers.values() if worker.call is not None]
        return [call.answer for call in calls if not call.answer.done()]


def _stopping() -> Throttled:
    return Throttled("function-stopping", "the function host is stopping", "try again shortly")
