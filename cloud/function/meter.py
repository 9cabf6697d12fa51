"""Counts and prices calls as AWS Lambda bills them."""

from collections import deque
from dataclasses import asdict, dataclass
from math import ceil
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

USD_PER_GB_S = 0.0000166667
USD_PER_REQUEST = 0.20 / 1_000_000
"""List prices in US East (N. Virginia), x86, first tier, without the free tier, as known in November 2026:
https://aws.amazon.com/lambda/pricing/ (the page fills in the first by script; look there before you rely on it).
The start has been billed like the call itself since August 2025."""

BILLED_MS, USD = "x-shelfwire-billed-ms", "x-shelfwire-usd"
"""Headers of an answer that say what its call cost."""

MOST_REPORTS = 100

Outcome = Literal["answered", "error", "crashed", "timeout", "init-error", "unused"]


def gb_seconds(memory_mb: int, billed_ms: int) -> float:
    """Multiply memory and time as they are billed."""
    return memory_mb / 1024 * billed_ms / 1000


def price(memory_mb: int, billed_ms: int) -> float:
    """Price a call in USD."""
    return gb_seconds(memory_mb, billed_ms) * USD_PER_GB_S + USD_PER_REQUEST


@dataclass(frozen=True, slots=True)
class Report:
    """One invocation and its price.

    `init_ms` is there when a worker was started for it. `unused` is a worker whose start no call has paid for.
    """

    request_id: str
    outcome: Outcome
    duration_ms: float
    init_ms: float | None
    memory_mb: int
    used_mb: int

    @property
    def billed_ms(self) -> int:
        """Start and duration together, rounded up to a whole millisecond."""
        return ceil(round(self.duration_ms + (self.init_ms or 0.0), 6))

    @property
    def gb_s(self) -> float:
        """Configured memory times billed time."""
        return gb_seconds(self.memory_mb, self.billed_ms)

    @property
    def usd(self) -> float:
        """Price of the call; a start that no call has used is no request."""
        return self.gb_s * USD_PER_GB_S if self.outcome == "unused" else price(self.memory_mb, self.billed_ms)

    def line(self) -> str:
        """Write it as Lambda writes into its log."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_ms} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.used_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.outcome not in ("answered", "unused"):
            parts.append(f"Status: {'timeout' if self.outcome == 'timeout' else 'error'}")
        return "\t".join(parts)

    def shown(self) -> dict[str, object]:
        """All of it for JSON."""
        return {**asdict(self), "billed_ms": self.billed_ms, "gb_s": self.gb_s, "usd": self.usd}


class Meter:
    """The sums since the start, and the last calls."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = {
            "invocations": "Calls given to a worker",
            "cold_starts": "Workers started",
            "errors": "Calls that raised, crashed, or found no worker that starts",
            "timeouts": "Calls that took too long",
            "throttles": "Calls refused because all workers were busy",
            "billed_ms": "Billed milliseconds",
            "gb_seconds": "Billed memory times time",
            "usd": "Cost by the list price of AWS Lambda",
        }
        self._counters = {
            name: Counter(f"shelfwire_function_{name}", text, registry=self.registry) for name, text in names.items()
        }
        self._duration_s = Histogram(
            "shelfwire_function_duration_seconds",
            "Time of a call in its worker",
            registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self._sums = dict.fromkeys(names, 0.0)
        self._reports: deque[Report] = deque(maxlen=MOST_REPORTS)

    def throttled(self) -> None:
        """Count a refused call; it costs nothing."""
        self._add("throttles", 1)

    def add(self, report: Report) -> None:
        """Count one invocation."""
        self._reports.append(report)
        if report.outcome != "unused":
            self._add("invocations", 1)
            self._duration_s.observe(report.duration_ms / 1000)
        self._add("cold_starts", report.init_ms is not None)
        self._add("errors", report.outcome in ("error", "crashed", "init-error"))
        self._add("timeouts", report.outcome == "timeout")
        self._add("billed_ms", report.billed_ms)
        self._add("gb_seconds", report.gb_s)
        self._add("usd", report.usd)

    def _add(self, name: str, value: float) -> None:
        self._sums[name] += value
        self._counters[name].inc(value)

    def shown(self) -> dict[str, object]:
        """All of it for JSON: sums, prices, and the last calls, newest first."""
        sums = {name: value if name in ("gb_seconds", "usd") else int(value) for name, value in self._sums.items()}
        prices = {"usd_per_gb_s": USD_PER_GB_S, "usd_per_request": USD_PER_REQUEST}
        return {**sums, "prices": prices, "calls": [report.shown() for report in reversed(self._reports)]}

    def prometheus(self) -> bytes:
        """All sums as Prometheus text."""
        return generate_latest(self.registry)
