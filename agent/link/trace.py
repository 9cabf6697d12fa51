"""Walks the ways to the broker and to the API, each up to the first hop that fails, and says what that means."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from agent.config import Config
from agent.link import ask, reach, tls
from agent.link.echo import CODES, log_in_and_echo
from agent.link.hops import Hop, Way, failed, untried
from agent.link.mqtt import PORTS

HTTP_PORTS = {"http": 80, "https": 443}
PORTAL_S = 0.6
"""How long a login page is looked for; it stands in the shop, so it is quick."""

WRONG_CLOCK_S = 300.0
FRACTION = 0.7
"""Part of the time left that a hop may take when others follow."""


@dataclass(frozen=True, slots=True)
class Sync:
    """What sync says of its connection; `link` is empty when it does not run or has not said anything."""

    runs: bool
    link: Mapping[str, Any]
    confirmed_age_s: float | None = None
    """How long ago the cloud confirmed something; None when that is not known of this boot."""
    confirmed_ms: float = 0.0
    """How long that took, there and back."""


def to_broker(config: Config, sync: Sync, patience_s: float, *, log_in: bool = True) -> Way:
    """Walk to the broker within `patience_s`. With `log_in` off nothing is sent to it."""
    assert config.cloud.broker is not None, "ask only when there is a broker"
    until_s = time.monotonic() + patience_s
    parts = urlsplit(config.cloud.broker)
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    way = Way("broker", f"{host} port {port}", parts.scheme == "mqtts")
    connection = _lower(way, host, port, _trust(config, secure=way.secure), until_s)
    if connection is None:
        return way
    connection.close()
    if sync.runs:
        _as_sync_says(way, sync)
    elif log_in:
        log_in_and_echo(way, config, until_s)
    else:
        way.take(untried("login", "not asked for"))
    return way


def to_api(config: Config, patience_s: float) -> Way:
    """Walk to the API within `patience_s`."""
    assert config.cloud.api is not None, "ask only when there is an API"
    until_s = time.monotonic() + patience_s
    parts = urlsplit(config.cloud.api)
    host, port = str(parts.hostname), parts.port or HTTP_PORTS[parts.scheme]
    way = Way("api", f"{host} port {port}", parts.scheme == "https")
    connection = _lower(way, host, port, _trust(config, secure=way.secure), until_s)
    if connection is not None:
        ask.answer(way, connection, host, parts.path.rstrip("/"), until_s - time.monotonic())
    return way


def _trust(config: Config, *, secure: bool) -> tls.Trust | None:
    cloud = config.cloud
    return tls.Trust(cloud.ca_file, cloud.cert_file, cloud.key_file) if secure else None


def _lower(way: Way, host: str, port: int, trust: tls.Trust | None, until_s: float) -> socket.socket | None:
    """Walk all hops up to ``tls``, with time left for those above; gives the connection."""

    def left_s() -> float:
        return FRACTION * (until_s - time.monotonic())

    if not reach.near(way, host):
        return None
    targets = reach.resolve(way, host, port, left_s())
    if not targets:
        return None
    connection = reach.connect(way, targets, left_s())
    if connection is not None and trust is None:
        way.take(untried("tls", "not used here"))
    if connection is None or trust is None:
        return connection
    return tls.encrypt(way, connection, host, trust, left_s())


def _as_sync_says(way: Way, sync: Sync) -> None:
    """Take login and echo from sync, which holds the one connection that this device may have."""
    link = sync.link
    if not link or not (link["connected"] or link["code"]):
        way.take(untried("login", "sync runs and is connecting: ask again in a few seconds"))
    elif link["code"]:
        name = "echo" if link["connected"] else "login"
        code = CODES.get(link["code"], "NET-13")
        way.take(failed(name, code, time.monotonic(), f"sync says: {link['message']} [{link['code']}]", link["hint"]))
    else:
        way.take(
            Hop("login", True, None, f"sync has been connected since {link.get('at', '?')[:19].replace('T', ' ')}")
        )
        if sync.confirmed_age_s is None:
            way.take(untried("echo", "sync has had nothing confirmed yet"))
        else:
            said = f"the cloud confirmed what sync sent {sync.confirmed_age_s:.0f} s ago"
            way.take(Hop("echo", True, sync.confirmed_ms, said))


def walk(config: Config, sync: Sync, patience_s: float) -> list[Way]:
    """Walk both ways, as far as they are configured, side by side and within `patience_s`, and explain what failed."""
    walks: list[Callable[[float], Way]] = []
    if config.cloud.broker is not None:
        walks.append(lambda left_s: to_broker(config, sync, left_s))
    if config.cloud.api is not None:
        walks.append(lambda left_s: to_api(config, left_s))
    if not walks:
        return []
    left_s = max(0.5, patience_s - PORTAL_S)
    ways: list[Way | None] = [None] * len(walks)

    def take(n: int) -> None:
        ways[n] = walks[n](left_s)

    # Daemons: when the whole is given up, they must not hold up the end of the process.
    threads = [threading.Thread(target=take, args=(n,), name=f"walk-{n}", daemon=True) for n in range(len(walks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    walked = [way for way in ways if way is not None]
    explain(config, walked)
    return walked


def explain(config: Config, ways: list[Way]) -> None:
    """Look again at hops that failed: a login page, a clock that is wrong or a dead provider look like other things."""
    broken = [hop for hop in (way.broken for way in ways) if hop is not None]
    if not broken:
        return
    _look_for_portal(config, ways)
    _look_at_clock(config, ways)
    _look_at_provider(ways)


def _look_for_portal(config: Config, ways: list[Way]) -> None:
    suspect = [way for way in ways if way.broken and way.broken.code in ("NET-6", "NET-7", "NET-9", "NET-11", "NET-12")]
    if not suspect or config.cloud.api is None:
        return
    parts = urlsplit(config.cloud.api)
    port = parts.port or 80 if parts.scheme == "http" else 80
    said = ask.portal(str(parts.hostname), port, PORTAL_S)
    for way in suspect if said else []:
        _replace(way, "NET-8", f"{said}; {way.broken.detail if way.broken else ''}")


def _look_at_clock(config: Config, ways: list[Way]) -> None:
    """A certificate that has expired, or that begins later, may be right, and our clock wrong."""
    suspect = [
        way for way in ways if way.broken and way.broken.name == "tls" and way.broken.code in ("NET-10", "TIME-1")
    ]
    if not suspect:
        return
    skews = [way.skew_s for way in ways if way.skew_s is not None]
    if not skews and config.cloud.api is not None and urlsplit(config.cloud.api).scheme == "https":
        parts = urlsplit(config.cloud.api)
        found = ask.skew_s(str(parts.hostname), parts.port or 443, PORTAL_S)
        skews += [] if found is None else [found]
    if not skews:
        return
    wrong = abs(skews[0]) > WRONG_CLOCK_S
    for way in suspect:
        assert way.broken is not None
        way.skew_s = skews[0]
        where = "ahead" if skews[0] > 0 else "behind"
        hours = abs(skews[0]) / 3600
        said = (
            f"this clock is {hours:,.1f} h {where} of the cloud's; {way.broken.detail}" if wrong else way.broken.detail
        )
        _replace(way, "TIME-1" if wrong else "NET-10", said)


def _look_at_provider(ways: list[Way]) -> None:
    """When nothing at all answers, no single port is blocked: the line is dead, or everything is blocked."""
    swallowed = [way for way in ways if way.broken and way.broken.code in ("NET-6", "NET-20")]
    if len(ways) < 2 or len(swallowed) < len(ways) or len({way.address for way in ways}) < 2:
        return
    for way in swallowed:
        assert way.broken is not None
        both = "neither broker nor API answers"
        _replace(way, "NET-20", f"{both}: {way.broken.detail}", "restart the router, then call the provider; if other"
                 " things reach the internet here, the shop's IT must let this device out")  # fmt: skip


def _replace(way: Way, code: str, detail: str, cure: str = "") -> None:
    """Give the hop that failed another reason."""
    for n, hop in enumerate(way.hops):
        if hop.ok is False:
            new = failed(hop.name, code, 0.0, detail, cure)
            way.hops[n] = replace(new, ms=hop.ms)
