"""The device's page: its files, what it shows as JSON, the cameras' pictures, and the way in with a password."""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Protocol
from urllib.parse import parse_qs

from agent.local.exchange import HTML, Refusal, Reply, Request, as_json
from agent.local.guard import Guard
from agent.local.looking import WIDE, WIDTH, Looking

PICTURE_WAIT_S = 1.0
"""How long a request for a picture waits for a frame that is newer than the one it knows."""
MOST_FORM_BYTES = 4096
KEPT = 10**12
"""Stands for the number of a kept picture, which is no frame of this run: sent once, then a newer one is awaited."""

KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
PUBLIC = frozenset({"/login", "/assets/local.css", "/assets/icon.svg"})
"""What is shown before the password is given."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The last picture that was kept of a camera, and its age."""

    jpeg: bytes
    age_ms: int


class Facts(Protocol):
    """What the page says, and the last picture that was kept of a camera; gathered by `agent.app.local_facts`."""

    def state(self) -> Mapping[str, object]:
        """Give everything the page shows, as JSON objects."""
        ...

    def kept(self, camera: str) -> Kept | None:
        """Give the last picture that was kept of a camera that shows nothing now."""
        ...


class Page:
    """Answers everything but the API."""

    def __init__(self, facts: Facts, looking: Looking, guard: Guard, now_ns: Callable[[], int]) -> None:
        self._facts = facts
        self._looking = looking
        self._guard = guard
        self._now_ns = now_ns

    def answer(self, request: Request) -> Reply:
        """Answer a request. Raises `Refusal`."""
        path = request.path
        if path == "/login":
            return self._login(request)
        if path == "/logout":
            _need(request, "POST")
            return Reply(303, headers={"Location": "/login", "Set-Cookie": self._guard.log_out(request)})
        _need(request, "GET", "HEAD")
        if path == "/":
            return Reply(200, _asset("page.html"), HTML)
        if path == "/local/state":
            return as_json(200, {**self._facts.state(), "password": self._guard.asks_for_password})
        camera = re.fullmatch(r"/local/cameras/([A-Za-z0-9_.-]{1,64})\.jpg", path)
        if camera and self._looking.knows(camera[1]):
            return self._picture(camera[1], request.query)
        asset = re.fullmatch(r"/assets/([a-z]+\.(css|js|svg))", path)
        if asset and _has(asset[1]):
            return Reply(200, _asset(asset[1]), KINDS[asset[2]], {"Cache-Control": "no-cache"})
        raise Refusal(404, "no-such-page", "there is nothing at this address", "open the device's own page at /")

    def _picture(self, camera: str, query: Mapping[str, str]) -> Reply:
        known = query.get("after", "0")
        after = int(known) if known.isascii() and known.isdigit() and len(known) < 19 else 0
        shown = self._looking.picture(camera, after, WIDE if query.get("wide") == "1" else WIDTH, PICTURE_WAIT_S)
        if shown is not None:
            return _picture(shown.jpeg, shown.number, (self._now_ns() - shown.captured_ns) // 1_000_000)
        kept = self._facts.kept(camera) if after == 0 else None
        return Reply(204, content_type="image/jpeg") if kept is None else _picture(kept.jpeg, KEPT, kept.age_ms)

    def _login(self, request: Request) -> Reply:
        if request.method != "POST":
            _need(request, "GET", "HEAD", "POST")
            return login_page("")
        form = request.read_body(MOST_FORM_BYTES).decode("utf-8", "replace")
        given = parse_qs(form, keep_blank_values=True, max_num_fields=4).get("password", [""])[0]
        try:
            cookie = self._guard.log_in(request, given)
        except Refusal as refusal:
            page = login_page(f"{_sentence(str(refusal))}.")  # where it stands is said below
            return Reply(refusal.status, page.body, HTML, refusal.headers)
        return Reply(303, headers={"Location": "/", "Set-Cookie": cookie})


def login_page(said: str) -> Reply:
    """Write the page that asks for the password; `said` is why it asks again."""
    return Reply(200, _filled("login.html", said=said, hidden="" if said else "hidden"), HTML)


def error_page(refusal: Refusal) -> Reply:
    """Write a refusal for a person."""
    texts = {"title": _sentence(str(refusal)), "hint": f"{_sentence(refusal.hint)}.", "code": refusal.code}
    return Reply(refusal.status, _filled("error.html", **texts), HTML, refusal.headers)


def _picture(jpeg: bytes, number: int, age_ms: int) -> Reply:
    return Reply(200, jpeg, "image/jpeg", {"Shelfwire-Frame": str(number), "Shelfwire-Age-Ms": str(age_ms)})


def _need(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allow = {"Allow": ", ".join(methods)}
        raise Refusal(405, "wrong-method", "this address does not take that", f"use {methods[0]}", allow)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _has(name: str) -> bool:
    return (resources.files("agent.local") / "assets" / name).is_file()


@cache
def _asset(name: str) -> bytes:
    return (resources.files("agent.local") / "assets" / name).read_bytes()


def _filled(name: str, **texts: str) -> bytes:
    text = _asset(name).decode()
    for key, value in texts.items():
        text = text.replace(f"{{{{{key}}}}}", html.escape(value))
    return text.encode()
