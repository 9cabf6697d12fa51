"""The Jobs page in a real Chromium, over a real server, a real worker and PostgreSQL.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import Postgres
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from test_jobs import BANANA, LEMON, Worker, submit
from web_browser import CHROMIUM, DESKTOP, PHONE, fits, has_no_violations, keep_shot
from web_shop import Served, serving, shelf

from cloud.store import Store

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium here: apt-get install chromium"),
]

EVIL = "<img src=x onerror=alert(1)>.png"

Visit = Callable[..., Page]


@dataclass(frozen=True)
class House:
    served: Served
    api: httpx.Client


@pytest.fixture(scope="module")
def house(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Server and worker with a few jobs: known, unknown, refused, with a notice that nobody takes."""
    dsn = postgres.create()
    with contextlib.ExitStack() as stack:
        store = Store.open(dsn, tmp_path_factory.mktemp("page"))
        stack.callback(postgres.drop, dsn)
        stack.callback(store.close)
        worker = Worker(dsn)
        stack.callback(worker.kill)
        served = stack.enter_context(serving(store))
        api = stack.enter_context(httpx.Client(base_url=served.url, timeout=20))
        worker.ready()
        yield House(served, api)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser, house: House) -> Iterator[Visit]:
    """Opens the page; after the test it may have logged no error but those forgiven, and asked no other host."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    forgiven: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda r: None if r.url.startswith(house.served.url) else wrong.append(f"left: {r.url}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))

    def open_page(
        path: str = "/jobs",
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        forgive: str = "",
        touch: bool = False,
    ) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        made = browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB", has_touch=touch)  # type: ignore[arg-type]
        made.set_default_timeout(15_000)
        contexts.append(made)
        if forgive:
            forgiven.append(forgive)
        page = made.new_page()
        watch(page)
        page.goto(house.served.url + path)
        expect(page.locator("body")).to_have_attribute("data-link", "live")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in wrong if not any(re.search(pattern, text) for pattern in forgiven)] == []


def file(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Page, *files: dict[str, object]) -> None:
    page.set_input_files("#files", list(files))  # type: ignore[arg-type]


def drop(page: Page, name: str, content: bytes) -> None:
    """Drag a file over the page and let go."""
    page.evaluate(
        """([name, bytes]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            window.dropped = (kind) => document.body.dispatchEvent(
              new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried }));
        }""",
        [name, list(content)],
    )
    page.evaluate("dropped('dragenter')")
    expect(page.locator("#cover")).to_be_visible()
    page.evaluate("dropped('drop')")
    expect(page.locator("#cover")).to_be_hidden()


def row(page: Page, name: str):  # type: ignore[no-untyped-def]
    return page.locator(".job", has=page.locator(".job-name", has_text=name))


def test_an_empty_page_says_what_to_do_and_a_chosen_picture_is_answered(house: House, visit: Visit) -> None:
    page = visit()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#summary")).to_have_text("No jobs yet")
    has_no_violations(page)
    keep_shot(page, "jobs-empty")
    choose(page, file("banana.png", BANANA))
    expect(page.locator("#answer-label")).to_have_text("Banana")
    expect(page.locator("#answer-top li")).to_have_count(5)
    expect(page.locator("#answer-top li").first).to_contain_text("Banana")
    expect(page.locator("#answer-shot img")).to_have_js_property("complete", value=True)
    expect(page.locator("#announce")).to_contain_text("banana.png: Banana")
    expect(page.locator("#summary")).to_have_text("1 done")
    expect(row(page, "banana.png").locator(".job-open")).to_have_attribute("aria-current", "true")
    expect(page.locator(".send")).to_have_count(0)


def test_pictures_are_dropped_anywhere_and_hostile_names_stay_text(house: House, visit: Visit) -> None:
    page = visit()
    drop(page, EVIL, LEMON)
    expect(page.locator("#answer-label")).to_have_text("Lemon")
    expect(page.locator("#answer-name")).to_have_text(EVIL)
    assert page.locator("img[src=x]").count() == 0


def test_progress_is_shown_while_a_picture_is_sent(visit: Visit) -> None:
    page = visit()
    held: list[Route] = []
    page.route(
        "**/api/v1/jobs", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    choose(page, file("slow.png", BANANA))
    expect(page.locator(".send")).to_have_count(1)
    expect(page.get_by_role("progressbar", name="Sending slow.png")).to_be_visible()
    expect(page.locator(".send canvas")).to_be_visible()  # what is sent is seen before it has arrived
    has_no_violations(page)
    keep_shot(page, "jobs-sending")
    held[0].continue_()
    expect(row(page, "slow.png").locator(".job-label")).to_have_text("Banana")
    expect(page.locator(".send")).to_have_count(0)


def test_a_lost_connection_is_tried_again_and_taken_once(house: House, visit: Visit) -> None:
    """The answer is lost on its way, not the picture: the same key makes the second try the same job."""
    page = visit(forgive="ERR_FAILED")
    seen: list[str] = []

    def lose_first(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        seen.append(route.request.headers["idempotency-key"])
        if len(seen) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/api/v1/jobs", lose_first)
    choose(page, file("twice.png", BANANA))
    failed = page.locator(".send")
    expect(failed.locator(".send-say")).to_have_text("The connection was lost.")
    expect(failed.locator(".send-cure")).to_contain_text("taken only once")
    failed.get_by_role("button", name="Try again").click()
    expect(page.locator(".send")).to_have_count(0)
    expect(row(page, "twice.png")).to_have_count(1)
    assert len(set(seen)) == 1
    assert len(seen) == 2


def test_what_is_no_picture_is_refused_in_words_with_the_cure(visit: Visit) -> None:
    page = visit(forgive="status of 415")
    choose(page, file("notes.png", b"plain text"), file("empty.png", b""))
    refused = page.locator('.send[data-state="wrong"]')
    expect(refused).to_have_count(2)
    expect(refused.nth(0)).to_contain_text("This is no JPEG, PNG, WebP or BMP file.")
    expect(refused.nth(0)).to_contain_text("Give a JPEG, PNG, WebP or BMP file.")
    expect(refused.nth(1)).to_contain_text("The file is empty.")
    has_no_violations(page)
    keep_shot(page, "jobs-refused")
    for _ in range(2):
        refused.first.get_by_role("button", name="Dismiss").click()
    expect(refused).to_have_count(0)
    expect(page.locator("#choose")).to_be_focused()


def test_jobs_of_others_appear_live_and_failures_name_the_cure(house: House, visit: Visit) -> None:
    page = visit()
    whole = shelf(3, "Banana")
    submit(house.api, whole[: len(whole) // 2], name="cut.jpg", email="shop@example.com")
    expect(row(page, "cut.jpg").locator(".job-label")).to_have_text("Cannot be read")
    row(page, "cut.jpg").locator(".job-open").click()
    expect(page.locator("#fault-text")).to_have_text("The jpeg file ends too early.")
    expect(page.locator("#fault-cure")).to_have_text("What to do: copy or send the whole file again.")
    expect(page.locator(".notice-state")).to_have_text("Given up")
    expect(page.locator(".notice")).to_contain_text("--smtp")


def test_the_history_is_filtered_and_walked_by_keyboard(house: House, visit: Visit) -> None:
    page = visit()
    submit(house.api, LEMON, name="by-keyboard.png")
    expect(row(page, "by-keyboard.png").locator(".job-label")).to_have_text("Lemon")
    page.get_by_role("button", name="Refused").click()
    expect(page.locator('.job:not([data-state="failed"])')).to_have_count(0)
    expect(row(page, "cut.jpg")).to_have_count(1)
    page.get_by_role("button", name="All").focus()
    page.keyboard.press("Enter")
    expect(row(page, "by-keyboard.png")).to_have_count(1)
    row(page, "banana.png").locator(".job-open").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#answer-name")).to_have_text("banana.png")
    page.get_by_role("button", name="Given up").click()
    expect(page.locator("#jobs-none")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_whole_and_accessible(visit: Visit, size: tuple[int, int], scheme: str) -> None:
    page = visit(size=size, scheme=scheme, touch=size == PHONE)
    expect(page.locator(".job").first).to_be_visible()
    row(page, "banana.png").locator(".job-open").click()
    expect(page.locator("#answer-label")).to_have_text("Banana")
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible(visible=size == PHONE)
    expect(page.locator("#camera")).to_have_attribute("capture", "environment")
    page.get_by_text("Tell me when it is done").click()
    fits(page)
    has_no_violations(page)
    keep_shot(page, f"jobs-{'phone' if size == PHONE else 'desktop'}-{scheme}")


def test_the_pages_lead_to_each_other(visit: Visit) -> None:
    page = visit("/")
    ways = page.get_by_role("navigation", name="Pages")
    expect(ways.get_by_role("link", name="Live")).to_have_attribute("aria-current", "page")
    ways.get_by_role("link", name="Jobs").click()
    expect(page).to_have_title("Jobs · Shelfwire")
    ways.get_by_role("link", name="Live").click()
    expect(page).to_have_title("Live · Shelfwire")
