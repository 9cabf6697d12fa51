"""The device's page in a real browser, at a phone and a desktop, served by a real vision process."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from local_device import Running, camera, running, wait_for_answers
from playwright.sync_api import Page, expect
from web_browser import DESKTOP, NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot

from models import decode_picture

pytestmark = NEEDS_BROWSER
PATIENCE_MS = 20_000
MASK = "mask = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]\n"
"""The left half of a picture."""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    cameras = camera("bananas", "synthetic:1?width=640&height=360")
    cameras += camera("entrance", "synthetic:2?width=640&height=360") + MASK
    cameras += camera("scale", "rtsp://127.0.0.1:9/s1")
    with running(tmp_path_factory.mktemp("device"), cameras) as one:
        yield one


def is_told(page: Page) -> None:
    """Wait until the page shows a picture, its answer and the doctor's look."""
    page.locator(".tile .shot img:not([hidden])").first.wait_for(timeout=PATIENCE_MS)
    page.locator('[data-mood="failure"] .mood').wait_for(timeout=PATIENCE_MS)
    expect(page.locator('.tile[data-camera="bananas"][data-answer="confirmed"]')).to_be_visible(timeout=PATIENCE_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_it_fits_and_everybody_can_use_it(device: Running, visit: Visit, size: tuple[int, int], scheme: str) -> None:
    page = visit(device, size=size, scheme=scheme)
    is_told(page)
    fits(page)
    has_no_violations(page)
    keep_shot(page, f"local-{size[0]}-{scheme}")
    page.locator(".open").first.focus()
    page.keyboard.press("Enter")
    alone = page.get_by_role("dialog")
    expect(alone.locator(".shot img")).to_be_visible()
    fits(page)
    has_no_violations(page)
    keep_shot(page, f"local-alone-{size[0]}-{scheme}")
    page.keyboard.press("Escape")
    expect(alone).to_be_hidden()
    expect(page.locator(".open").first).to_be_focused()
    page.set_viewport_size({"width": 320, "height": 568})
    fits(page)


def test_it_says_what_is_wrong_with_the_cure_and_a_code_to_read_out(device: Running, visit: Visit) -> None:
    page = visit(device)
    is_told(page)
    expect(page.locator("#device")).to_have_text("till-3")
    ill = page.locator('.tile[data-camera="scale"]')
    expect(ill).to_contain_text("nothing listens on port 9")
    expect(ill).to_contain_text("Check the port")
    expect(ill).to_contain_text("CAM-1")
    expect(page.locator("#spoken")).to_contain_text("CAM-1")
    expect(page.locator("#f-outbox")).to_contain_text("wait")
    page.get_by_text("checks").click()
    expect(page.locator("#checks-list")).to_contain_text("produce 1.")


def test_ages_count_up_and_a_device_that_stops_answering_is_told(device: Running, visit: Visit) -> None:
    page = visit(device, size=PHONE, forgive="Failed to load resource|ERR_|signal timed out")
    is_told(page)
    seen = page.locator('.tile[data-camera="bananas"]')
    expect(seen).to_have_attribute("data-fresh", "fresh")
    device.process.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("#banner")).to_contain_text("does not answer", timeout=PATIENCE_MS)
        expect(seen).to_have_attribute("data-fresh", "stale")
        before = seen.locator(".age").inner_text()
        expect(seen.locator(".age")).not_to_have_text(before, timeout=5000)
        fits(page)
        has_no_violations(page)
        keep_shot(page, "local-lost")
    finally:
        device.process.send_signal(signal.SIGCONT)
    expect(page.locator("#link-text")).to_have_text("Live", timeout=PATIENCE_MS)
    expect(page.locator("#banner")).to_be_hidden()
    expect(seen).to_have_attribute("data-fresh", "fresh", timeout=PATIENCE_MS)


def test_what_is_not_there_has_a_page_that_leads_back(device: Running, visit: Visit) -> None:
    page = visit(device, "/nothing<script>", forgive="404")
    expect(page.get_by_role("heading")).to_have_text("There is nothing at this address")
    has_no_violations(page)
    page.get_by_role("link").click()
    expect(page.locator("#device")).to_have_text("till-3")
    assert requests.get(f"{device.url}/assets/../page.html", timeout=10).status_code == 404
    assert requests.get(f"{device.url}/local/cameras/else.jpg", timeout=10).json()["code"] == "no-such-page"
    assert requests.put(f"{device.url}/", timeout=10).status_code == 405


def test_a_picture_is_newer_than_the_one_that_is_known_and_never_shows_a_privacy_zone(device: Running) -> None:
    wait_for_answers(device.url, "entrance")
    address = f"{device.url}/local/cameras/entrance.jpg"
    first = next(got for got in (requests.get(address, timeout=10) for _ in range(20)) if got.status_code == 200)
    number = first.headers["Shelfwire-Frame"]
    newer = requests.get(address, {"after": number, "wide": "1"}, timeout=10)
    assert newer.headers["Shelfwire-Frame"] != number
    assert int(newer.headers["Shelfwire-Age-Ms"]) < 2000
    for answer in (first, newer):
        picture = decode_picture(answer.content)
        middle = picture.shape[1] // 2
        assert picture[:, : middle - 16].std() < 4  # one tone, but for what JPEG adds
        assert picture[:, middle + 16 :].std() > 10


def test_with_a_password_one_logs_in_and_out(tmp_path: Path, visit: Visit) -> None:
    (tmp_path / "password").write_text("a long one\n")
    local = f'password_file = "{tmp_path / "password"}"'
    with running(tmp_path / "device", camera("bananas", "synthetic:1?width=640&height=360"), local) as locked:
        page = visit(locked, size=PHONE, forgive="40[13]")
        expect(page.get_by_role("heading")).to_have_text("This device asks for a password")
        has_no_violations(page)
        page.get_by_label("Password").fill("nothing")
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("That is not the password")
        has_no_violations(page)
        keep_shot(page, "local-login")
        page.get_by_label("Password").fill("a long one")
        page.get_by_role("button").click()
        expect(page.locator(".tile .shot img")).to_be_visible(timeout=PATIENCE_MS)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading")).to_have_text("This device asks for a password")
        page.get_by_label("Password").fill("a long one")
        page.get_by_role("button").click()
        expect(page.locator("#device")).to_have_text("till-3")
        page.context.clear_cookies()  # as when vision has started anew
        asked = page.get_by_role("heading", name="This device asks for a password")
        expect(asked).to_be_visible(timeout=PATIENCE_MS)
        page.close()  # before the device goes: what it still loads would be cut off
