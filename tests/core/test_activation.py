"""A socket that systemd hands in is taken by the process it is meant for, when it is a listening one."""

import os
import socket
from collections.abc import Iterator

import pytest

from agent.errors import Rejected
from agent.host import activation
from agent.host.activation import handed_in

ME = 4711


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        copy = os.dup(opened.fileno())
        monkeypatch.setattr(activation, "FIRST", copy - 1)  # it is the second of two
        yield opened


def environ(**changes: str) -> dict[str, str]:
    return {"LISTEN_PID": str(ME), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "other:local", **changes}


def test_the_socket_of_that_name_is_taken_and_kept_from_children(listener: socket.socket) -> None:
    taken = handed_in("local", environ(), ME)
    assert taken is not None
    with taken:
        assert taken.getsockname() == listener.getsockname()
        assert not taken.get_inheritable()


@pytest.mark.parametrize(
    "changes",
    [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "x"}, {"LISTEN_FDNAMES": "other"},
     {"LISTEN_FDNAMES": ""}],
)  # fmt: skip
def test_what_is_meant_for_others_is_left_alone(listener: socket.socket, changes: dict[str, str]) -> None:
    assert handed_in("local", environ(**changes), ME) is None
    assert handed_in("local", {}, ME) is None


@pytest.mark.parametrize("kind", ["file", "datagram", "connected"])
def test_what_is_no_listening_socket_is_refused_with_its_cure(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with socket.socketpair()[0] as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        number = {"file": os.open(os.devnull, os.O_RDONLY), "datagram": datagram.fileno(), "connected": pair.fileno()}
        monkeypatch.setattr(activation, "FIRST", number[kind])
        with pytest.raises(Rejected) as refused:
            handed_in("local", environ(LISTEN_FDNAMES="local:other"), ME)
    assert refused.value.code == "socket-unfit"
    assert "ListenStream" in refused.value.hint
