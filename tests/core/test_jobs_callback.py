"""Callbacks: what is refused in every spelling, and that a call goes to the judged address and ends in time."""

import http.server
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cloud.errors import Rejected, Retryable
from cloud.jobs import callback
from cloud.jobs.callback import Allowed, call, check_url, is_public, judge

NOTHING = Allowed()
LOOPBACK = Allowed.parse(["127.0.0.0/8"])

INSIDE = [
    "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
    "http://017700000001/", "http://0/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://10.0.0.1/", "http://172.16.3.4/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/", "http://[fd00:ec2::254]/", "http://[fec0::1]/", "http://100.64.0.1/", "http://224.0.0.1/",
    "http://255.255.255.255/", "http://192.0.2.1/", "http://localhost/", "http://LOCALHOST./", "http://printer.local/",
    "http://metadata.google.internal/", "http://intranet/", "https://router.lan/", "http://nas.home.arpa/",
]  # fmt: skip


@pytest.mark.parametrize("url", INSIDE)
def test_inside_addresses_are_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_url(url, NOTHING)
    assert refused.value.code == "callback-internal"
    assert refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "ftp://example.com/", "file:///etc/passwd", "http://", "http://user:pw@example.com/",
        "http://example.com@127.0.0.1/", "http://example.com:99999/", "http://example.com:0/", "http://exa mple.com/",
        "http://example.com/\r\nHost: x", "http://example.com\\@127.0.0.1/", "http://[::1", "http://exämple.com/",
        "http://example.com/" + "x" * 600, "gopher://example.com/",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_url(url, NOTHING)
    assert refused.value.code == "callback-bad"


def test_a_public_url_is_taken_apart() -> None:
    url = check_url("https://hooks.example.com/a/b?c=d#e", NOTHING)
    assert (url.secure, url.host, url.port, url.path) == (True, "hooks.example.com", 443, "/a/b?c=d")
    assert url.host_header == "hooks.example.com"
    assert check_url("http://[2606:4700::1]:8080", NOTHING).host_header == "[2606:4700::1]:8080"


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_one_inside_address_refuses_a_name_with_a_public_one() -> None:
    with pytest.raises(Rejected):
        judge("mixed.example", ["93.184.216.34", "10.0.0.7"], NOTHING)


def test_the_allow_list_opens_networks_and_names() -> None:
    allowed = Allowed.parse(["10.1.0.0/16", "::1", "hooks.lan"])
    check_url("http://10.1.2.3/", allowed)
    check_url("http://[::1]/", allowed)
    check_url("http://HOOKS.lan/", allowed)
    for url in ("http://10.2.0.1/", "http://127.0.0.1/", "http://other.lan/"):
        with pytest.raises(Rejected):
            check_url(url, allowed)
    with pytest.raises(Rejected):
        Allowed.parse(["10.0.0.0/99"])


class Receiver(http.server.ThreadingHTTPServer):
    """Answers by path and remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.over = threading.Event()


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((self.path, dict(self.headers), body))
        if self.path == "/slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.over.wait(0.05):
                try:
                    self.wfile.write(b"X: y\r\n")
                except OSError:
                    return
            return
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "/ok")
        self.send_header("Content-Length", "20000")
        self.end_headers()
        self.wfile.write(b"x" * 20000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_the_call_goes_to_the_judged_address_and_is_read_in_bounds(receiver: Receiver) -> None:
    """The name means nothing to this machine: a second look-up would fail, and a changed DNS changes nothing."""
    url = check_url(f"http://shop.example.com:{receiver.server_port}/ok?a=b", NOTHING)
    looked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"]

    answer = call(url, b"{}", {"webhook-id": "1"}, LOOPBACK, look_up=look_up)
    assert (answer.status, len(answer.start)) == (200, callback.MOST_ANSWER_BYTES)
    ((path, headers, body),) = receiver.came
    assert (path, body, headers["webhook-id"]) == ("/ok?a=b", b"{}", "1")
    assert headers["Host"] == f"shop.example.com:{receiver.server_port}"
    assert looked == ["shop.example.com"]


def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(receiver: Receiver) -> None:
    url = check_url(f"http://rebind.example.com:{receiver.server_port}/ok", NOTHING)
    with pytest.raises(Rejected) as refused:
        call(url, b"{}", {}, NOTHING, look_up=lambda host, port: ["127.0.0.1"])
    assert refused.value.code == "callback-internal"
    assert receiver.came == []


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    url = check_url(f"http://127.0.0.1:{receiver.server_port}/away", LOOPBACK)
    assert call(url, b"{}", {}, LOOPBACK).status == 302
    assert [path for path, _, _ in receiver.came] == ["/away"]


def test_a_receiver_that_drips_is_cut_off_in_time(receiver: Receiver) -> None:
    url = check_url(f"http://127.0.0.1:{receiver.server_port}/slow", LOOPBACK)
    began_s = time.monotonic()
    with pytest.raises(Retryable) as late:
        call(url, b"{}", {}, LOOPBACK, within_s=0.5)
    assert late.value.code == "callback-slow"
    assert time.monotonic() - began_s < 3.0


def test_nobody_there_may_be_there_later() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = check_url(f"http://127.0.0.1:{taken.getsockname()[1]}/", LOOPBACK)
        with pytest.raises(Retryable) as away:
            call(url, b"{}", {}, LOOPBACK)
    assert away.value.code == "callback-away"
