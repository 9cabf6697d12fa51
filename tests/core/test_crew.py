"""Threads of the cloud that begin and end together."""

import logging
import threading

import pytest

from cloud.crew import Crew


def test_one_that_dies_is_told_and_stops_the_others(caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[BaseException] = []
    ended = threading.Event()
    error = ValueError("a row nobody thought of")

    def dies() -> None:
        raise error

    def works() -> None:
        crew.stopping.wait(10)
        ended.set()

    crew = Crew({"dies": dies, "works": works}, crashes.append)
    with caplog.at_level(logging.ERROR):
        crew.start()
        assert crew.join(10)
    assert ended.is_set()
    assert crashes == [error]
    assert "dies died" in caplog.text
    assert "a row nobody thought of" in caplog.text


def test_waiting_for_some_or_all_ends_in_time() -> None:
    crashes: list[BaseException] = []

    def slow() -> None:
        crew.stopping.wait(10)

    crew = Crew({"quick": lambda: None, "slow": slow}, crashes.append)
    assert crew.join(0)  # not begun
    crew.start()
    assert crew.join(10, "quick")
    assert not crew.join(0.05)
    crew.stopping.set()
    assert crew.join(10)
    assert crashes == []
