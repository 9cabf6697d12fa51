"""The report of the batch: as a command, for programs, and as pages in a real Chromium.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from batch_nights import NIGHT, Silent, receive
from conftest import Postgres
from playwright.sync_api import expect
from shard_files import PRODUCTS, row, rows
from test_batch_run import command, run
from web_browser import NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot
from web_shop import Served, serving, shelf

from cloud.batch.engines import Local
from cloud.batch.rows import Nights
from cloud.batch.run import Batch, Chosen
from cloud.objects import Objects, open_objects
from cloud.store import Store

SMALL_DESKTOP = (1280, 800)
BEFORE = NIGHT - timedelta(days=1)
AFTER = NIGHT + timedelta(days=1)
EVIL = "<img src=x onerror=alert(1)>"


@dataclass(frozen=True)
class House:
    """Three days: two scored, one not."""

    served: Served
    store: Store
    objects: Objects
    dsn: str


@pytest.fixture(scope="module")
def house(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    dsn = postgres.create()
    store = Store.open(dsn, folder)
    objects = open_objects(folder / "objects")
    fill(store, objects, folder)
    with serving(store, objects=objects) as served:
        yield House(served, store, objects, dsn)
    store.close()
    postgres.drop(dsn)


def fill(store: Store, objects: Objects, folder: Path) -> None:
    """Scenes as a shop has them; the device was wrong on some."""
    before = {"day": BEFORE.isoformat()}
    receive(store, objects, folder, [*rows(36, **before), *rows(2, first=37, label="Lime", score=0.8, **before)])
    given = []
    for seq in range(1, 61):
        product = PRODUCTS[seq % len(PRODUCTS)]
        wrong = {"label": "Lime", "score": 0.5 + seq / 200} if seq in (8, 20, 44) else {}
        wrong = {"label": "Pineapple", "score": 0.71} if seq == 27 else wrong
        given.append(row(seq, picture=shelf(seq, product), score=wrong.pop("score", 0.83), **wrong))
    given[10] = row(11, picture=shelf(11, "Avocado")[:9000])
    given[32] = row(33, picture=b"GIF89a", label=None, score=None, labels=None)
    given[40] = row(41, picture=shelf(41, "Avocado"), label=None, score=None, labels=None)
    receive(store, objects, folder, given)
    receive(store, objects, folder, rows(20, first=100, device="shop-2", store=EVIL, camera="window"))
    for day in (BEFORE, NIGHT):
        batch = Batch(Nights(store.pool, store.dsn), objects, Chosen.of("produce"), Local(1))
        assert batch.run(day, Silent()).failed == []
    receive(store, objects, folder, rows(8, day=AFTER.isoformat(), device="shop-2"))


def test_the_command_reports_in_words_and_as_json(house: House) -> None:
    said = subprocess.run(
        command(house.dsn, house.objects, "report", str(NIGHT)), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.startswith(f"{NIGHT} by produce ")
    assert "80 frames, 78 answered, 2 unreadable" in said
    assert "points to the day before" in said
    assert "frames most worth a label" in said
    code, told, _ = run(house.dsn, house.objects, "report", str(NIGHT))
    assert (code, told["counts"]["frames"], told["before"]["day"]) == (0, 80, str(BEFORE))
    code, told, _ = run(house.dsn, house.objects, "report", str(AFTER))
    assert (code, told["model"], told["frames"]) == (0, None, 8)


@pytest.mark.parametrize(
    ("arguments", "code"), [(("2020-01-01",), "no-such-day"), ((str(NIGHT), "--model", "abc"), "no-such-model")]
)
def test_the_command_names_the_cure(house: House, arguments: tuple[str, ...], code: str) -> None:
    status, told, stderr = run(house.dsn, house.objects, "report", *arguments)
    assert (status, told["error"]["code"]) == (2, code)
    assert "cure: " in stderr


def test_programs_read_the_same(house: House) -> None:
    api = httpx.Client(base_url=house.served.url + "/api/v1", timeout=30)
    listed = api.get("/batch").json()
    assert [(day["day"], day["shards"], day["frames"]) for day in listed] == [
        (str(AFTER), 1, 8), (str(NIGHT), 2, 80), (str(BEFORE), 1, 38),
    ]  # fmt: skip
    assert [len(day["scored"]) for day in listed] == [0, 1, 1]
    told = api.get(f"/batch/{NIGHT}").json()
    _, printed, _ = run(house.dsn, house.objects, "report", str(NIGHT))
    assert [one["seq"] for one in told["worth"]] == [one["seq"] for one in printed["worth"]]
    assert told["counts"] == printed["counts"]
    assert json.dumps(told["cameras"]) == json.dumps(printed["cameras"])
    first = next(one for one in told["worth"] if one["why"] == "disagreement")
    shown = api.get(f"/batch/{NIGHT}/pictures/{first['shard_sha256']}/{first['row']}.jpg")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    assert shown.content == shelf(first["seq"], PRODUCTS[first["seq"] % len(PRODUCTS)])
    assert "immutable" in shown.headers["cache-control"]
    for path, status, code in (
        ("/batch/2020-01-01", 404, "no-such-day"),
        ("/batch/yesterday", 422, "bad-parameter"),
        (f"/batch/{NIGHT}?model=abc", 404, "no-such-model"),
        (f"/batch/{NIGHT}/pictures/{first['shard_sha256']}/900000.jpg", 404, "no-such-picture"),
        (f"/batch/{BEFORE}/pictures/{first['shard_sha256']}/1.jpg", 404, "no-such-picture"),
        (f"/batch/{NIGHT}/pictures/{'0' * 64}/1.jpg", 404, "no-such-picture"),
        (f"/batch/{NIGHT}/pictures/..%2f..%2fx/1.jpg", 404, "no-such-page"),
        (f"/batch/{NIGHT}/pictures/{first['shard_sha256']}/-1.jpg", 422, "bad-parameter"),
    ):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path


def test_objects_that_are_away_are_said_on_the_page(house: House, tmp_path: Path) -> None:
    with serving(house.store, objects=open_objects(tmp_path / "elsewhere")) as served:
        page = httpx.get(f"{served.url}/batch/{NIGHT}", timeout=30)
        assert (page.status_code, "objects-missing" in page.text) == (503, True)
        assert "--objects" in page.text
    with serving(house.store) as served:
        assert "objects-none" in httpx.get(f"{served.url}/batch/{NIGHT}", timeout=30).text
        assert httpx.get(f"{served.url}/batch", timeout=30).status_code == 200


class TestPages:
    """What a person sees."""

    pytestmark = NEEDS_BROWSER

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", [SMALL_DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_a_day_is_whole_and_accessible(
        self, house: House, visit: Visit, size: tuple[int, int], scheme: str
    ) -> None:
        page = visit(house.served, f"/batch/{NIGHT}", size=size, scheme=scheme)
        expect(page.locator(".agreed-say")).to_contain_text("frames as the device said")
        expect(page.locator(".agreed-before")).to_contain_text("points to the day before")
        expect(page.locator(".frame").first.locator(".frame-said").first).to_contain_text("Batch")
        page.locator(".frame").last.scroll_into_view_if_needed()
        for picture in page.locator(".frame-shot img").all():
            picture.scroll_into_view_if_needed()
            expect(picture).to_have_js_property("complete", value=True)
        assert page.evaluate("[...document.querySelectorAll('.frame-shot img')].filter(i => i.naturalWidth).length") > 3
        assert page.locator("img[src=x]").count() == 0
        page.evaluate("scrollTo(0, 0)")
        fits(page)
        keep_shot(page, f"batch-day-{size[0]}-{scheme}")
        has_no_violations(page)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", [SMALL_DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_the_days_are_whole_and_accessible(
        self, house: House, visit: Visit, size: tuple[int, int], scheme: str
    ) -> None:
        page = visit(house.served, "/batch", size=size, scheme=scheme)
        expect(page.locator(".day-open")).to_have_text(
            ["Monday 2 March 2026", "Sunday 1 March 2026", "Saturday 28 February 2026"]
        )
        expect(page.locator(".day-state")).to_have_text(["Not scored yet", "Scored", "Scored"])
        fits(page)
        keep_shot(page, f"batch-days-{size[0]}-{scheme}")
        has_no_violations(page)

    def test_days_are_walked_by_keyboard(self, house: House, visit: Visit) -> None:
        page = visit(house.served, "/batch", forgive="Content Security Policy")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # past the head
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Monday 2 March 2026")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Not scored yet")).to_be_visible()
        expect(page.locator("main")).to_contain_text(f"shelfwire-cloud batch run {AFTER}")
        has_no_violations(page)
        page.get_by_role("link", name="The day before").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".summary")).to_have_text("Sunday 1 March 2026")
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Batch")).to_have_attribute(
            "aria-current", "page"
        )
        first = page.locator("a.frame-shot").first
        first.focus()
        expect(first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{house.served.url}{first_address(house)}")

    def test_what_is_no_day_is_a_missing_page(self, house: House, visit: Visit) -> None:
        for path in ("/batch/yesterday", "/batch/2020-01-01", f"/batch/{NIGHT}?model=abc", "/batch/0001-01-01"):
            page = visit(house.served, path, forgive="status of 404")
            expect(page.get_by_role("heading", name="No such page")).to_be_visible()

    def test_nothing_has_come_in_yet(self, store: Store, visit: Visit, tmp_path: Path) -> None:
        with serving(store, objects=open_objects(tmp_path / "objects")) as served:
            page = visit(served, "/batch", size=PHONE)
            expect(page.get_by_role("heading", name="Nothing has come in from a night yet")).to_be_visible()
            has_no_violations(page)
            fits(page)


def first_address(house: House) -> str:
    told = httpx.get(f"{house.served.url}/api/v1/batch/{NIGHT}", timeout=30).json()
    first = told["worth"][0]
    return f"/api/v1/batch/{NIGHT}/pictures/{first['shard_sha256']}/{first['row']}.jpg"
