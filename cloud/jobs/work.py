"""The worker: takes tasks from the queue, runs them, and takes over what a killed worker has left.

A task may run more than once; what it changes it changes once. A run holds a token (the count of attempts), writes
its outcome only while it still holds it, and puts the notices into the queue in that same transaction.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import procrastinate
import psycopg
from procrastinate import jobs as queue_jobs
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout

from cloud.errors import CloudError, Rejected, Retryable
from cloud.jobs import notices
from cloud.jobs.look import Lookers
from cloud.jobs.rows import CLASSIFY, NOTIFY, QUEUE, Fault, Jobs

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 4
"""Runs of a job before it is buried, those that a kill has ended included."""
MOST_TRIES = 8
"""Attempts of a notice; with RETRY_BASE_S the last comes after about an hour and a half."""
RETRY_BASE_S = 2.0
RETRY_MOST_S = 3600.0
SWEEP_EVERY_S = 600.0
RECONNECT_MOST_S = 5.0
AWAY = (psycopg.Error, PoolTimeout, ConnectorException, OSError)


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker works. A worker silent for `stalled_after_s` has its tasks taken over."""

    concurrency: int = 1
    stalled_after_s: float = 30.0
    retry_base_s: float = RETRY_BASE_S
    keep_pictures_s: float = 7 * 86_400.0
    keep_jobs_s: float = 90 * 86_400.0


class Again(Exception):
    """Ends a task that is to run again after a while."""

    def __init__(self, in_s: float) -> None:
        super().__init__(f"again in {in_s:.1f} s")
        self.in_s = in_s


class _AsAsked(procrastinate.BaseRetryStrategy):
    """Runs a task again when it asks for it, and after any fault: the rows count the attempts and set the ceiling."""

    def get_retry_decision(self, *, exception: BaseException, job: queue_jobs.Job) -> procrastinate.RetryDecision:
        """When to run the task again."""
        in_s = exception.in_s if isinstance(exception, Again) else min(60.0, 2.0 ** min(6, 1 + job.attempts))
        return procrastinate.RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=in_s))


class Work:
    """The two tasks. Thread safe; each call is one run."""

    def __init__(self, jobs: Jobs, lookers: Lookers, ways: notices.Ways, rng: random.Random, base_s: float) -> None:
        self._jobs = jobs
        self._lookers = lookers
        self._ways = ways
        self._random = rng
        self._base_s = base_s

    def classify(self, job: str) -> None:
        """Run a job once. Raises `Again`."""
        row = self._jobs.start(UUID(job))
        if row is None:
            return
        if row.attempts > MOST_ATTEMPTS:
            fault = Fault(
                row.error_code or "job-killed",
                row.error_detail or f"{MOST_ATTEMPTS} runs were killed before they had finished",
                row.error_hint or "see the workers' log and the memory of their machine, then send the picture again",
            )
            self._jobs.stop(row.id, row.attempts, "bury", fault)
            return
        picture = self._jobs.picture(row.id)
        if picture is None:
            fault = Fault("picture-gone", "the picture is not kept any more", "send it again")
            self._jobs.stop(row.id, row.attempts, "bury", fault)
            return
        try:
            found = self._lookers.look(picture)
        except Retryable as error:
            fault = Fault(error.code, str(error), error.hint)
            last = row.attempts >= MOST_ATTEMPTS
            log.warning("job %s, attempt %d: %s", row.id, row.attempts, error)
            self._jobs.stop(row.id, row.attempts, "bury" if last else "postpone", fault)
            if not last:
                raise Again(self._backoff_s(row.attempts)) from error
            return
        if isinstance(found, Fault):
            self._jobs.stop(row.id, row.attempts, "refuse", found)
            return
        self._jobs.finish(row.id, row.attempts, found)

    def notify(self, notice: str) -> None:
        """Try a notice once. Raises `Again`."""
        tried = self._jobs.start_notice(UUID(notice))
        if tried is None:
            return
        job = self._jobs.find(tried.job)
        if job is None:
            return
        began_s = time.monotonic()
        try:
            if tried.attempt > MOST_TRIES:
                raise Rejected("notice-killed", "the attempts before were killed", "see the workers' log")
            into, (code, detail) = "sent", notices.send(tried, job, self._ways)
        except Retryable as error:
            into, code, detail = "waiting" if tried.attempt < MOST_TRIES else "dead", error.code, _told(error)
        except Rejected as error:
            into, code, detail = "dead", error.code, _told(error)
        self._jobs.end_notice(tried, into, code, detail, (time.monotonic() - began_s) * 1000)
        if into == "waiting":
            raise Again(self._backoff_s(tried.attempt))

    def _backoff_s(self, attempt: int) -> float:
        """Four times longer after each attempt, up to a ceiling, and half of it left to chance."""
        return float(min(RETRY_MOST_S, self._base_s * 4.0 ** (attempt - 1)) * self._random.uniform(0.5, 1.0))


class Worker:
    """Runs tasks until `stop()` is true; outlives its database."""

    def __init__(self, dsn: str, jobs: Jobs, work: Work, options: Options, stop: Callable[[], bool]) -> None:
        self._dsn = dsn
        self._jobs = jobs
        self._work = work
        self._options = options
        self._stop = stop

    def run(self, rng: random.Random, on_ready: Callable[[], None]) -> None:
        """Work until the stop; what runs then is finished first. `on_ready` is called once."""
        asyncio.run(self._run(rng, on_ready))

    async def _run(self, rng: random.Random, on_ready: Callable[[], None]) -> None:
        on_ready()
        pauses = 0
        while not self._stop():
            began_s = time.monotonic()
            try:
                await self._run_once()
            except* AWAY as error:
                log.warning("the queue is away: %s", " ".join(str(error.exceptions[0]).split()))
            if self._stop():
                return
            pauses = 1 if time.monotonic() - began_s > 30.0 else min(pauses + 1, 6)
            await self._pause(rng.uniform(0, min(RECONNECT_MOST_S, 0.2 * 2**pauses)))

    async def _run_once(self) -> None:
        """Work on one connection to the queue, until that breaks or the stop."""
        app = self._app()
        async with app.open_async():
            running = asyncio.create_task(
                app.run_worker_async(
                    queues=[QUEUE],
                    concurrency=self._options.concurrency,
                    install_signal_handlers=False,
                    delete_jobs=queue_jobs.DeleteJobCondition.ALWAYS,
                    update_heartbeat_interval=self._options.stalled_after_s / 3,
                    stalled_worker_timeout=self._options.stalled_after_s,
                    fetch_job_polling_interval=2.0,
                ),
                name="worker-queue",
            )
            ways = {
                running,
                asyncio.create_task(self._take_over(app), name="worker-take-over"),
                asyncio.create_task(self._sweep(), name="worker-sweep"),
                asyncio.create_task(self._until_stop(), name="worker-stop"),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                ended = await asyncio.gather(*ways, return_exceptions=True)
            faults = [end for end in ended if isinstance(end, Exception)]
            if faults:
                raise ExceptionGroup("the worker's loop ended", faults)

    def _app(self) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(
            conninfo=self._dsn, min_size=1, max_size=4, timeout=5.0,
            kwargs={"connect_timeout": 5, "application_name": "shelfwire-worker"},
        )  # fmt: skip
        app = procrastinate.App(connector=connector)
        app.task(name=CLASSIFY, queue=QUEUE, retry=_AsAsked())(self._work.classify)
        app.task(name=NOTIFY, queue=QUEUE, retry=_AsAsked())(self._work.notify)
        return app

    async def _take_over(self, app: procrastinate.App) -> None:
        """Put tasks whose worker has died back into the queue."""
        while True:
            stalled = await app.job_manager.get_stalled_jobs(
                queue=QUEUE, seconds_since_heartbeat=self._options.stalled_after_s
            )
            for task in stalled:
                log.warning("taking over %s: its worker is gone", task.call_string)
                await app.job_manager.retry_job(task)
            await asyncio.sleep(max(0.5, self._options.stalled_after_s / 3))

    async def _sweep(self) -> None:
        """Delete what is older than it is to be kept."""
        while True:
            kept = self._options.keep_pictures_s, self._options.keep_jobs_s
            pictures, jobs = await asyncio.to_thread(self._jobs.forget, *kept)
            if pictures or jobs:
                log.info("deleted %d old pictures and %d old jobs", pictures, jobs)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _until_stop(self) -> None:
        while not self._stop():
            await asyncio.sleep(0.1)

    async def _pause(self, length_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until_stop(), length_s)


def _told(error: CloudError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
