"""The way to a server, hop by hop: what was tried, how long it took, and who puts it right when it failed."""

import time
from dataclasses import dataclass, field

from agent.core.codes import CODES, WHO

NAMES = ("interface", "address", "gateway", "dns", "tcp", "tls", "login", "echo", "answer")
"""All hops, in their order. The broker's way ends with login and echo, the API's with its answer."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One step. `ok` is None when it was not tried, and then `detail` says why; `code` is of `agent.core.codes`."""

    name: str
    ok: bool | None
    ms: float | None
    detail: str
    code: str = ""
    cure: str = ""

    @property
    def who(self) -> str:
        """Who puts it right, in words; empty when nothing is wrong."""
        return WHO[CODES[self.code].who] if self.code in CODES else ""


@dataclass(slots=True)
class Way:
    """The way to one server, as far as it was walked."""

    target: str
    """``broker`` or ``api``."""
    address: str
    secure: bool = True
    """Whether TLS is used."""
    hops: list[Hop] = field(default_factory=list)
    skew_s: float | None = None
    """How far this machine's clock is ahead of the server's, where the server tells its own."""
    days_left: float | None = None
    """Days until the server's certificate ends."""

    @property
    def broken(self) -> Hop | None:
        """The hop that failed; None when the way is whole as far as it was walked."""
        return next((hop for hop in self.hops if hop.ok is False), None)

    def take(self, hop: Hop) -> bool:
        """Add a hop; gives whether the way goes on."""
        self.hops.append(hop)
        return hop.ok is not False


def passed(name: str, began_s: float, detail: str) -> Hop:
    """Make a hop that went well; `began_s` is when it began, on the monotonic clock."""
    return Hop(name, True, (time.monotonic() - began_s) * 1000, detail)


def failed(name: str, code: str, began_s: float, detail: str, cure: str = "") -> Hop:
    """Make a hop that failed."""
    return Hop(name, False, (time.monotonic() - began_s) * 1000, detail, code, cure or CODES[code].cure)


def untried(name: str, why: str) -> Hop:
    """Make a hop that was not tried."""
    return Hop(name, None, None, why)
