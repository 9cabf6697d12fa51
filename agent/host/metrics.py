"""Prometheus metrics of the device's processes, on the loopback address only."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.errors import Rejected

ANSWER_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: a counter when `counter`, else a gauge, with at most one label."""

    name: str
    text: str
    value: float
    counter: bool = False
    label: tuple[str, str] | None = None


class _Collector(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for sample in self._read():
            labels = [sample.label[0]] if sample.label else []
            kind = CounterMetricFamily if sample.counter else GaugeMetricFamily
            family = families.setdefault(sample.name, kind(sample.name, sample.text, labels=labels))
            family.add_metric([sample.label[1]] if sample.label else [], sample.value)  # type: ignore[attr-defined]
        return families.values()


class Metrics:
    """What one process tells Prometheus; nothing listens when `port` is 0."""

    def __init__(self, port: int, read: Callable[[], Iterable[Sample]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(read))
        self._answers = Histogram(
            "shelfwire_capture_to_answer_seconds",
            "From the capture of a frame to its decision.",
            ["camera"],
            buckets=ANSWER_BUCKETS_S,
            registry=self._registry,
        )
        self._of_camera: dict[str, Histogram] = {}
        self._server = None
        if port:
            try:
                self._server, _ = start_http_server(port, "127.0.0.1", self._registry)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise Rejected(
                    "port-in-use", f"port {port} for metrics is in use", "name a free port in the [metrics] section"
                ) from None

    def answered(self, camera: str, total_ms: float) -> None:
        """Note how long one answer took."""
        answers = self._of_camera.get(camera)
        if answers is None:  # kept, for looking it up takes the library three times as long as noting
            answers = self._of_camera[camera] = self._answers.labels(camera)
        answers.observe(total_ms / 1000)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
