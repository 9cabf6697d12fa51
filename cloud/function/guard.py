"""Whom the host answers: callers on this machine."""

from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.function.exchange import problem
from cloud.listening import names_this_machine


class Guard:
    """Answers only under names of this machine, so that no page of a stranger can have a browser call the function."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if names_this_machine(scope):
            await self._app(scope, receive, send)
            return
        hint = "call it as http://127.0.0.1:PORT, over an SSH tunnel if need be"
        refusal = problem(421, "foreign-host", "this host answers only under the names of its own machine", hint)
        headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": refusal.body})
