"""How the four ways do, as the API tells it: over real HTTP on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from web_shop import Served, Shop

from cloud.web import modes, shapes


def figures(served: Served, window_s: int = 900) -> dict[str, shapes.ModeFigures]:
    answer = httpx.get(f"{served.url}/api/v1/modes", params={"window_s": window_s}, timeout=10)
    answer.raise_for_status()
    told = shapes.Modes.model_validate_json(answer.content)
    assert [one.mode for one in told.modes] == ["real-time", "serverless", "asynchronous", "batch"]
    return {one.mode: one for one in told.modes}


def test_a_store_without_answers_has_figures_too(served: Served) -> None:
    for one in figures(served).values():
        assert (one.answers, one.latency_ms.p50, one.newest_at, one.usd, one.agreement) == (0, None, None, None, None)
        assert one.cure
        assert {rate.per_minute for rate in one.rates} == {0}


def test_each_way_is_measured_from_the_capture(served: Served, shop: Shop) -> None:
    for n in range(1, 101):
        shop.answer("shop-1", "shelf", ("Banana", 0.9), age_s=10 + n, total_ms=float(n))
    for n in range(20):
        shop.late("shop-1", "shelf", ("Lime", 0.9), age_s=30, late_s=1 + n / 10, agrees=n % 4 != 0, usd=2e-6,
                  picture_bytes=50_000 + n)  # fmt: skip
    shop.late("shop-1", "shelf", ("Lime", 0.9), mode="batch", age_s=5000, late_s=30_000)
    told = figures(served)
    local, function, night = told["real-time"], told["serverless"], told["batch"]
    assert (local.answers, local.bounded, local.latency_ms.n) == (100, False, 100)
    assert (local.latency_ms.p50, local.latency_ms.p95, local.latency_ms.p99) == (50, 95, 99)
    assert local.bytes_per_answer is not None
    assert 350 < local.bytes_per_answer < 700
    assert function.answers == function.priced == function.compared == 20
    assert function.latency_ms.p50 == pytest.approx(1950, abs=2)
    assert function.agreement == 0.75
    assert function.usd == pytest.approx(40e-6)
    assert function.usd_per_1000 == pytest.approx(2e-3)
    assert function.bytes_per_answer == pytest.approx(50_009.5)
    assert sum(rate.per_minute for rate in function.rates) * 20 / 60 == pytest.approx(20)
    assert (told["asynchronous"].newest_at, night.answers) == (None, 0)
    assert night.newest_at is not None, "what came before the window is still told"
    assert figures(served, 86_400)["batch"].latency_ms.p50 == pytest.approx(30e6)
    for wrong in ("59", "604801", "x"):
        answer = httpx.get(f"{served.url}/api/v1/modes?window_s={wrong}")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-parameter")


def test_many_local_answers_are_estimated_from_samples(
    served: Served, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("cloud.store.modes.LOCAL_ROWS", 0)
    for name, every_s, run in (("busy", 0.1, "00000000000000b0"), ("calm", 2.0, "00000000000000ca")):
        shop.answer("shop-1", name, ("Banana", 0.9), run=run)
        shop.execute(
            """INSERT INTO result SELECT device, run, seq + g, camera, seq + g, now() - make_interval(secs => g * %s),
                 now(), dated_by, boot_ns, label, score, state, changed, reason, labels, model_name, model_version,
                 model_release, model_digest, runtime, mode, waiting_ms, inference_ms, %s, truth, received_at, content
               FROM result, generate_series(1, (600 / %s)::int) g WHERE camera = %s""",
            every_s, 10 if name == "busy" else 1000, every_s, name,
        )  # fmt: skip
    local = figures(served)["real-time"]
    assert local.bounded
    assert local.answers == pytest.approx(6300, rel=0.02)
    assert local.latency_ms.n < 2500
    assert local.latency_ms.p50 == 10
    assert local.latency_ms.p99 == 1000, "a rare camera weighs what it is, though all of its answers were looked at"


def test_bins_begin_where_a_clock_would_and_reach_to_now() -> None:
    now = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)
    quarter = modes.bins_of(900, now)
    assert (quarter.bin_s, quarter.count, quarter.since) == (20, 45, now.replace(hour=11, minute=45, second=20))
    for window_s in (60, 900, 3601, 86_400, 604_800):
        bins = modes.bins_of(window_s, now)
        assert bins.count <= modes.BINS
        end = bins.since + timedelta(seconds=bins.bin_s * bins.count)
        assert now < end <= now + timedelta(seconds=bins.bin_s)
    assert modes.kept_s(900) < 5 <= modes.kept_s(86_400) <= 60
