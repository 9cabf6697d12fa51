"""Vision and sync as they run in a shop, too many frames, and a cloud whose function works, fails, and works again."""

import hashlib
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, Request, Say
from test_device import Box, child, stop
from waiting import wait_for

from cloud.broker import Broker

CAMERAS = 4

SETTINGS = """
[model]
workers = 1
[privacy]
pictures = "frames"
[batch]
keep_every = "1 s"
[spool]
keep_free = "1 MiB"
"""

ABLE = Say()
TROUBLE = {
    "500": Say(500, b'{"code":"fault","detail":"x"}'),
    "429": Say(429, b'{"code":"slow-down","detail":"x"}', (("Retry-After", "2"),)),
    "hangs": Say(hang=True),
}


class Cloud(ApiServer):
    """Says yes or fails, as it is told, and knows what it has said yes to."""

    def __init__(self) -> None:
        self.say = ABLE
        self.taken: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__(self._answer)

    def _answer(self, request: Request) -> Say:
        assert hashlib.sha256(request.body).hexdigest() == request.headers["x-shelfwire-sha256"]
        if self.say is ABLE:
            key = request.headers.get("x-shelfwire-frame") or request.path.removeprefix("/v1/frames/")
            with self._lock:
                self.taken[key.partition("/")[2]] += 1
        return self.say


class Shop(Box):
    """A device with a broker, and an API that takes its frames."""

    def __init__(self, folder: Path, broker: Broker, api: str, paid: str = "per_hour = 36000\nburst = 20") -> None:
        super().__init__(folder, broker, cameras=0)
        cameras = "".join(
            f'[[camera]]\nname = "cam-{n}"\nurl = "synthetic:{n}?width=160&height=90&loop=8"\nrate_fps = 120\n'
            for n in range(CAMERAS)
        )
        told = self.config.read_text().replace("[cloud]\n", f'[cloud]\napi = "{api}"\n')
        self.config.write_text(told + cameras + SETTINGS + f'[serverless]\nexpire = "5 s"\n{paid}\n')

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        try:
            store = sqlite3.connect(f"{(self.state / 'outbox.sqlite').as_uri()}?mode=ro", uri=True, timeout=20)
        except sqlite3.OperationalError:  # not made yet
            return []
        try:
            return store.execute(question).fetchall()
        except sqlite3.OperationalError:  # it has no tables yet
            return []
        finally:
            store.close()

    def counters(self) -> Counter[str]:
        return Counter(dict(self.ask("SELECT name, n FROM counter")))

    def function(self) -> str:
        """Say why no frame goes to the function now, as vision sees it; empty when some do."""
        reason = "json_extract(value, '$.placement.function')"
        return str(next(iter(self.ask(f"SELECT {reason} FROM fact WHERE name = 'vision'")), (None,))[0])

    def why_deferred(self) -> Counter[str]:
        """Count what waits for the night by why the function did not get it."""
        reason = "json_extract(CAST(body AS TEXT), '$.reason')"
        rows = self.ask(f"SELECT {reason}, COUNT(*) FROM outbox WHERE kind = 'frame' AND lane = 5 GROUP BY 1")
        return Counter(dict(rows))

    def until_more(self, name: str, n: int = 5) -> None:
        before = self.counters()[name]
        wait_for(f"{n} more {name}", lambda: self.counters()[name] >= before + n)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


def check_books(shop: Shop, cloud: Cloud) -> Counter[str]:
    """Check every equation that is promised, what the cloud was given, and that each picture is where it belongs."""
    n = shop.counters()
    dropped = sum(count for name, count in n.items() if name.startswith("frames:dropped:"))
    copied = sum(count for name, count in n.items() if name.startswith("frames:copied:"))
    elsewhere = n["frames:serverless"] + n["frames:deferred"]
    assert n["frames:captured"] == n["frames:classified"] + elsewhere + dropped, n
    assert n["result:produced"] == n["frames:classified"]
    assert n["frame:produced"] == elsewhere + copied
    rows = shop.ask(
        "SELECT run.run_id || '/' || seq, picture, state FROM outbox JOIN run USING (run) WHERE kind = 'frame'"
    )
    lost = sum(count for name, count in n.items() if name.startswith("frame:dropped:"))
    assert n["frame:produced"] == n["frame:delivered"] + len(rows) + lost
    assert not [key for key, _, state in rows if state != 0], "none was refused"
    assert n["frame:delivered"] == len(cloud.taken.keys() - {key for key, _, _ in rows})
    for _, picture, _ in rows:
        assert (shop.state / "spool" / picture).is_file()
    return n


@pytest.mark.parametrize("trouble", TROUBLE)
def test_overload_while_the_function_works_fails_and_works_again(
    tmp_path: Path, broker: Broker, cloud: Cloud, trouble: str
) -> None:
    shop = Shop(tmp_path / "d", broker, cloud.url)
    with shop.running("run") as process:
        wait_for("the function to be used", lambda: shop.counters()["frames:serverless"] >= 5)
        wait_for("the budget to be spent", lambda: shop.why_deferred()["budget-hour"])
        cloud.say = TROUBLE[trouble]
        wait_for("the function to be given up", lambda: shop.function() == "function-down")
        wait_for("frames for the night", lambda: shop.why_deferred()["function-down"])
        shop.until_more("frames:classified", 50)
        cloud.say = ABLE
        cloud.release.set()
        wait_for("the function to be used again", lambda: shop.function() in ("", "budget-hour"))
        shop.until_more("frames:serverless")
        taken = len(cloud.taken)
        wait_for("its answers", lambda: len(cloud.taken) > taken + 5)
        assert stop(process) == 0, shop.log()
    n = check_books(shop, cloud)
    assert n["frame:delivered"] >= 10
    assert {"budget-hour", "function-down"} <= shop.why_deferred().keys()


def test_the_day_has_its_price(tmp_path: Path, broker: Broker, cloud: Cloud) -> None:
    paid = "per_hour = 100000\nburst = 1000\nper_day_usd = 0.0001"
    shop = Shop(tmp_path / "d", broker, cloud.url, paid)
    with shop.running("run") as process:
        wait_for("the day's money to be spent", lambda: shop.function() == "budget-day")
        wait_for("frames for the night", lambda: shop.why_deferred()["budget-day"])
        assert stop(process) == 0, shop.log()
    n = check_books(shop, cloud)
    # Ten calls at what they are taken to cost; the cloud's own figures, 0.000002 each, allow fifty.
    assert 10 <= n["frames:serverless"] <= 50


def test_overload_though_vision_and_sync_are_killed(tmp_path: Path, broker: Broker, cloud: Cloud) -> None:
    shop = Shop(tmp_path / "d", broker, cloud.url)
    grows: tuple[Callable[[], None], ...] = (
        lambda: shop.until_more("frames:classified", 50),
        lambda: shop.until_more("frames:serverless", 2),
        lambda: shop.until_more("frames:deferred"),
        lambda: shop.until_more("frame:delivered", 1),
    )
    with shop.running("run") as process:
        for role in ("vision", "sync", "vision"):
            for grown in grows:
                grown()
            os.kill(child(process, role), signal.SIGKILL)
        for grown in grows:
            grown()
        assert stop(process) == 0, shop.log()
    check_books(shop, cloud)
