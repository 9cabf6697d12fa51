"""What the tests of pages share: a real Chromium that tells what went wrong, a shop, and its server.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from web_shop import Served, Shop, serving

from cloud.store import Store

CHROMIUM = os.environ.get("SHELFWIRE_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
SHOTS = os.environ.get("SHELFWIRE_SHOTS")
DESKTOP, PHONE = (1440, 900), (390, 844)

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium here: apt-get install chromium"),
]

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens pages; after the test none may have logged an error, run a foreign script or asked another host."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    forgiven: list[str] = []

    def watch(page: Page, origin: str) -> None:
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on(
            "request",
            lambda r: (
                None if r.url.removeprefix("blob:").startswith(origin) else wrong.append(f"left the server: {r.url}")
            ),
        )

    def open_page(
        served: Served,
        path: str = "/",
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        before: str = "",
        beside: Page | None = None,
        forgive: str = "",
        **context: object,
    ) -> Page:
        if beside is None:
            viewport = {"width": size[0], "height": size[1]}
            made = browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB", **context)  # type: ignore[arg-type]
            made.set_default_timeout(15_000)
            contexts.append(made)
        else:
            made = beside.context
        if forgive:
            forgiven.append(forgive)
        page = made.new_page()
        if before:
            page.add_init_script(before)
        watch(page, served.url)
        page.goto(served.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    left = [text for text in wrong if not any(re.search(pattern, text) for pattern in forgiven)]
    assert left == [], left


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    with serving(store) as running:
        yield running


@pytest.fixture
def shop(dsn: str) -> Iterator[Shop]:
    opened = Shop(dsn)
    yield opened
    opened.close()


def keep_shot(page: Page, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def has_no_violations(page: Page) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def fits(page: Page) -> None:
    """The page does not scroll sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
