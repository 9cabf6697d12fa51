"""The bill: rounded and priced as AWS Lambda does."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud.function.meter import MOST_REPORTS, Meter, Outcome, Report


def report(
    duration_ms: float, init_ms: float | None = None, memory_mb: int = 1024, outcome: Outcome = "answered"
) -> Report:
    return Report("8476a536-e9f4-11e8-9739-2dfe598c3fcd", outcome, duration_ms, init_ms, memory_mb, 100)


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed_ms"),
    [(10.0, None, 10), (10.01, None, 11), (0.2, None, 1), (10.4, 500.2, 511), (10.5, 500.5, 511), (0.0, None, 0)],
)
def test_start_and_duration_are_billed_together_in_whole_milliseconds(
    duration_ms: float, init_ms: float | None, billed_ms: int
) -> None:
    assert report(duration_ms, init_ms).billed_ms == billed_ms


def test_a_million_calls_cost_what_the_price_list_says() -> None:
    """100 ms at 512 MB: a million are 50,000 GB-s for 0.83 USD, and the requests themselves for 0.20 USD."""
    call = report(100.0, memory_mb=512)
    assert call.gb_s == pytest.approx(0.05)
    assert call.usd * 1_000_000 == pytest.approx(0.05 * 16.6667 + 0.20)


def test_the_line_is_the_one_of_lambda() -> None:
    assert report(12.25, 300.5).line().split("\t") == [
        "REPORT RequestId: 8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        "Duration: 12.25 ms",
        "Billed Duration: 313 ms",
        "Memory Size: 1024 MB",
        "Max Memory Used: 100 MB",
        "Init Duration: 300.50 ms",
    ]
    assert report(1000.0, outcome="timeout").line().endswith("\tStatus: timeout")
    assert report(1.0, outcome="crashed").line().endswith("\tStatus: error")


def test_sums_calls_and_metrics_agree() -> None:
    meter = Meter()
    meter.add(report(10.0, 500.0))
    meter.add(report(5.5))
    meter.add(report(1.0, outcome="error"))
    meter.add(report(100.0, outcome="timeout"))
    meter.add(report(0.0, 400.0, outcome="init-error"))
    meter.add(report(0.0, 300.0, outcome="unused"))
    meter.throttled()
    shown = meter.shown()
    calls = shown["calls"]
    assert isinstance(calls, list)
    expected = {"invocations": 5, "cold_starts": 3, "errors": 2, "timeouts": 1, "throttles": 1, "billed_ms": 1317}
    assert {name: shown[name] for name in expected} == expected
    assert shown["billed_ms"] == sum(call["billed_ms"] for call in calls)
    assert shown["usd"] == pytest.approx(sum(call["usd"] for call in calls))
    assert shown["gb_seconds"] == pytest.approx(1.317)
    metrics = {
        sample.name: sample.value
        for family in text_string_to_metric_families(meter.prometheus().decode())
        for sample in family.samples
    }
    for name, value in expected.items():
        assert metrics[f"shelfwire_function_{name}_total"] == value
    assert metrics["shelfwire_function_duration_seconds_count"] == 5


def test_only_the_last_calls_are_kept() -> None:
    meter = Meter()
    for number in range(MOST_REPORTS + 50):
        meter.add(report(float(number + 1)))
    calls = meter.shown()["calls"]
    assert isinstance(calls, list)
    assert len(calls) == MOST_REPORTS
    assert calls[0]["duration_ms"] == MOST_REPORTS + 50
    assert meter.shown()["invocations"] == MOST_REPORTS + 50
