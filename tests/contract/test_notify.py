"""What the agent tells the service manager, on a real socket."""

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from notify_socket import NotifySocket

from agent.host.notify import Notifier


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    address = tmp_path / "notify" if request.param == "path" else f"@shelfwire-test-{secrets.token_hex(8)}"
    one = NotifySocket(address)
    yield one
    one.close()


def test_ready_is_said_once_and_the_status_when_it_changes(manager: NotifySocket) -> None:
    tell = Notifier.from_environment(manager.environment())
    for sentence in ("a", "a", "b\nSTOPPING=1"):
        tell.ready()
        tell.status(sentence)
    tell.stopping()
    while manager.take(0.0):
        pass
    assert manager.messages == [["READY=1"], ["STATUS=a"], ["STATUS=b STOPPING=1"], ["STOPPING=1"]]


def test_the_watchdog_is_petted_three_times_in_its_time(manager: NotifySocket) -> None:
    time_s = Time()
    tell = Notifier(manager.address, 9.0, time_s)
    for _ in range(90):
        tell.alive()
        time_s.now_s += 0.1
    while manager.take(0.0):
        pass
    assert manager.lines == ["WATCHDOG=1"] * 3


def test_a_reload_stretches_the_watchdog_and_ready_ends_it(manager: NotifySocket) -> None:
    tell = Notifier(manager.address, 10.0)
    tell.ready()
    tell.reloading()
    tell.ready()
    while manager.take(0.0):
        pass
    first, reloading, ready = manager.messages
    assert first == ready == ["READY=1", "WATCHDOG_USEC=10000000"]
    assert reloading[0] == "RELOADING=1"
    assert reloading[2] == "WATCHDOG_USEC=90000000"


def test_without_a_manager_nothing_is_sent_and_another_process_s_watchdog_is_not_ours(manager: NotifySocket) -> None:
    alone = Notifier.from_environment({})
    alone.ready()
    assert not alone.present
    foreign = manager.environment(5.0) | {"WATCHDOG_PID": str(os.getpid() + 1)}
    Notifier.from_environment(foreign).alive()
    assert manager.take(0.0) is None


def test_a_manager_that_is_gone_is_logged_once_and_ready_is_said_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell = Notifier(str(tmp_path / "notify"), 3.0)
    with caplog.at_level(logging.WARNING):
        tell.ready()
        tell.alive()
        tell.status("x")
    assert [record.getMessage()[:40] for record in caplog.records] == ["the service manager cannot be told READY"]
    manager = NotifySocket(tmp_path / "notify")
    tell.ready()
    tell.status("x")
    assert manager.take(1.0) == ["READY=1", "WATCHDOG_USEC=3000000"]
    assert manager.take(1.0) == ["STATUS=x"]
    manager.close()
