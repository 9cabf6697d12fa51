"""Who may speak to this server, and what a browser may do with its pages. There are no accounts yet: loopback only."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.listening import names_this_machine
from cloud.web import problems

_CSP = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer with a page or data for one."""

PLAIN_FILES = "/repository/"
"""Below this are files for devices, which pay for every byte of a check: no page, no script, nothing to guard."""


class Guard:
    """Refuses requests made under a foreign name (DNS rebinding) and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in () if scope["path"].startswith(PLAIN_FILES) else HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if names_this_machine(scope):
            await self._app(scope, receive, send_with_headers)
            return
        refusal = problems.answer(
            421,
            "foreign-host",
            "this server answers only under the names of its own machine",
            "open it as http://localhost:PORT, over an SSH tunnel, or through a proxy that checks who asks and sends "
            "the header Host: localhost",
        )
        await refusal(scope, receive, send_with_headers)
