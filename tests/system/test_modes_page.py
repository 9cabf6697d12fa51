"""The Modes page, and late answers on the Live page, in a real Chromium over a real server and PostgreSQL.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import re
from collections.abc import Iterator

import pytest
from conftest import Postgres
from playwright.sync_api import expect
from web_browser import NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot
from web_shop import Served, Shop, camera, serving

from cloud.store import Store

SMALL_DESKTOP = (1280, 800)

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def busy(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Shop]]:
    """A server on a shop that all four ways have answered, for tests that only look."""
    dsn = postgres.create()
    store = Store.open(dsn, tmp_path_factory.mktemp("busy"))
    shop = Shop(dsn)
    shop.fill()
    shop.history()
    shop.late_answers()
    with serving(store) as running:
        yield running, shop
    shop.close()
    store.close()
    postgres.drop(dsn)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL_DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_four_ways_stand_side_by_side(
    busy: tuple[Served, Shop], visit: Visit, size: tuple[int, int], scheme: str
) -> None:  # fmt: skip
    page = visit(busy[0], "/modes", size=size, scheme=scheme)
    expect(page.locator("#summary")).to_have_text("4 of 4 ways in use in the last 15 minutes")
    expect(page.locator(".way-name")).to_have_text(["Real-time", "Serverless", "Asynchronous", "Batch"])
    for way in page.locator(".way").all():
        expect(way.locator(".way-p50")).to_be_visible()
        expect(way.locator(".flow-plot")).to_have_accessible_name(re.compile("answers per minute on average"))
        expect(way.locator(".flow-line")).to_have_attribute("d", re.compile("^M"))
    expect(page.locator("#spans-plot svg")).to_have_accessible_name(
        re.compile("^Real-time: half within .+ ms.+Batch: half")
    )
    table = page.get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_count(4)
    expect(table.get_by_role("rowheader", name="Cost of 1,000")).to_be_visible()
    expect(table.get_by_role("row", name="Agrees with the device")).to_contain_text(re.compile(r"\d+% of \d+"))
    expect(page.locator('[aria-current="page"]')).to_have_text("Modes")
    fits(page)
    keep_shot(page, f"modes-{size[0]}-{scheme}")
    has_no_violations(page)


def test_a_way_without_answers_says_what_to_do_and_fills_by_itself(
    served: Served, shop: Shop, visit: Visit
) -> None:  # fmt: skip
    page = visit(served, "/modes", size=PHONE)
    expect(page.locator(".none-title")).to_have_text(
        ["No real-time answer yet", "No serverless answer yet", "No asynchronous answer yet", "No batch answer yet"]
    )
    expect(page.locator("#way-batch .none-cure code")).to_have_text("shelfwire-cloud batch run DATE")
    fits(page)
    keep_shot(page, "modes-empty")
    has_no_violations(page)
    shop.device("shop-1", cameras=(camera("shelf"),))
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    shop.late("shop-1", "shelf", ("Banana", 0.9), mode="batch", age_s=7200, late_s=30_000)
    expect(page.locator("#way-real-time .way-p50")).to_have_text("18 ms", timeout=20_000)  # asked anew every 5 s
    expect(page.locator("#way-batch .none-title")).to_have_text("None in the last 15 minutes")
    expect(page.locator("#way-batch .way-new")).to_have_text("Newest 2 h ago")


def test_the_time_is_chosen_by_keyboard_and_kept_in_the_address(busy: tuple[Served, Shop], visit: Visit) -> None:
    page = visit(busy[0], "/modes")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(len(page.locator(".ways a").all()) + 2):
        page.keyboard.press("Tab")
    day = page.get_by_role("button", name="24 hours")
    expect(day).to_be_focused()
    page.keyboard.press("Enter")
    expect(day).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#summary")).to_have_text("4 of 4 ways in use in the last 24 hours")
    page.reload()
    expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("width", [320, 720], ids=["320 px", "1440 px at 200 %"])
def test_nothing_is_cut_off_when_it_is_narrow(busy: tuple[Served, Shop], visit: Visit, width: int) -> None:
    page = visit(busy[0], "/modes", size=(width, 600))
    expect(page.locator("#spans-plot svg")).to_be_visible()
    fits(page)


# -- late answers on the Live page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL_DESKTOP, PHONE], ids=["desktop", "phone"])
def test_late_answers_are_marked_as_late(
    busy: tuple[Served, Shop], visit: Visit, size: tuple[int, int], scheme: str
) -> None:  # fmt: skip
    served, shop = busy
    shop.live_answers()
    shop.late_answers()
    page = visit(served, size=size, scheme=scheme)
    alone = page.locator('.tile[data-key="harbour-01/vegetables-2"]')
    expect(alone.locator(".mode")).to_have_text("serverless")
    expect(alone.locator(".took")).to_have_text(re.compile(r"^Late: answered 1\.3 s after capture$"))
    lemon = page.locator('.tile[data-key="harbour-01/fruit-2"]')
    expect(lemon.locator(".also")).to_have_text("Serverless says Lemon 91%, disagrees")
    row = page.locator(".device-row", has_text="harbour-01")
    expect(row.locator(".shares-frames")).to_contain_text("97% answered here · 2% sent to the function")
    expect(row.locator(".shares-answers")).to_contain_text("asynchronous")
    fits(page)
    keep_shot(page, f"live-modes-{size[0]}-{scheme}")
    has_no_violations(page)
    lemon.locator(".open").click()
    late = page.locator("#closer-late li").first
    expect(late).to_contain_text("Serverless says Lemon 91%, disagrees")
    expect(late).to_contain_text("answered 1.1 s after capture")
    has_no_violations(page)
    keep_shot(page, f"closer-modes-{size[0]}-{scheme}")
