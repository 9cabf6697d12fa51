"""The API, the stream and the `serve` command, over real HTTP on a real PostgreSQL."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from conftest import Postgres
from web_shop import RUN, Served, Shop, ago, camera, serving

from cloud.errors import Rejected
from cloud.store import Store
from cloud.web import Address, listen, shapes

JPEG = b"\xff\xd8\xff\xe0 a picture \xff\xd9"


@pytest.fixture(scope="module")
def quiet(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API on an empty store that no test writes to."""
    dsn = postgres.create()
    store = Store.open(dsn, tmp_path_factory.mktemp("quiet"))
    with serving(store) as running, httpx.Client(base_url=running.url, timeout=10) as client:
        yield client
    store.close()
    postgres.drop(dsn)


@pytest.fixture
def api(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=10) as client:
        yield client


class Events:
    """Reads a stream: `next(kind)` waits for the next event of that kind and gives its content."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._stack = contextlib.ExitStack()
        client = self._stack.enter_context(httpx.Client(timeout=15))
        path = f"{url}/api/v1/events"
        self.response = self._stack.enter_context(client.stream("GET", path, headers=headers or {}))
        self._lines = self.response.iter_lines()
        self.ids: list[str] = []

    def next(self, kind: str) -> dict[str, object]:
        told = {"event": "", "data": ""}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                told[name] = value
                continue
            self.ids.append(told.get("id", ""))
            if told["event"] == kind:
                content = json.loads(told["data"])
                assert isinstance(content, dict)
                return content
        raise EOFError("the stream ended")

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def events(served: Served) -> Iterator[Events]:
    opened = Events(served.url)
    yield opened
    opened.close()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check that a response is a problem document with a cure."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["code"] == code
    assert told["status"] == status
    assert told["hint"]
    assert told["detail"]
    return dict(told)


# -- live state ------------------------------------------------------------------------------------------------------


def test_an_empty_store_gives_empty_lists(quiet: httpx.Client) -> None:
    assert quiet.get("/api/v1/cameras").json()["cameras"] == []
    assert quiet.get("/api/v1/devices").json()["devices"] == []
    assert quiet.get("/api/v1/alerts").json() == {"open": [], "recent": []}
    assert quiet.get("/api/v1/results").json() == {"results": [], "next": None}
    assert quiet.get("/api/v1/quarantine").json() == {"refused": [], "next": None}
    summary = quiet.get("/api/v1/summary").json()
    assert summary["total"]["results"] == 0
    assert summary["answers"] == {"real-time": 0, "serverless": 0, "asynchronous": 0, "batch": 0}
    assert summary["latency"]["capture_to_answer_ms"] == {"n": 0, "p50": None, "p95": None, "p99": None}


def test_cameras_and_devices_are_told_whole(api: httpx.Client, shop: Shop) -> None:
    shop.fill(pictures=False)
    told = api.get("/api/v1/cameras").json()
    by_name = {c["camera"]: c for c in told["cameras"]}
    assert list(by_name) == ["entrance", "fruit-1", "fruit-2", "vegetables-1", "vegetables-2", "window-1", "window-2"]
    apple = by_name["fruit-1"]
    assert apple["store"] == "Harbour Street"
    assert apple["answer"]["title"] == "Granny Smith"
    assert apple["answer"]["labels"][0] == {"label": "Granny-Smith", "title": "Granny Smith", "score": 0.973}
    assert apple["answer"]["correct"] is True
    assert apple["answer"]["captured_at"].endswith("Z")
    assert by_name["entrance"]["trouble"]["code"] == "camera-auth"
    assert by_name["window-1"]["trouble"]["code"] == "device-offline"
    devices = {d["device"]: d for d in api.get("/api/v1/devices").json()["devices"]}
    assert devices["harbour-01"]["presence"] == "online"
    assert (devices["harbour-01"]["cameras_working"], devices["harbour-01"]["cameras_total"]) == (4, 5)
    assert devices["station-07"]["presence"] == "offline"


def test_a_picture_has_a_tag_and_is_never_stored_by_others(api: httpx.Client, shop: Shop) -> None:
    shop.picture("shop-1", "shelf", JPEG)
    url = "/api/v1/cameras/shop-1/shelf/picture.jpg"
    first = api.get(url)
    assert (first.content, first.headers["content-type"]) == (JPEG, "image/jpeg")
    assert first.headers["cache-control"] == "no-store"
    assert api.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    shop.picture("shop-1", "shelf", JPEG + b"2")
    assert api.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    problem(api.get("/api/v1/cameras/shop-1/other/picture.jpg"), 404, "no-such-picture")
    problem(api.get("/api/v1/cameras/shop-1/%00/picture.jpg"), 422, "bad-parameter")


def test_an_alert_is_open_until_it_is_cleared(api: httpx.Client, shop: Shop) -> None:
    since = ago(60)
    raised = shop.alert("shop-1", "shelf", "Banana", since=since, age_s=50, jpeg=JPEG)
    shop.alert("shop-1", "other", "Lime", age_s=40)
    told = api.get("/api/v1/alerts").json()
    assert [(a["camera"], a["title"]) for a in told["open"]] == [("other", "Lime"), ("shelf", "Banana")]
    assert told["open"][0]["thumbnail_url"] is None
    url = told["open"][1]["thumbnail_url"]
    assert url == f"/api/v1/alerts/shop-1/{RUN}/{raised}/thumbnail.jpg"
    assert api.get(url).content == JPEG
    assert "immutable" in api.get(url).headers["cache-control"]
    shop.alert("shop-1", "shelf", "Banana", state="cleared", since=since, age_s=2)
    told = api.get("/api/v1/alerts").json()
    assert [a["camera"] for a in told["open"]] == ["other"]
    (over,) = told["recent"]
    assert over["thumbnail_url"] == url
    assert over["ended_at"] > over["since"]
    problem(api.get(f"/api/v1/alerts/shop-1/{RUN}/999999/thumbnail.jpg"), 404, "no-such-thumbnail")
    problem(api.get("/api/v1/alerts/shop-1/xyz/1/thumbnail.jpg"), 422, "bad-parameter")


@pytest.mark.parametrize("jpeg", [None, JPEG])
def test_an_alert_raised_before_the_clock_was_set_began_when_it_did(
    api: httpx.Client, shop: Shop, jpeg: bytes | None
) -> None:
    said = datetime(2000, 1, 1, 0, 5, tzinfo=UTC)
    since = said - timedelta(seconds=8)
    raised = shop.alert("shop-1", "shelf", "Banana", since=since, age_s=50, said=said, jpeg=jpeg)
    (stands,) = api.get("/api/v1/alerts").json()["open"]
    began = datetime.fromisoformat(stands["since"])
    assert abs(ago(58) - began) < timedelta(seconds=5)
    shop.alert("shop-1", "shelf", "Banana", state="cleared", since=since, age_s=2)
    (over,) = api.get("/api/v1/alerts").json()["recent"]
    assert over["since"] == stands["since"]
    assert (over["thumbnail_url"] or "").endswith(f"/{raised}/thumbnail.jpg") == (jpeg is not None)


# -- the store -------------------------------------------------------------------------------------------------------


def test_results_come_page_by_page_without_gap_or_repeat(api: httpx.Client, shop: Shop) -> None:
    for age_s in (9, 7, 7, 5, 3, 1):
        shop.answer("shop-1", "shelf", ("Banana", 0.9), age_s=age_s)
        shop.answer("shop-2", "shelf", ("Lime", 0.8), ("Lemon", 0.1), age_s=age_s)
    keys, cursor = [], None
    while True:
        page = api.get("/api/v1/results", params={"limit": 5, **({"cursor": cursor} if cursor else {})}).json()
        keys += [(r["device"], r["seq"]) for r in page["results"]]
        if not keys[5:]:
            shop.answer("shop-1", "shelf", ("Kiwi", 0.9), age_s=0)  # comes while somebody is reading
        if (cursor := page["next"]) is None:
            break
    assert len(keys) == len(set(keys)) == 12
    ages = [r["captured_at"] for r in api.get("/api/v1/results").json()["results"]]
    assert ages == sorted(ages, reverse=True)


def test_results_are_filtered(api: httpx.Client, shop: Shop) -> None:
    for name in ("a", "b"):
        shop.answer("shop-1", name, ("Banana", 0.9), age_s=100)
        shop.answer("shop-1", name, ("Lime", 0.8), age_s=1)
    shop.answer("shop-2", "a", ("Lime", 0.8), age_s=1)

    def count(**wanted: str) -> int:
        return len(api.get("/api/v1/results", params=wanted).json()["results"])

    assert count() == 5
    assert count(device="shop-1") == 4
    assert count(camera="a") == 3
    assert count(device="shop-1", label="Lime") == 2
    assert count(since=ago(50).isoformat()) == 3
    assert count(device="shop-1", camera="a", since=ago(50).isoformat(), label="Banana") == 0


def test_late_answers_come_page_by_page_and_filtered(api: httpx.Client, shop: Shop) -> None:
    for age_s, mode in ((9, "serverless"), (7, "batch"), (5, "asynchronous"), (3, "serverless"), (1, "batch")):
        shop.late("shop-1", "shelf", ("Lemon", 0.91), ("Lime", 0.05), mode=mode, age_s=age_s, agrees=True, usd=1e-6)
        shop.late("shop-2", "other", ("Kiwi", 0.8), mode=mode, age_s=age_s)
    keys, cursor = [], None
    while True:
        page = api.get("/api/v1/verdicts", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        keys += [(v["device"], v["seq"]) for v in page["verdicts"]]
        if not keys[3:]:
            shop.late("shop-1", "shelf", ("Pear", 0.9))  # comes while somebody is reading
        if (cursor := page["next"]) is None:
            break
    assert len(keys) == len(set(keys)) == 10

    def found(**wanted: str) -> list[dict[str, object]]:
        verdicts = api.get("/api/v1/verdicts", params=wanted).json()["verdicts"]
        assert isinstance(verdicts, list)
        return verdicts

    stored = [str(v["stored_at"]) for v in found()]
    assert stored == sorted(stored, reverse=True)
    assert len(found(mode="batch")) == 4
    assert len(found(device="shop-2")) == len(found(camera="other")) == 5
    (only,) = found(device="shop-1", camera="shelf", mode="asynchronous")
    assert (only["title"], only["agrees"], only["usd"], only["model_release"]) == ("Lemon", True, 1e-6, 1)
    assert only["late_ms"] == pytest.approx(1300, abs=1)
    problem(api.get("/api/v1/verdicts?mode=real-time"), 422, "bad-parameter")
    problem(api.get("/api/v1/verdicts?cursor=AAAA"), 400, "bad-cursor")


def test_all_answers_of_one_picture_are_told_the_best_first(api: httpx.Client, shop: Shop) -> None:
    shop.device("shop-1", cameras=(camera("shelf"),))
    own = shop.answer("shop-1", "shelf", ("Lime", 0.55), age_s=20)
    where = {"frame": own, "age_s": 0, "late_s": 20}
    asked = shop.late("shop-1", "shelf", ("Lime", 0.8), mode="asynchronous", agrees=True, **where)
    better = shop.late("shop-1", "shelf", ("Lemon", 0.97), mode="batch", agrees=False, release=2, **where)
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    shop.late("shop-1", "shelf", ("Kiwi", 0.9), frame=own + 1000)
    for path in (f"{own}", f"{asked}", f"{better}", f"shelf/{own}"):
        told = api.get(f"/api/v1/frames/shop-1/{RUN}/{path}/answers").json()
        assert (told["device"], told["run"], told["camera"], told["frame"]) == ("shop-1", RUN, "shelf", own)
        said = [(a["mode"], a["title"], a["agrees"], a["seq"]) for a in told["answers"]]
        assert said == [
            ("batch", "Lemon", False, better), ("asynchronous", "Lime", True, asked), ("real-time", "Lime", None, own),
        ], path  # fmt: skip
    person = shop.late("shop-1", "submitted", ("Pear", 0.9), mode="asynchronous")
    told = api.get(f"/api/v1/frames/shop-1/{RUN}/{person}/answers").json()
    assert (told["frame"], [a["title"] for a in told["answers"]]) == (None, ["Pear"])
    alone = shop.answer("shop-1", "shelf", ("Fig", 0.9))
    assert len(api.get(f"/api/v1/frames/shop-1/{RUN}/shelf/{alone}/answers").json()["answers"]) == 1
    problem(api.get(f"/api/v1/frames/shop-1/{RUN}/999999999/answers"), 404, "no-such-frame")
    problem(api.get(f"/api/v1/frames/shop-1/{RUN}/shelf/999999999/answers"), 404, "no-such-frame")


def test_a_camera_shows_the_best_answer_and_tells_the_late_ones(api: httpx.Client, shop: Shop) -> None:
    shop.device("shop-1", cameras=(camera("shelf"),), frames={
        "captured": 100, "local": 90, "serverless": 6, "deferred": 3, "dropped": 1, "unanswered": 2,
    })  # fmt: skip
    own = shop.answer("shop-1", "shelf", ("Lime", 0.55), age_s=3)
    shop.late("shop-1", "shelf", ("Lemon", 0.91), frame=own, late_s=3, agrees=False)  # by a model of the same age
    (told,) = api.get("/api/v1/cameras").json()["cameras"]
    assert (told["answer"]["title"], told["answer"]["mode"], told["answer"]["late_ms"]) == ("Lime", "real-time", None)
    (late,) = told["late"]
    assert (late["mode"], late["title"], late["agrees"], late["frame"]) == ("serverless", "Lemon", False, own)
    for _ in range(4):
        shop.late("shop-1", "shelf", ("Kiwi", 0.7), mode="batch", frame=own + 1, late_s=2, agrees=None)
    (told,) = api.get("/api/v1/cameras").json()["cameras"]
    assert (told["answer"]["title"], told["answer"]["mode"]) == ("Kiwi", "batch")
    assert told["answer"]["late_ms"] == pytest.approx(2000, abs=500)
    assert len(told["late"]) == 3
    (device,) = api.get("/api/v1/devices").json()["devices"]
    assert device["answered"] == [
        {"mode": "real-time", "n": 1}, {"mode": "serverless", "n": 1}, {"mode": "batch", "n": 4},
    ]  # fmt: skip
    assert (device["frames"]["serverless"], device["frames"]["unanswered"]) == (6, 2)
    shop.late("shop-1", "shelf", ("Fig", 0.9), mode="asynchronous")  # submitted by a person: no number, no place
    (told,) = api.get("/api/v1/cameras").json()["cameras"]
    assert (told["answer"]["title"], [late["title"] for late in told["late"]]) == ("Kiwi", ["Fig", "Kiwi", "Kiwi"])
    old = shop.answer("shop-1", "old", ("Lime", 0.55), age_s=3, release=None)  # a row from before releases were kept
    shop.late("shop-1", "old", ("Lemon", 0.91), frame=old, late_s=3)
    told = {c["camera"]: c for c in api.get("/api/v1/cameras").json()["cameras"]}
    assert told["old"]["answer"]["title"] == "Lemon"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "device=a/b", "camera=%00", "label=%00", "label=", "since=yesterday",
        "since=2026-01-01T00:00:00", "before=0",
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_with_the_place(quiet: httpx.Client, query: str) -> None:
    path = "/api/v1/quarantine" if query.startswith("before") else "/api/v1/results"
    told = problem(quiet.get(f"{path}?{query}"), 422, "bad-parameter")
    assert told["errors"]


def test_a_foreign_cursor_is_refused(quiet: httpx.Client) -> None:
    problem(quiet.get("/api/v1/results?cursor=AAAA"), 400, "bad-cursor")


def test_summary_counts_rows_and_tallies_and_measures_to_the_commit(api: httpx.Client, shop: Shop) -> None:
    for total_ms in range(1, 101):
        shop.answer("shop-1", "shelf", ("Banana", 0.9), total_ms=float(total_ms), age_s=0.5)
    shop.answer("shop-2", "shelf", ("Banana", 0.9), age_s=4000, dated_by="unsure")
    for name, n in (("received", 104), ("committed", 101), ("duplicates", 3)):
        shop.execute("INSERT INTO tally VALUES ('shop-1', %s, %s)", name, n)
    for mode in ("serverless", "serverless", "batch"):
        shop.late("shop-1", "shelf", ("Banana", 0.9), mode=mode, frame=1)
    shop.late("shop-3", "shelf", ("Banana", 0.9), mode="serverless", frame=1, age_s=90_000)
    told = api.get("/api/v1/summary").json()
    assert told["answers"] == {"real-time": 101, "serverless": 3, "asynchronous": 0, "batch": 1}
    assert told["total"] == {
        "results": 101, "alerts": 0, "received": 104, "committed": 101, "duplicates": 3, "refused": 0, "quarantined": 0,
        "conflicts": 0,
    }  # fmt: skip
    assert {d["device"]: d["results"] for d in told["devices"]} == {"shop-1": 100, "shop-2": 1}
    latency = told["latency"]
    assert latency["cloud_measured_to"] == "commit"
    assert latency["capture_to_answer_ms"]["n"] == 100
    assert latency["capture_to_answer_ms"]["p50"] == pytest.approx(50.5)
    assert latency["capture_to_answer_ms"]["p99"] == pytest.approx(99.01)
    assert 500 <= latency["capture_to_cloud_ms"]["p50"] < 5000
    whole = api.get("/api/v1/summary?window_s=86400").json()["latency"]
    assert (whole["capture_to_answer_ms"]["n"], whole["capture_to_cloud_ms"]["n"]) == (101, 100)


def test_quarantine_shows_what_was_refused_and_why(api: httpx.Client, shop: Shop) -> None:
    for n in range(3):
        shop.execute(
            """INSERT INTO quarantine(received_at, topic, device, code, detail, payload)
               VALUES (now(), 't', 'shop-1', 'bad-json', %s, %s)""",
            f"no {n}", b"\xff\x00<script>" + b"x" * 1000,
        )  # fmt: skip
    first = api.get("/api/v1/quarantine?limit=2").json()
    assert [r["detail"] for r in first["refused"]] == ["no 2", "no 1"]
    assert first["refused"][0]["payload_bytes"] == 1010
    assert first["refused"][0]["payload_start"].startswith("\\xff\x00<script>xxx")
    rest = api.get(f"/api/v1/quarantine?limit=2&before={first['next']}").json()
    assert [r["detail"] for r in rest["refused"]] == ["no 0"]
    assert rest["next"] is None


# -- the contract ----------------------------------------------------------------------------------------------------


def test_the_openapi_document_describes_every_call_and_its_errors(quiet: httpx.Client) -> None:
    document = quiet.get("/api/v1/openapi.json").json()
    wanted = {
        "/api/v1/cameras", "/api/v1/cameras/{device}/{camera}/picture.jpg", "/api/v1/alerts",
        "/api/v1/alerts/{device}/{run}/{seq}/thumbnail.jpg", "/api/v1/devices", "/api/v1/results", "/api/v1/summary",
        "/api/v1/quarantine", "/api/v1/events", "/healthz", "/metrics", "/api/v1/verdicts",
        "/api/v1/frames/{device}/{run}/{seq}/answers", "/api/v1/frames/{device}/{run}/{camera}/{frame}/answers",
        "/api/v1/jobs", "/api/v1/jobs-summary", "/api/v1/jobs/{job}", "/api/v1/jobs/{job}/picture.jpg",
    }  # fmt: skip
    assert wanted <= set(document["paths"])
    for path, calls in document["paths"].items():
        for call in calls.values():
            assert call["description"], path
            if path.startswith("/api/"):
                assert "application/problem+json" in call["responses"]["503"]["content"], path
    references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(references) <= set(document["components"]["schemas"])


def test_the_guide_names_every_call(quiet: httpx.Client) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    for path in quiet.get("/api/v1/openapi.json").json()["paths"]:
        assert f"`{path}`" in guide, path


def test_answers_have_the_shape_that_is_described(api: httpx.Client, shop: Shop) -> None:
    shop.fill(pictures=False)
    for path, shape in (
        ("cameras", shapes.Cameras), ("devices", shapes.Devices), ("alerts", shapes.Alerts),
        ("results", shapes.Results), ("summary", shapes.Summary), ("quarantine", shapes.Quarantine),
        ("verdicts", shapes.Verdicts),
    ):  # fmt: skip
        shape.model_validate_json(api.get(f"/api/v1/{path}").content)


def test_pages_carry_strict_headers(quiet: httpx.Client) -> None:
    for path in ("/", "/assets/live.js", "/assets/live.css", "/api/v1/cameras", "/nope", "/api/v1/docs"):
        headers = quiet.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = quiet.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)
    assert "http://" not in page
    assert "https://" not in page


def test_assets_are_sent_once(quiet: httpx.Client) -> None:
    tag = quiet.get("/assets/live.js").headers["etag"]
    assert quiet.get("/assets/live.js", headers={"If-None-Match": tag}).status_code == 304
    problem(quiet.get("/assets/../app.py"), 404, "no-such-page")
    problem(quiet.get("/assets/%2e%2e/app.py"), 404, "no-such-page")


def test_missing_pages_speak_to_people_and_to_programs(quiet: httpx.Client) -> None:
    page = quiet.get("/<b>nope</b>", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 404
    assert "&lt;b&gt;nope" in page.text
    problem(quiet.get("/api/v1/nope"), 404, "no-such-page")
    problem(quiet.post("/api/v1/cameras"), 405, "method-not-allowed")


def test_a_foreign_name_is_refused(quiet: httpx.Client) -> None:
    port = quiet.base_url.port
    for host in (f"evil.example:{port}", "192.168.0.1", "localhost.evil.example", ""):
        problem(quiet.get("/api/v1/cameras", headers={"Host": host}), 421, "foreign-host")
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
        assert quiet.get("/api/v1/cameras", headers={"Host": host}).status_code == 200


def test_health_and_metrics(api: httpx.Client, shop: Shop) -> None:
    shop.fill(pictures=False)
    health = api.get("/healthz").json()
    assert (health["status"], health["database"]) == ("ok", "ok")
    text = api.get("/metrics").text
    assert 'shelfwire_device_online{device="harbour-01"} 1.0' in text
    assert 'shelfwire_device_online{device="station-07"} 0.0' in text
    assert 'shelfwire_device_outbox_rows{device="harbour-01"} 0.0' in text
    assert 'shelfwire_camera_fps{camera="fruit-1",device="harbour-01"} 5.0' in text
    assert "shelfwire_store_up 1.0" in text


def test_metrics_stay_bounded_whatever_devices_send(
    api: httpx.Client, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.web.metrics.MOST_DEVICES", 2)
    monkeypatch.setattr("cloud.web.metrics.MOST_CAMERAS", 3)
    for n in range(5):
        shop.device(f"shop-{n}", cameras=(camera("a"), camera("b")))
    text = api.get("/metrics").text
    assert text.count("shelfwire_device_online{") == 2
    assert text.count("shelfwire_camera_fps{") == 3
    assert "shelfwire_series_left_out 10.0" in text


# -- the stream ------------------------------------------------------------------------------------------------------


def test_a_stream_begins_with_everything_and_goes_on_with_changes(events: Events, shop: Shop) -> None:
    assert events.response.headers["content-type"].startswith("text/event-stream")
    assert events.response.headers["cache-control"] == "no-store"
    assert events.next("snapshot")["cameras"] == []
    shop.device("shop-1", cameras=(camera("shelf"),))
    (device,) = events.next("update")["devices"]
    assert device["device"] == "shop-1"
    committed_s = time.monotonic()
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    cameras = events.next("update")["cameras"]
    assert cameras[0]["answer"]["title"] == "Banana"
    assert time.monotonic() - committed_s < 1.0
    shop.alert("shop-1", "shelf", "Banana")
    alerts = events.next("update")["alerts"]
    assert alerts["open"][0]["title"] == "Banana"
    assert all(events.ids)
    assert len(set(events.ids)) == len(events.ids)


def test_who_comes_back_gets_everything_again(served: Served, events: Events, shop: Shop) -> None:
    events.next("snapshot")
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    events.next("update")
    again = Events(served.url, {"Last-Event-ID": events.ids[-1]})
    assert again.next("snapshot")["cameras"][0]["answer"]["title"] == "Banana"
    again.close()


def test_only_what_has_changed_is_told(events: Events, shop: Shop) -> None:
    events.next("snapshot")
    shop.answer("shop-1", "a", ("Banana", 0.9))
    shop.answer("shop-1", "b", ("Lime", 0.9))
    seen: set[str] = set()
    while seen != {"a", "b"}:
        seen |= {c["camera"] for c in events.next("update")["cameras"]}
    shop.answer("shop-1", "b", ("Kiwi", 0.9))
    update = events.next("update")
    assert [c["camera"] for c in update["cameras"]] == ["b"]
    assert update["alerts"] is None


def test_a_busy_store_is_told_in_few_pushes(served: Served, events: Events, shop: Shop) -> None:
    events.next("snapshot")
    before, began_s = served.hub.pushes, time.monotonic()
    for _ in range(300):
        seq = shop.answer("shop-1", "shelf", ("Banana", 0.9))
    while events.next("update")["cameras"][0]["answer"]["seq"] != seq:
        pass
    lasted_s = time.monotonic() - began_s
    assert served.hub.pushes - before <= lasted_s * 5 + 3


def test_silence_is_filled_with_beats(events: Events) -> None:
    assert events.next("beat")["now"]


def test_a_viewer_who_does_not_read_is_dropped_and_the_others_go_on(
    served: Served, events: Events, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.web.hub.PUSH_EVERY_S", 0.005)
    monkeypatch.setattr("cloud.web.hub.WAITING_EVENTS", 2)
    events.next("snapshot")
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect(("127.0.0.1", served.address.port))
    lazy.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    labels = tuple((f"{'x' * 60}{n}", 0.1) for n in range(10))
    deadline_s = time.monotonic() + 20
    while served.hub.dropped == 0 and time.monotonic() < deadline_s:
        for n in range(20):
            shop.answer("shop-1", f"camera-{n}", *labels)
        events.next("update")
    assert served.hub.dropped == 1
    assert served.hub.viewers == 1
    lazy.close()


def test_a_database_that_goes_away_is_told_and_its_return_too(
    served: Served, api: httpx.Client, events: Events, shop: Shop, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.store.reading.WAIT_S", 0.4)
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    events.next("snapshot")
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(str(dsn).replace(f"/{name}?", "/postgres?"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        assert events.next("trouble")["trouble"]["code"] == "database-away"
        problem(api.get("/api/v1/cameras"), 503, "database-away")
        assert api.get("/healthz").status_code == 503
        assert "shelfwire_store_up 0.0" in api.get("/metrics").text
        late = Events(served.url)
        assert late.next("trouble")["trouble"]["cure"]
        late.close()
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert events.next("snapshot")["cameras"][0]["answer"]["title"] == "Banana"
    assert api.get("/healthz").status_code == 200


def test_many_viewers_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.web.hub.MOST_VIEWERS", 2)
    opened = [Events(served.url) for _ in range(2)]
    for one in opened:
        one.next("snapshot")
    problem(httpx.get(f"{served.url}/api/v1/events"), 503, "too-many-viewers")
    for one in opened:
        one.close()


# -- the command -----------------------------------------------------------------------------------------------------


def start(dsn: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cloud.cli", "serve", "--dsn", dsn, *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_it_is_and_stops_at_once_with_streams_open(dsn: str, sent: signal.Signals) -> None:
    with start(dsn, "--port", "0", "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ingest"] is False
        url = str(ready["url"]).rstrip("/")
        assert httpx.get(url).status_code == 200
        opened = [Events(url) for _ in range(3)]
        for one in opened:
            one.next("snapshot")
        asked_s = time.monotonic()
        process.send_signal(sent)
        assert process.wait(3) == 0
        assert time.monotonic() - asked_s < 3
        for one in opened:
            with pytest.raises((EOFError, httpx.RemoteProtocolError)):
                one.next("never")
            one.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "shop.example", ""])
def test_every_host_but_loopback_is_refused(host: str) -> None:
    with pytest.raises(Rejected) as caught:
        listen(Address(host, 0))
    assert caught.value.code == "host-not-loopback"
    assert "ssh -L" in caught.value.hint


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(Rejected, match="no port") as caught:
        listen(Address("127.0.0.1", port))
    assert caught.value.hint


def test_serve_names_the_cure_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with start("postgresql://nobody@127.0.0.1:1/untouched", "--port", port, "--json") as process:
            told, said = process.communicate(timeout=40)
    assert process.returncode == 2
    assert "port-in-use" in said
    assert "--port" in said
    assert json.loads(told)["error"]["code"] == "port-in-use"
