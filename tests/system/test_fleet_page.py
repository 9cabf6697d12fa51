"""The Fleet page and its API, in a real Chromium over a real server and PostgreSQL.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import expect
from psycopg.types.json import Jsonb
from web_browser import NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot
from web_shop import Served, Shop, ago

from cloud.rollout import rows, step
from cloud.rollout.rows import Rollouts
from cloud.rollout.rules import Batch, Rules
from cloud.store import Store
from wire.orders import ModelOrder

SMALL_DESKTOP = (1280, 800)
MODEL = ModelOrder(name="produce", version="1.1.0", release=4, digest="cd" * 32)
RULES = Rules(batches=(Batch(number=1), Batch(percent=50.0), Batch(percent=100.0)))


def report(shop: Shop, device: str, state: str, *, code: str = "", text: str = "", progress: float = 0.0) -> None:
    """Have a device report an update, and the step that it told."""
    runs = {"name": "produce", "version": "1.0.0", "release": 1, "digest": "ab" * 32}
    update = {"what": "model", "revision": 3, "rollout": "produce-4", "state": state, "code": code or None,
              "text": text, "numbers": {"p95_ms": 91.5, "limit_p95_ms": 80.0} if code else {}, "progress": progress,
              "target": json.loads(MODEL.model_dump_json())}  # fmt: skip
    body = {"model": runs, "previous": None, "pinned": False, "config_revision": 0, "updates": [update]}
    shop.execute("INSERT INTO reported VALUES (%s, %s, 3, %s)", device, Jsonb(body), ago(5))
    shop.execute(
        "INSERT INTO reported_step (device, what, revision, state, code, attempt, rollout, text, numbers, received_at)"
        " VALUES (%s, 'model', 3, %s, %s, 0, 'produce-4', %s, %s, %s)",
        device, state, code, text, Jsonb(update["numbers"]), ago(5),
    )  # fmt: skip


def fill(shop: Shop, store: Store) -> None:
    """A small chain in the middle of a rollout: one done, one in its trial, one that refused, one offline, two fine."""
    warning = {"code": "disk-low", "severity": "warning", "text": "the disk is 91 % full", "cure": "free disk space"}
    waits = {"rows": 1240, "bytes": 90_000, "dead": 0, "oldest_age_s": 5400.0}
    for n in range(6):
        shop.device(
            f"till-{n}", store=f"store-{n // 2}", **({"outbox": waits, "warnings": [warning]} if n == 4 else {})
        )
    host = {"disk_free_bytes": 200_000_000, "disk_bytes": 64_000_000_000, "temperature_c": 83.5}
    shop.execute(
        "UPDATE device SET status = status || %s WHERE device = 'till-4'",
        Jsonb({"host": host, "clock_ahead_s": -7200.0}),
    )
    shop.device("till-5", store="store-2", state="offline", seen_s=7200)
    shop.execute("UPDATE device SET status = jsonb_set(status, '{clock}', '\"unsure\"') WHERE device = 'till-0'")
    Rollouts(store.pool).begin("produce-4", "produce 1.1.0, release 4", MODEL, RULES, "ann", datetime.now(UTC))
    shop.execute("UPDATE rollout SET batch = 1, reason = 'batch 2: 2 ended, 1 under way, 0 to come'")
    shop.execute("UPDATE rollout_part SET state = 'ordered', revision = 3, ordered_at = now() WHERE place < 3")
    names = [p.device for p in Rollouts(store.pool).parts("produce-4", datetime.now(UTC))]
    report(shop, names[0], "committed")
    report(shop, names[1], "shadow", text="212 of 400 frames compared")
    report(shop, names[2], "rejected", code="update-slow", text="95 of 100 frames take 91.5 ms, the limit is 80 ms")
    with store.pool.connection() as connection, connection.transaction():
        step.hear(connection, rows.read_one(connection, "produce-4"), datetime.now(UTC))


@pytest.fixture
def chain(shop: Shop, store: Store) -> Shop:
    fill(shop, store)
    return shop


# -- the API -------------------------------------------------------------------------------------------------------


def test_the_api_tells_of_devices_rollouts_and_why(served: Served, chain: Shop) -> None:
    with httpx.Client(base_url=f"{served.url}/api/v1", timeout=10) as api:
        fleet = api.get("/fleet").json()
        assert [d["device"] for d in fleet["devices"]] == [f"till-{n}" for n in range(6)]
        by_name = {d["device"]: d for d in fleet["devices"]}
        assert by_name["till-5"]["presence"] == "offline"
        assert by_name["till-4"]["rows"] == 1240
        assert by_name["till-4"]["warnings"][0]["cure"] == "free disk space"
        machine = ("clock_ahead_s", "disk_free_bytes", "disk_bytes", "temperature_c")
        assert [by_name["till-4"][key] for key in machine] == [-7200.0, 200_000_000, 64_000_000_000, 83.5]
        assert [by_name["till-3"][key] for key in machine] == [None] * 4
        (one,) = fleet["rollouts"]
        assert [(b["batch"], b["open"], b["devices"]) for b in one["batches"]] == [
            ("1", True, 1), ("50%", True, 2), ("all", False, 3),
        ]  # fmt: skip
        assert one["may"] == ["pause", "abort"]
        parts = api.get("/fleet/rollouts/produce-4").json()["parts"]
        (refused,) = [p["device"] for p in parts if p["state"] == "rejected"]
        why = api.get(f"/fleet/devices/{refused}/why").json()
        assert "refused" in why["why"]
        assert why["steps"][0]["numbers"]["p95_ms"] == 91.5
        assert api.get("/fleet/devices/nobody/why").status_code == 404
        assert api.get("/fleet/rollouts/none").json()["code"] == "rollout-unknown"


def test_a_foreign_page_cannot_stop_a_rollout(served: Served, chain: Shop, store: Store) -> None:
    url = f"{served.url}/api/v1/fleet/rollouts/produce-4/abort"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused = httpx.post(url, headers=headers)
        assert refused.status_code == 403
        assert refused.json()["code"] == "foreign-page"
    assert httpx.get(url).status_code == 405
    assert Rollouts(store.pool).one("produce-4").state == "running"
    assert httpx.post(url).json()["state"] == "aborted"
    refused = httpx.post(url)
    assert (refused.status_code, refused.json()["code"]) == (400, "rollout-state")


def test_a_rollout_of_which_nobody_is_in_a_batch_is_shown(served: Served, chain: Shop, store: Store) -> None:
    rules = replace(RULES, batches=(Batch(percent=100.0), Batch(percent=100.0)))
    rollouts = Rollouts(store.pool)
    rollouts.change("produce-4", "abort", "", "ann", datetime.now(UTC))
    rollouts.begin("again", "produce", MODEL, rules, "ann", datetime.now(UTC))
    (newest, _) = httpx.get(f"{served.url}/api/v1/fleet").json()["rollouts"]
    assert [batch["devices"] for batch in newest["batches"]] == [6, 0]


# -- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@NEEDS_BROWSER[1]
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL_DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_fleet_is_seen_at_a_glance(
    served: Served, chain: Shop, visit: Visit, size: tuple[int, int], scheme: str
) -> None:
    page = visit(served, "/fleet", size=size, scheme=scheme)
    expect(page.locator(".unit")).to_have_count(6)
    expect(page.locator("#summary")).to_have_text(re.compile(r"^5 of 6 devices online, [34] with trouble$"))
    expect(page.locator(".rollout-name")).to_have_text("produce-4")
    expect(page.locator(".rollout-counts")).to_have_text(
        re.compile("6 devices: 1 done, 1 under way, 1 rejected, 3 to come")
    )
    expect(page.locator(".unit", has_text="till-4").locator(".unit-facts")).to_contain_text(
        "1,240 records, oldest 90 min"
    )
    for said in ("set by the network, 2 h behind", "200 MB of 64 GB free", "84 °C"):
        expect(page.locator(".unit", has_text="till-4").locator(".unit-facts")).to_contain_text(said)
    expect(page.locator(".unit", has_text="till-4").locator(".warnings")).to_contain_text("Free disk space.")
    expect(page.locator(".unit-update", has_text="shadow")).to_have_text("Model shadow: 212 of 400 frames compared")
    expect(page.locator('[aria-current="page"]')).to_have_text("Fleet")
    fits(page)
    keep_shot(page, f"fleet-{size[0]}-{scheme}")
    has_no_violations(page)
    page.get_by_role("button", name="With trouble").click()
    assert page.locator(".unit").count() < 6
    page.locator(".unit", has_text="update-slow").get_by_role("button").click()
    expect(page.locator("#why-text")).to_contain_text("it refused it: 95 of 100 frames take 91.5 ms")
    expect(page.locator(".why-numbers")).to_have_text("p95_ms 91.5 · limit_p95_ms 80")
    fits(page)
    keep_shot(page, f"fleet-why-{size[0]}-{scheme}")
    has_no_violations(page)


@pytest.mark.browser
@NEEDS_BROWSER[1]
def test_a_rollout_is_paused_and_aborted_with_the_keyboard(
    served: Served, chain: Shop, visit: Visit, store: Store
) -> None:
    page = visit(served, "/fleet", size=PHONE)
    page.get_by_role("button", name="Pause produce-4").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".rollout-word")).to_have_text("Paused")
    assert Rollouts(store.pool).one("produce-4").state == "paused"
    page.get_by_role("button", name="Abort produce-4").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sure-title")).to_have_text("Abort produce-4?")
    keep_shot(page, "fleet-sure")
    has_no_violations(page)
    page.keyboard.press("Escape")
    assert Rollouts(store.pool).one("produce-4").state == "paused"
    page.get_by_role("button", name="Abort produce-4").click()
    page.get_by_role("button", name="Abort the rollout").click()
    expect(page.locator(".rollout-word")).to_have_text("Aborted")
    expect(page.locator(".rollout-reason")).to_have_text("From the Fleet page.")
    (line, *_) = Rollouts(store.pool).audit_lines(5, "produce-4")
    assert (line.who, line.what) == ("page", "aborted")


@pytest.mark.browser
@NEEDS_BROWSER[1]
def test_an_empty_fleet_says_how_to_begin(served: Served, visit: Visit) -> None:
    page = visit(served, "/fleet", size=PHONE)
    expect(page.locator("#empty")).to_contain_text("shelfwire-cloud fleet device add")
    expect(page.locator("#no-rollout")).to_be_visible()
    fits(page)
    keep_shot(page, "fleet-empty")
    has_no_violations(page)
