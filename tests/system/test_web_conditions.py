"""A camera that gives pictures and does not show what it should, on the Live page.

With SHELFWIRE_SHOTS=FOLDER the pages are kept there as pictures, for a person to look at.
"""

import pytest
from playwright.sync_api import expect
from web_browser import DESKTOP, NEEDS_BROWSER, PHONE, Visit, fits, has_no_violations, keep_shot
from web_shop import Served, Shop, ago, camera, shelf

from agent.camera.synthetic_faults import FAULTS
from agent.core.watching import Look, Normal, explain
from wire.records import rfc3339

import cv2  # isort: skip
import numpy as np

pytestmark = NEEDS_BROWSER


def condition(name: str, code: str, **look: float) -> dict[str, str]:
    """What a device says of a camera, in its own words."""
    fields = {"brightness": 90, "contrast": 30, "sharpness": 0.3, "dark": 0.1, "bright": 0.0, "detail": 0.1, **look}
    message, cure = explain(code, name, Look(**fields), Normal(sharpness=0.8))  # type: ignore[arg-type]
    return {"code": code, "message": message, "cure": cure, "since": rfc3339(ago(900))}


def shown(fault: str) -> bytes:
    """A shelf's picture with a fault, as JPEG."""
    picture = cv2.imdecode(np.frombuffer(shelf(3, "Banana"), np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", FAULTS[fault](np.asarray(picture, np.uint8)))[1].tobytes()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_covered_and_a_turned_camera_say_so_beside_their_answers(
    served: Served, shop: Shop, visit: Visit, size: tuple[int, int], scheme: str
) -> None:
    covered, moved = condition("bananas", "camera-covered"), condition("lemons", "camera-moved", shift=0.09, turn_deg=2)
    blurred = condition("lemons", "camera-blurred")
    warning = {
        "code": "camera-unsound", "severity": "warning", "cure": "see each camera's own code and cure",
        "text": "2 of 3 cameras do not show what they should: bananas (covered), lemons (moved, blurred)",
    }  # fmt: skip
    cameras = (
        camera("bananas", conditions=[covered]), camera("lemons", conditions=[moved, blurred]), camera("limes"),
    )  # fmt: skip
    shop.device("shop-1", cameras=cameras, warnings=(warning,))
    shop.picture("shop-1", "bananas", shown("covered"))
    shop.picture("shop-1", "lemons", shown("moved"))
    shop.picture("shop-1", "limes", shelf(5, "Lime"))
    shop.answer("shop-1", "bananas", ("Potato", 0.2), label="Banana", state="pending")
    shop.answer("shop-1", "lemons", ("Lemon", 0.9))
    shop.answer("shop-1", "limes", ("Lime", 0.9))
    page = visit(served, size=size, scheme=scheme)
    tiles = {name: page.locator(f'.tile[data-key="shop-1/{name}"]') for name in ("bananas", "lemons", "limes")}
    said = tiles["bananas"].locator(".unsound li")
    expect(said).to_have_count(1)
    expect(said.locator("strong")).to_have_text(
        "The camera is covered by something: 90 % of what it normally shows cannot be seen"
    )
    expect(said.locator("code")).to_have_text("camera-covered")
    expect(tiles["bananas"].locator(".state-text")).to_have_text("Not counted: the camera sees nothing")
    expect(tiles["bananas"].locator(".veil")).to_be_hidden()
    expect(tiles["lemons"].locator(".unsound li")).to_have_count(2)
    expect(tiles["lemons"].locator(".state-text")).to_have_text("Confirmed")
    expect(tiles["limes"].locator(".unsound")).to_be_hidden()
    expect(page.locator("#summary")).to_have_text("1 of 3 cameras working · 2 do not show what they should")
    has_no_violations(page)
    fits(page)
    keep_shot(page, f"conditions-{size[0]}-{scheme}")


def test_it_goes_away_by_itself_when_the_camera_is_well_again(served: Served, shop: Shop, visit: Visit) -> None:
    shop.device("shop-1", cameras=(camera("bananas", conditions=[condition("bananas", "camera-black")]),))
    shop.answer("shop-1", "bananas", ("Banana", 0.9), state="pending")
    page = visit(served)
    expect(page.locator(".unsound li")).to_have_count(1)
    shop.device("shop-1", cameras=(camera("bananas"),))
    expect(page.locator(".unsound")).to_be_hidden()
    expect(page.locator("#summary")).to_have_text("The camera is working")
