"""Everything that the device answers: who asks is checked first, then it is the API's or the page's."""

from agent.local import oip, page
from agent.local.exchange import Refusal, Reply, Request, as_json
from agent.local.guard import HEADERS, Guard
from agent.local.oip import Oip
from agent.local.page import PUBLIC, Page


class DeviceSite:
    """`agent.local.exchange.Site` of a device."""

    def __init__(self, guard: Guard, api: Oip, pages: Page) -> None:
        self._guard = guard
        self._api = api
        self._pages = pages

    def answer(self, request: Request) -> Reply:
        """Answer a request. Raises `Refusal`."""
        self._guard.check_origin(request)
        if request.path not in PUBLIC:
            self._guard.check_login(request)
        part = self._api if _is_api(request) else self._pages
        return _guarded(part.answer(request))

    def refuse(self, request: Request | None, refusal: Refusal) -> Reply:
        """Write a refusal: for the protocol's clients in its form, for a browser as a page, else as JSON."""
        if request is not None and _is_api(request):
            return _guarded(as_json(refusal.status, oip.write_error(refusal), refusal.headers))
        if request is not None and request.wants_html:
            if refusal.code == "login" and request.method in ("GET", "HEAD"):
                return _guarded(Reply(303, headers={"Location": "/login"}))
            return _guarded(page.error_page(refusal))
        content = {"code": refusal.code, "message": str(refusal), "hint": refusal.hint}
        return _guarded(as_json(refusal.status, content, refusal.headers))


def _is_api(request: Request) -> bool:
    return request.path == "/v2" or request.path.startswith("/v2/")


def _guarded(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body, reply.content_type, {**HEADERS, **reply.headers})
