"""The Live page in a real Chromium, over a real server and PostgreSQL.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import re
from collections.abc import Iterator

import pytest
from conftest import Postgres
from playwright.sync_api import Page, expect
from web_browser import DESKTOP, NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot
from web_shop import Served, Shop, ago, camera, serving, shelf

from cloud.store import Store

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def filled(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Shop]]:
    """A server on a shop with cameras in all states, for tests that only look."""
    dsn = postgres.create()
    store = Store.open(dsn, tmp_path_factory.mktemp("filled"))
    shop = Shop(dsn)
    shop.fill()
    with serving(store) as served:
        yield served, shop
    shop.close()
    store.close()
    postgres.drop(dsn)


def tile(page: Page, name: str, device: str = "shop-1"):  # type: ignore[no-untyped-def]
    return page.locator(f'.tile[data-key="{device}/{name}"]')


# -- how it looks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_whole_and_accessible(
    filled: tuple[Served, Shop], visit: Visit, size: tuple[int, int], scheme: str
) -> None:
    served, shop = filled
    shop.live_answers()
    page = visit(served, size=size, scheme=scheme)
    expect(page.locator(".tile")).to_have_count(7)
    apple = tile(page, "fruit-1", "harbour-01")
    expect(apple.locator(".words > .label")).to_have_text("Granny Smith")
    expect(apple.locator(".value")).to_have_text("97%")
    expect(apple.locator(".mode")).to_have_text("real-time")
    expect(apple.locator(".took")).to_have_text("18 ms")
    expect(apple.locator(".state-text")).to_have_text("Confirmed")
    expect(apple.locator(".truth")).to_have_text("✓ Correct")
    expect(apple.locator(".age")).to_have_text(re.compile(r"^\d+(\.\d)? s ago$"))
    expect(apple.locator("img")).to_be_visible()
    expect(tile(page, "fruit-2", "harbour-01").locator(".state-text")).to_have_text("Changing to Lime?")
    guess = tile(page, "vegetables-1", "harbour-01")
    expect(guess.locator(".words > .label")).to_have_text("Unknown")
    expect(guess.locator(".value")).to_have_text("best guess Carrots 31%")
    expect(guess.locator(".truth")).to_have_text("✗ Really Carrots")
    ill = tile(page, "entrance", "harbour-01").locator(".veil")
    expect(ill).to_contain_text("The camera refuses the login")
    expect(ill).to_contain_text("Correct username and password_file")
    expect(ill).to_contain_text("camera-auth")
    gone = tile(page, "window-1", "station-07")
    expect(gone.locator(".veil")).to_contain_text("The connection to the device is lost")
    expect(gone.locator(".age")).to_have_text(re.compile(r"^No answer for \d+ min$"))
    expect(page.locator(".device-row").first).to_contain_text("station-07")
    expect(page.locator(".device-row").first).to_contain_text("Offline since")
    expect(page.locator(".device-row").last).to_contain_text("4 of 5 working")
    expect(page.locator("#alerts-open .alert")).to_have_count(1)
    expect(page.locator("#alerts-open")).to_contain_text("Vine Tomato")
    expect(page.locator("#alerts-recent")).to_contain_text("Banana")
    expect(page.locator("#link-text")).to_have_text("Live")
    assert page.title() == "(1) Live · Shelfwire"
    fits(page)
    keep_shot(page, f"live-{size[0]}-{scheme}")
    has_no_violations(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_larger_view_is_accessible_and_stays_live(filled: tuple[Served, Shop], visit: Visit, scheme: str) -> None:
    served, shop = filled
    shop.live_answers()
    page = visit(served, scheme=scheme)
    tile(page, "fruit-1", "harbour-01").locator(".open").click()
    closer = page.locator("#closer")
    expect(closer.locator("h2")).to_have_text("fruit-1")
    expect(closer.locator("#closer-label")).to_have_text("Granny Smith")
    expect(closer.locator("#closer-ranks li")).to_have_count(3)
    expect(closer.locator("#closer-list")).to_contain_text("real-time, produce 0.1.0")
    expect(closer.locator("#closer-list")).to_contain_text("UTC")
    expect(closer.locator("img")).to_be_visible()
    has_no_violations(page)
    keep_shot(page, f"closer-{scheme}")
    seq = shop.answer("harbour-01", "fruit-1", ("Pear", 0.7))
    expect(closer.locator("#closer-label")).to_have_text("Pear")
    expect(closer.locator("#closer-list")).to_contain_text(f"harbour-01/00112233445566aa/{seq}")


@pytest.mark.parametrize("width", [320, 720], ids=["320 px", "1440 px at 200 %"])
def test_nothing_is_cut_off_when_it_is_narrow_or_zoomed(filled: tuple[Served, Shop], visit: Visit, width: int) -> None:
    page = visit(filled[0], size=(width, 600), reduced_motion="reduce")
    expect(page.locator(".tile")).to_have_count(7)
    fits(page)
    assert page.evaluate("getComputedStyle(document.querySelector('.fill')).transitionDuration") == "0s"
    page.locator(".tile .open").first.click()
    box = page.locator("#closer").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_long_labels_push_nothing_out_of_their_tile(filled: tuple[Served, Shop], visit: Visit, width: int) -> None:
    page = visit(filled[0], size=(width, 844))
    expect(page.locator(".tile")).to_have_count(7)
    long = "Tropicana-Mandarin-Morning-With-Extra-Pulp"
    filled[1].answer("harbour-01", "fruit-1", (f"{long}-1", 0.8), (f"{long}-2", 0.1), (f"{long}-3", 0.05))
    camera = tile(page, "fruit-1", "harbour-01")
    expect(camera.locator(".words > .label")).to_contain_text("Tropicana Mandarin")
    edge = camera.bounding_box()
    score = camera.locator(".value").bounding_box()
    assert edge is not None
    assert score is not None
    assert score["x"] + score["width"] <= edge["x"] + edge["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_other_pages_are_accessible(filled: tuple[Served, Shop], visit: Visit, scheme: str) -> None:
    page = visit(filled[0], "/api/v1/docs", scheme=scheme)
    expect(page.locator(".call").first).to_be_visible()
    has_no_violations(page)
    page = visit(filled[0], "/nope", scheme=scheme, forgive="404")
    expect(page.locator("h1")).to_have_text("No such page")
    has_no_violations(page)


# -- how it lives ------------------------------------------------------------------------------------------------------


def test_an_empty_cloud_says_what_to_do_and_fills_by_itself(served: Served, shop: Shop, visit: Visit) -> None:
    page = visit(served)
    expect(page.locator("#empty")).to_contain_text("No devices yet")
    expect(page.locator("#empty code").first).to_have_text("scripts/demo")
    expect(page.locator("#alerts-none")).to_be_visible()
    has_no_violations(page)
    shop.device("shop-1")
    expect(page.locator("#empty")).to_contain_text("No cameras yet")
    expect(page.locator("#empty")).to_contain_text("shop-1")
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    expect(tile(page, "shelf").locator(".words > .label")).to_have_text("Banana")
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#summary")).to_have_text("The camera is working")


def test_what_changes_arrives_without_a_reload(served: Served, shop: Shop, visit: Visit) -> None:
    shop.device("shop-1", cameras=(camera("shelf"),))
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    shop.picture("shop-1", "shelf", shelf(3, "Banana"))
    page = visit(served)
    label, image = tile(page, "shelf").locator(".words > .label"), tile(page, "shelf").locator("img")
    expect(label).to_have_text("Banana")
    expect(image).to_be_visible()
    page.evaluate("window.sameVisit = true")
    before = image.get_attribute("src")
    shop.answer("shop-1", "shelf", ("Granny-Smith", 0.8))
    expect(label).to_have_text("Granny Smith")
    shop.picture("shop-1", "shelf", shelf(3, "Granny-Smith"))
    expect(image).not_to_have_attribute("src", str(before))
    assert page.evaluate("window.sameVisit")


def test_tiles_keep_their_places(served: Served, shop: Shop, visit: Visit) -> None:
    for name in ("shelf-10", "shelf-2", "shelf-1"):
        shop.answer("shop-1", name, ("Banana", 0.9))
    page = visit(served)
    expect(page.locator(".tile .camera")).to_have_text(["shelf-1", "shelf-2", "shelf-10"])
    shop.answer("shop-1", "shelf-3", ("Banana", 0.9))
    expect(page.locator(".tile .camera")).to_have_text(["shelf-1", "shelf-2", "shelf-3", "shelf-10"])


def test_what_is_old_is_not_shown_as_fresh(served: Served, shop: Shop, visit: Visit) -> None:
    shop.device("shop-1", cameras=(camera("shelf"),))
    page = visit(served)
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    expect(tile(page, "shelf")).to_have_attribute("data-fresh", "fresh")
    shop.answer("shop-1", "shelf", ("Banana", 0.9), age_s=9)
    expect(tile(page, "shelf")).to_have_attribute("data-fresh", "stale")
    expect(tile(page, "shelf").locator(".age")).to_have_text(re.compile(r"^No answer for 1\d s$"))
    expect(page.locator("#summary")).to_contain_text("0 of 1 cameras working")
    shop.answer("shop-1", "shelf", ("Lime", 0.9))
    expect(tile(page, "shelf")).to_have_attribute("data-fresh", "fresh")
    shop.device("shop-1", state="offline")
    expect(tile(page, "shelf").locator(".veil")).to_contain_text("Check its power and network")
    expect(page.locator(".device-row")).to_contain_text("Offline since")


WRONG_CLOCK = """
const Real = Date, shift = SHIFT;
class Wrong extends Real {
  constructor(...given) { given.length ? super(...given) : super(Real.now() + shift); }
  static now() { return Real.now() + shift; }
}
globalThis.Date = Wrong;
"""


@pytest.mark.parametrize("shift_s", [-3 * 86_400, 3 * 86_400])
def test_ages_are_right_when_the_viewers_clock_is_wrong(served: Served, shop: Shop, visit: Visit, shift_s: int) -> None:
    shop.answer("shop-1", "shelf", ("Banana", 0.9), age_s=3)
    page = visit(served, before=WRONG_CLOCK.replace("SHIFT", str(shift_s * 1000)))
    expect(tile(page, "shelf").locator(".age")).to_have_text(re.compile(r"^(\d+(\.\d)? s ago|No answer for \d+ s)$"))


def test_seven_tabs_stay_live_over_one_stream(served: Served, shop: Shop, visit: Visit) -> None:
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    first = visit(served)
    tabs = [first, *(visit(served, beside=first) for _ in range(6))]
    for tab in tabs:
        expect(tile(tab, "shelf").locator(".words > .label")).to_have_text("Banana")
    assert served.hub.viewers == 1
    shop.answer("shop-1", "shelf", ("Lime", 0.9))
    for tab in tabs:
        expect(tile(tab, "shelf").locator(".words > .label")).to_have_text("Lime")
        expect(tab.locator("#link-text")).to_have_text("Live")
    first.close()
    shop.answer("shop-1", "shelf", ("Kiwi", 0.9))
    expect(tile(tabs[-1], "shelf").locator(".words > .label")).to_have_text("Kiwi")


def test_a_browser_without_shared_workers_is_live_too(served: Served, shop: Shop, visit: Visit) -> None:
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    page = visit(served, before="delete globalThis.SharedWorker")
    label = tile(page, "shelf").locator(".words > .label")
    expect(label).to_have_text("Banana")
    shop.answer("shop-1", "shelf", ("Lime", 0.9))
    expect(label).to_have_text("Lime")


def test_a_server_that_stops_is_told_and_its_return_needs_no_reload(store: Store, shop: Shop, visit: Visit) -> None:
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    with serving(store) as served:
        page = visit(served, forgive="ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY|ERR_CONNECTION_RESET")
        expect(page.locator("#link-text")).to_have_text("Live")
        page.evaluate("window.sameVisit = true")
    expect(page.locator("#link-text")).to_have_text(re.compile(r"^Reconnecting · data is \d+(\.\d)? s old$"))
    expect(page.locator("body")).to_have_attribute("data-link", "lost")
    keep_shot(page, "reconnecting")
    with serving(store, served.address.port):
        shop.answer("shop-1", "shelf", ("Lime", 0.9))
        expect(page.locator("#link-text")).to_have_text("Live")
        expect(tile(page, "shelf").locator(".words > .label")).to_have_text("Lime")
        assert page.evaluate("window.sameVisit")


# -- what it must never do ---------------------------------------------------------------------------------------------

HOSTILE = (
    "<img src=x onerror='window.pwned=1'>",
    "<script>window.pwned=1</script>",
    '"><svg onload=window.pwned=1>',
    "{{7*7}}${7*7}",
    "javascript:window.pwned=1",
    "\u202egnp.tset",
    "W" * 64,
)


def test_hostile_words_are_only_words(served: Served, shop: Shop, visit: Visit) -> None:
    for n, text in enumerate(HOSTILE):
        shop.answer("shop-1", f"shelf-{n}", (text[:64], 0.9), (f"b{text}"[:64], 0.05), truth=text[:64])
        shop.alert("shop-1", f"shelf-{n}", text[:64], rule="rule")
    ill = camera("broken", phase="failed", code=HOSTILE[2][:48], message=HOSTILE[0], cure=HOSTILE[1])
    warning = {"code": "x", "severity": "failure", "text": HOSTILE[0], "cure": HOSTILE[1]}
    shop.device("shop-1", store=HOSTILE[0], cameras=(ill,), warnings=[warning], runtime=HOSTILE[2], agent=HOSTILE[3])
    shop.device('"><img src=x onerror=window.pwned=1>', store=HOSTILE[1])
    shop.answer("evil/../device", "<b>camera</b>", ("Banana", 0.9))
    page = visit(served)
    expect(page.locator(".tile")).to_have_count(len(HOSTILE) + 2)
    expect(tile(page, "shelf-0").locator(".words > .label")).to_have_text("<img src=x onerror='window.pwned=1'>")
    expect(tile(page, "shelf-5").locator(".words > .label")).to_have_text("Gnp.tset")
    expect(tile(page, "broken").locator(".veil")).to_contain_text(HOSTILE[1])
    expect(page.locator(".warnings").first).to_contain_text(HOSTILE[1])
    tile(page, "shelf-1").locator(".open").click()
    expect(page.locator("#closer-label")).to_have_text("<script>window.pwned=1</script>")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main svg[onload], main img[onerror], main b").count() == 0
    page.keyboard.press("Escape")
    fits(page)
    keep_shot(page, "hostile")


# -- without a mouse, without eyes -------------------------------------------------------------------------------------


def test_everything_is_reached_by_keyboard(filled: tuple[Served, Shop], visit: Visit) -> None:
    page = visit(filled[0])
    expect(page.locator(".tile")).to_have_count(7)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = page.locator(".tile .open").first
    expect(first).to_be_focused()
    expect(first).to_have_accessible_name(re.compile("^Enlarge .+ of .+"))
    assert page.evaluate("getComputedStyle(document.querySelector('.tile')).outlineStyle") == "solid"
    head, focused = page.locator(".top").bounding_box(), first.bounding_box()
    assert head is not None
    assert focused is not None
    assert focused["y"] >= head["y"] + head["height"], "what has the focus is hidden under the head"
    keep_shot(page, "focus")
    page.keyboard.press("Enter")
    expect(page.locator("#closer")).to_be_visible()
    expect(page.locator("#closer-close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#closer")).to_be_hidden()
    expect(first).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#closer")).to_be_visible()
    page.locator("#closer-close").press("Enter")
    expect(page.locator("#closer")).to_be_hidden()


def test_a_screen_reader_hears_of_alerts_and_not_of_frames(served: Served, shop: Shop, visit: Visit) -> None:
    shop.device("shop-1", cameras=(camera("shelf"),))
    shop.answer("shop-1", "shelf", ("Banana", 0.9))
    shop.alert("shop-1", "shelf", "Lime", rule="old", since=ago(60))
    page = visit(served)
    expect(page.locator("#summary")).to_have_text("The camera is working · 1 alert")
    page.evaluate("""() => {
      window.said = [];
      for (const region of document.querySelectorAll('[role=status], [role=alert], [aria-live]'))
        new MutationObserver(() => window.said.push(region.textContent))
          .observe(region, { childList: true, characterData: true, subtree: true });
    }""")
    for _ in range(5):
        seq = shop.answer("shop-1", "shelf", ("Lime", 0.9), ("Banana", 0.01))
        tile(page, "shelf").locator(".open").click()
        expect(page.locator("#closer-list")).to_contain_text(f"/{seq}")
        page.keyboard.press("Escape")
    assert page.evaluate("window.said") == []
    shop.alert("shop-1", "shelf", "Granny-Smith", rule="new")
    expect(page.locator("#announce")).to_have_text("Alert: Granny Smith at shelf, shop-1")
    assert "The camera is working · 2 alerts" in page.evaluate("window.said")


def test_many_devices_are_folded_the_ill_first(served: Served, shop: Shop, visit: Visit) -> None:
    for n in range(7):
        shop.device(f"shop-{n}", cameras=(camera("shelf"),), state="offline" if n == 6 else "online")
    page = visit(served)
    expect(page.locator(".device-row")).to_have_count(4)
    expect(page.locator(".device-row .name").first).to_have_text("shop-6")
    more = page.locator("#devices-more")
    expect(more).to_have_text("Show all 7 devices")
    more.press("Enter")
    expect(page.locator(".device-row")).to_have_count(7)
    expect(more).to_have_attribute("aria-expanded", "true")
