"""Who may ask the device's page: names against rebinding, strangers' pages, passwords and sessions."""

import base64
from email.message import Message
from itertools import count

import pytest

from agent.local.exchange import Refusal, Request
from agent.local.guard import FREE_TRIES, SESSION_S, Guard, Names

PASSWORD = "long enough, ä"


class Time:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def ask(method: str = "GET", path: str = "/", peer: str = "10.0.0.5", **headers: str) -> Request:
    message = Message()
    for name, value in {"Host": "localhost:8471", **headers}.items():
        message[name.replace("_", "-")] = value
    return Request(method, path, {}, message, peer, lambda _: b"")


def make(password: str | None = PASSWORD, secure: bool = False, open_to_all: bool = False) -> tuple[Guard, Time]:
    now_s, numbers = Time(), count(1)
    names = Names(open_to_all, {"till-3.local"})
    return Guard(names, password, now_s, lambda: f"token-{next(numbers)}", secure=secure), now_s


def code_of(check: object, *args: object) -> str:
    with pytest.raises(Refusal) as refused:
        check(*args)  # type: ignore[operator]
    assert refused.value.hint
    return refused.value.code


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8471", "127.0.0.1", "127.0.0.1:1", "[::1]:8471", "LOCALHOST."]
)
def test_a_device_answers_under_the_names_of_its_own_machine(host: str) -> None:
    guard, _ = make()
    guard.check_origin(ask(Host=host))


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "evil.example:8471", "till-3.local", "10.0.0.7",
     "localhost@evil.example", "localhost/evil", "localhost:port", "[::1",
     "127.0.0.1.evil.example", "localhost, evil.example"],
)  # fmt: skip
def test_a_closed_device_answers_under_no_other_name(host: str) -> None:
    guard, _ = make()
    assert code_of(guard.check_origin, ask(Host=host)) == "foreign-host"


def test_an_open_device_answers_to_its_names_and_to_addresses_but_not_to_strangers_names() -> None:
    guard, _ = make(open_to_all=True, secure=True)
    for host in ("till-3.local", "TILL-3.local:8471", "10.0.0.7:8471", "[fe80::1]:8471"):
        guard.check_origin(ask(Host=host))
    assert code_of(guard.check_origin, ask(Host="evil.example")) == "foreign-host"


def test_two_hosts_are_none() -> None:
    guard, _ = make()
    request = ask()
    request.headers["Host"] = "localhost"
    assert code_of(guard.check_origin, request) == "header-twice"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://localhost:8471"},
     {"Origin": "http://localhost:9999"}, {"Sec_Fetch_Site": "cross-site"}],
)  # fmt: skip
def test_another_sites_page_cannot_ask(headers: dict[str, str]) -> None:
    guard, _ = make(password=None)
    for method in ("GET", "POST"):
        assert code_of(guard.check_origin, ask(method, **headers)) == "foreign-page"


def test_its_own_page_and_a_link_that_is_followed_can() -> None:
    guard, _ = make()
    guard.check_origin(ask("POST", Origin="http://localhost:8471", Sec_Fetch_Site="same-origin"))
    guard.check_origin(ask(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"))
    assert (
        code_of(guard.check_origin, ask("POST", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"))
        == "foreign-page"
    )


def test_without_a_password_everybody_on_the_machine_may_ask() -> None:
    guard, _ = make(password=None)
    guard.check_login(ask())


def test_a_session_begins_with_the_password_and_ends_by_itself_or_by_logging_out() -> None:
    guard, now_s = make()
    assert code_of(guard.check_login, ask()) == "login"
    cookie = guard.log_in(ask("POST"), PASSWORD)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    mine = ask(Cookie=cookie.split(";")[0])
    guard.check_login(mine)
    now_s.s += SESSION_S + 1
    assert code_of(guard.check_login, mine) == "login"
    again = ask(Cookie=guard.log_in(ask("POST"), PASSWORD).split(";")[0])
    guard.check_login(again)
    assert "Max-Age=0" in guard.log_out(again)
    assert code_of(guard.check_login, again) == "login"


def test_over_tls_the_cookie_is_this_hosts_own() -> None:
    guard, _ = make(secure=True)
    cookie = guard.log_in(ask("POST"), PASSWORD)
    assert cookie.startswith("__Host-")
    assert "Secure" in cookie.split("; ")


@pytest.mark.parametrize(
    "cookie", ["shelfwire=", "shelfwire=token-9", "shelfwire=\xff", "other=token-1", ";;;=", "a" * 9000]
)
def test_a_cookie_that_is_none_of_ours_opens_nothing(cookie: str) -> None:
    guard, _ = make()
    guard.log_in(ask("POST"), PASSWORD)
    assert code_of(guard.check_login, ask(Cookie=cookie)) == "login"


def test_a_program_sends_the_password_with_each_request() -> None:
    guard, _ = make()
    guard.check_login(ask(Authorization="Basic " + base64.b64encode(f"anybody:{PASSWORD}".encode()).decode()))
    wrong = ask(Authorization="Basic " + base64.b64encode(b"anybody:nothing").decode())
    assert code_of(guard.check_login, wrong) == "login-wrong"
    for header in ("Basic", "Basic !", "Bearer x", "Basic " + base64.b64encode(b"\xff:\xff").decode()):
        assert code_of(guard.check_login, ask(Authorization=header)) == "login"


def test_programs_are_told_how_to_log_in_and_browsers_are_not_made_to_ask_by_themselves() -> None:
    guard, _ = make()
    for request, told in ((ask(), True), (ask(Accept="text/html"), False), (ask(Sec_Fetch_Mode="cors"), False)):
        with pytest.raises(Refusal) as refused:
            guard.check_login(request)
        assert ("WWW-Authenticate" in refused.value.headers) is told


def test_wrong_passwords_are_soon_too_many_and_the_right_one_waits_too() -> None:
    guard, now_s = make()
    for _ in range(FREE_TRIES):
        assert code_of(guard.log_in, ask("POST"), "nothing") == "login-wrong"
    assert code_of(guard.log_in, ask("POST"), PASSWORD) == "login-too-often"
    guard.log_in(ask("POST", peer="10.0.0.6"), PASSWORD)  # who shares nothing with the guesser comes in
    now_s.s += 11
    guard.log_in(ask("POST"), PASSWORD)


def test_many_addresses_together_guess_no_faster_than_the_ceiling() -> None:
    guard, _ = make()
    codes = [code_of(guard.log_in, ask("POST", peer=f"10.1.{n >> 8}.{n & 255}"), "nothing") for n in range(5000)]
    assert codes.count("login-wrong") == 10 * FREE_TRIES
