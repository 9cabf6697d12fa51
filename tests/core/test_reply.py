"""What an HTTP answer means for a frame."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reply import HttpReply, Never, NotNow, Taken, sort

NOW_NS = 1_800_000_000 * 10**9
"""Fri, 15 Jan 2027 08:00:00 GMT"""

TAKEN = frozenset({200})


def reply(status: int, body: object = None, **headers: str) -> HttpReply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status, named, b"" if body is None else json.dumps(body).encode())


def problem(status: int, code: str) -> HttpReply:
    return reply(status, {"code": code, "detail": "why"}, content_type="application/problem+json")


def test_taken_tells_what_it_cost() -> None:
    assert sort(reply(200, {"state": "answered", "usd": 2e-6}), TAKEN, NOW_NS) == Taken(2e-6)
    assert sort(reply(200), TAKEN, NOW_NS) == Taken(None)
    assert sort(reply(202), frozenset({200, 202}), NOW_NS) == Taken(None)


@pytest.mark.parametrize("usd", [-1, 2, True, "1", float("nan"), float("inf"), None, [], 10**400])
def test_a_cost_that_cannot_be_is_not_learned(usd: object) -> None:
    assert sort(HttpReply(200, {}, json.dumps({"usd": usd}).encode()), TAKEN, NOW_NS) == Taken(None)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_work_later(status: int) -> None:
    outcome = sort(problem(status, "gateway-busy"), TAKEN, NOW_NS)
    assert outcome == NotNow("gateway-busy", "why", None)


@pytest.mark.parametrize("status", [201, 202, 204, 301, 302, 307, 308, 401, 403, 404, 405, 407])
def test_what_is_not_our_api_speaking_harms_no_frame(status: int) -> None:
    outcome = sort(reply(status), TAKEN, NOW_NS)
    assert isinstance(outcome, NotNow)
    assert outcome.code == f"http-{status}"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(422, "picture-broken"), "picture-broken"),
        (problem(404, "no-such-device"), "no-such-device"),
        (reply(413), "http-413"),
        (reply(400, {"code": "Not a code!"}), "http-400"),
    ],
)
def test_what_is_refused_for_good(answer: HttpReply, code: str) -> None:
    outcome = sort(answer, TAKEN, NOW_NS)
    assert isinstance(outcome, Never)
    assert outcome.code == code


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
     ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
     ("-3", None), ("soon", None), ("", None), ("9" * 400, 999_999_999.0), ("٣", None)],
)  # fmt: skip
def test_when_to_come_back(value: str, seconds: float | None) -> None:
    outcome = sort(reply(503, retry_after=value), TAKEN, NOW_NS)
    assert isinstance(outcome, NotNow)
    assert outcome.retry_after_s == seconds


@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.sampled_from(["retry-after", "content-type"]), st.text(max_size=40)),
)
def test_any_answer_means_something(status: int, body: bytes, headers: dict[str, str]) -> None:
    outcome = sort(HttpReply(status, headers, body), TAKEN, NOW_NS)
    assert isinstance(outcome, Taken) == (status == 200)
