"""The Modes page: the four ways to an answer side by side, from what they did in the last minutes, hours or days."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from cloud.store.modes import Bins, Flow, ModesReader
from cloud.web import live, pages, problems, shapes, words
from cloud.web.parts import Shared

WINDOWS_S = {900: "15 minutes", 86_400: "24 hours", 604_800: "7 days"}
"""What the page offers; the API takes any length between."""

BINS = 48
"""A plot of about so many bins shows a change and is still read at a glance on a phone."""

BIN_LENGTHS_S = (5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
"""A bin begins where a clock would, so that it stays what it is while the time goes on."""

MOST_KEPT = 8


def bins_of(window_s: int, now: datetime) -> Bins:
    """Cut the time that ends now into bins of a round length; the last one is not over yet."""
    bin_s = next((length for length in BIN_LENGTHS_S if length * BINS >= window_s), BIN_LENGTHS_S[-1])
    count = math.ceil(window_s / bin_s)
    end = math.floor(now.timestamp() / bin_s) + 1
    return Bins(datetime.fromtimestamp((end - count) * bin_s, UTC), float(bin_s), count)


def kept_s(window_s: int) -> float:
    """Seconds for which an overview is shown again: no more often than a pixel of it may change, at most a minute."""
    return min(60.0, max(3.0, window_s / 600))


class Overview:
    """Reads the overview when it is asked for, once for all who look at the same time. Thread safe."""

    def __init__(self, reader: ModesReader, now: Callable[[], datetime]) -> None:
        self._reader = reader
        self._now = now
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, shapes.Modes] = OrderedDict()

    def of(self, window_s: int) -> shapes.Modes:
        """Give the overview of the last seconds. Raises what `ModesReader` raises."""
        with self._lock:
            now = self._now()
            kept = self._kept.get(window_s)
            if kept is not None and timedelta() <= now - kept.now < timedelta(seconds=kept_s(window_s)):
                return kept
            made = self._read(window_s, now)
            self._kept[window_s] = made
            self._kept.move_to_end(window_s)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return made

    def _read(self, window_s: int, now: datetime) -> shapes.Modes:
        bins = bins_of(window_s, now)
        newest = self._reader.newest()
        made = []
        for mode in words.MODES:
            if mode == "real-time":
                flow = self._reader.local(bins, self._reader.cameras())
                weight = self._reader.record_bytes(bins.since)
            else:
                flow = self._reader.late(mode, bins)
                weight = flow.bytes_per_answer
            made.append(figures(mode, flow, bins, newest.get(mode), weight, now))
        return shapes.Modes(now=now, since=bins.since, window_s=window_s, bin_s=bins.bin_s, modes=made)


def figures(
    mode: words.Mode, flow: Flow, bins: Bins, newest: datetime | None, weight: float | None, now: datetime
) -> shapes.ModeFigures:
    """Put one way's figures together. `weight` is the mean of the bytes on the wire."""
    about = words.ABOUT[mode]
    counted = dict(flow.bins or ())
    rates = []
    for n in range(bins.count):
        begins = bins.since + timedelta(seconds=n * bins.bin_s)
        over_s = min(bins.bin_s, (now - begins).total_seconds())
        if over_s < bins.bin_s / 4:
            break
        rates.append(shapes.Rate(at=begins, per_minute=counted.get(n, 0) / over_s * 60))
    p50, p95, p99 = flow.ms or (None, None, None)
    looked_s = (now - bins.since).total_seconds()
    return shapes.ModeFigures(
        mode=mode,
        title=about.title,
        about=about.text,
        cure=about.cure,
        answers=round(flow.answers),
        bounded=flow.bounded,
        per_minute=flow.answers / looked_s * 60,
        latency_ms=shapes.Percentiles(n=flow.measured, p50=p50, p95=p95, p99=p99),
        bytes_per_answer=weight,
        usd=flow.usd,
        usd_per_1000=flow.usd / flow.priced * 1000 if flow.usd is not None and flow.priced else None,
        priced=flow.priced,
        compared=flow.compared,
        agreement=flow.agreed / flow.compared if flow.compared else None,
        newest_at=newest,
        rates=rates,
    )


def _overview(request: Request) -> Overview:
    overview = request.app.state.modes
    assert isinstance(overview, Overview)
    return overview


Shown = Annotated[Overview, Depends(_overview)]

router = APIRouter()


@router.get(f"{live.API}/modes", tags=["live"], responses=problems.documented(HTTPStatus.UNPROCESSABLE_ENTITY))
def modes(
    overview: Shown,
    window_s: Annotated[int, Query(ge=60, le=604_800, description="over the last seconds")] = 900,
) -> shapes.Modes:
    """The four ways to an answer side by side: answers, latency, rate over time, bytes, cost, freshness, agreement."""
    return overview.of(window_s)


@router.get("/modes", response_class=HTMLResponse, include_in_schema=False)
async def modes_page(shared: Shared) -> HTMLResponse:
    """The Modes page."""
    about = [(mode, words.ABOUT[mode]) for mode in words.MODES]
    html = pages.render("modes.html", version=shared.version, api=live.API, about=about, windows=WINDOWS_S)
    return HTMLResponse(html, headers={"Cache-Control": "no-cache"})
