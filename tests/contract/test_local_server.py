"""The device's HTTP server with clients that drip, stay silent, go away or come too many; and a site with a bug."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agent.local import server
from agent.local.exchange import Refusal, Reply, Request, as_json
from agent.local.server import Server

SHORT_S = 0.3
PATIENCE_S = 10.0


class Site:
    """Answers with what was asked; /bug raises, /slow waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Event()

    def answer(self, request: Request) -> Reply:
        if request.path == "/bug":
            raise ZeroDivisionError
        if request.path == "/none":
            return Reply(204)
        if request.path == "/slow":
            self.began.set()
            self.go.wait(PATIENCE_S)
        body = request.read_body(1000) if request.method == "POST" else b""
        return Reply(200, f"{request.method} {request.path} {len(body)}".encode(), "text/plain")

    def refuse(self, request: Request | None, refusal: Refusal) -> Reply:
        return as_json(refusal.status, {"code": refusal.code}, refusal.headers)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def port(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("IDLE_S", "HEAD_S", "BODY_S", "LINGER_S"):
        monkeypatch.setattr(server, name, SHORT_S)
    listener = socket.create_server(("127.0.0.1", 0))
    number = int(listener.getsockname()[1])
    running = Server(listener, site, lambda: None)
    thread = threading.Thread(target=running.run)
    thread.start()
    yield number
    running.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


def drip(connection: socket.socket, data: bytes, every_s: float = SHORT_S / 4) -> float:
    """Send a byte now and then, until the other side is tired of it; gives how long that took, in seconds."""
    began_s = time.monotonic()
    for at in range(len(data)):
        try:
            connection.sendall(data[at : at + 1])
        except OSError:
            break
        time.sleep(every_s)
    return time.monotonic() - began_s


def test_a_connection_serves_one_request_after_the_other(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz")
        connection.sendall(b"HEAD /c HTTP/1.1\r\n\r\n")
        connection.sendall(b"GET /none HTTP/1.1\r\n\r\nGET /d HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = all_of(connection)
    assert got.count(b"HTTP/1.1 200 OK") == 4
    assert b"GET /a 0" in got
    assert b"POST /b 3" in got
    assert b"HEAD /c 0" not in got
    assert got.partition(b"HTTP/1.1 204 No Content\r\n")[2].startswith(b"Connection: keep-alive")
    assert got.endswith(b"GET /d 0")


def test_a_body_is_asked_for_only_when_it_is_wanted(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST /b HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"xyz")
        assert b"POST /b 3" in connection.recv(1000)
        connection.sendall(b"POST /b HTTP/1.1\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_is_refused_while_it_sends_still_hears_why(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST /b HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert b'{"code":"too-large"}' in all_of(connection)


@pytest.mark.parametrize(
    ("head", "rest"),
    [(b"GET /", b"a"), (b"GET / HTTP/1.1\r\nX: ", b"a"), (b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n", b"a")],
)
def test_who_drips_is_cut_off_however_regularly(port: int, head: bytes, rest: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(head)
        assert drip(connection, 900 * rest) < PATIENCE_S / 2


def test_who_says_nothing_is_let_go(port: int) -> None:
    with connect(port) as connection:
        assert connection.recv(1) == b""


def test_a_bug_in_one_answer_ends_that_answer_alone(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /bug HTTP/1.1\r\n\r\n")
        assert b'{"code":"local-bug"}' in connection.recv(1000)
        connection.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert b"GET /a 0" in connection.recv(1000)


def test_a_client_that_goes_away_costs_nothing(port: int, site: Site) -> None:
    for _ in range(server.MOST_CONNECTIONS):
        with connect(port) as gone:
            gone.sendall(b"POST /b HTTP/1.1\r\nContent-Length: 900\r\n\r\nx")
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        with connect(port) as connection:
            connection.sendall(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n")
            if b" 200 OK" in all_of(connection):
                return
    raise AssertionError("there was no place any more")


def test_one_other_machine_cannot_take_all_places(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "is_loopback", lambda _: False)  # this test comes from the same machine only
    monkeypatch.setattr(server, "IDLE_S", PATIENCE_S)
    held = [connect(port) for _ in range(server.MOST_OF_ONE_PEER)]
    for one in held:
        one.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert b" 200 OK" in one.recv(1000)
    with connect(port) as one_more:
        assert all_of(one_more).startswith(b"HTTP/1.1 503 ")
    for one in held:
        one.close()


def test_the_stop_does_not_wait_for_an_answer_under_way(site: Site) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    number = int(listener.getsockname()[1])
    running = Server(listener, site, lambda: None)
    thread = threading.Thread(target=running.run)
    thread.start()
    with connect(number) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        assert site.began.wait(PATIENCE_S)
        began_s = time.monotonic()
        running.stop(timeout_s=0.2)
        assert time.monotonic() - began_s < PATIENCE_S / 2
        assert all_of(connection) == b""
    thread.join(PATIENCE_S)
    site.go.set()
    with pytest.raises(OSError):
        connect(number)


def test_a_server_that_never_ran_lets_go_of_its_port() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    number = int(listener.getsockname()[1])
    Server(listener, Site(), lambda: None).stop()
    with socket.create_server(("127.0.0.1", number)):
        pass
