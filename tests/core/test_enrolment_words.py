"""The words of enrolment: codes as people type them, and the proof that a server knows one."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.web.devices import Pace
from wire import enrolment
from wire.enrolment import Code, Hello, Keys, Welcome, make_code, parse_code, proof, proves, stretch
from wire.errors import WireError

KEYS = Keys(b"s" * 32, b"d" * 32)
HELLO = Hello(v=1, code="ABCD", nonce="00" * 32)
WELCOME = Welcome(
    v=1, device="till-3", store="store-12", salt="11" * 32, nonce="22" * 32, now=datetime(2026, 3, 1, tzinfo=UTC),
    trust="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", proof="0" * 64,
)  # fmt: skip
PROVED = WELCOME.model_copy(update={"proof": proof(KEYS, HELLO, WELCOME)})


@given(st.binary(min_size=enrolment.CODE_BYTES, max_size=enrolment.CODE_BYTES), st.data())
def test_a_code_is_read_as_people_write_it(random_bytes: bytes, data: st.DataObject) -> None:
    code = make_code(random_bytes)
    text = str(code)
    assert [len(group) for group in text.split("-")] == [4, 4, 4]
    written = "".join(data.draw(st.sampled_from([letter, letter.lower()])) for letter in text)
    for right, wrong in (("0", "O"), ("1", "I"), ("1", "l")):
        written = written.replace(right, data.draw(st.sampled_from([right, wrong])))
    written = written.replace("-", data.draw(st.sampled_from(["-", " ", "", " - "])))
    assert parse_code(f" {written} ") == code


@pytest.mark.parametrize("text", ["", "ABCD-EFGH-JKL", "ABCD-EFGH-JKLMN", "ABCD-EFGH-JKLU", "ABCD-EFGH-JKL!", "ä" * 12])
def test_what_is_no_code_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(WireError) as refused:
        parse_code(text)
    assert (refused.value.code, bool(refused.value.hint)) == ("bad-code", True)


def test_a_secret_is_not_shown() -> None:
    code = make_code(os.urandom(8))
    assert code.secret not in repr(code)
    asked = enrolment.Enrol(v=1, code=code.id, key="ab" * 32, csr="x")
    assert "abab" not in repr(asked)


def test_stretching_depends_on_every_part() -> None:
    code, salt = Code("ABCD", "EFGHJKMN"), b"1" * 32
    keys = stretch(code, salt)
    assert keys == stretch(code, salt)
    assert keys.server != keys.device
    others = [
        stretch(Code("ABCE", "EFGHJKMN"), salt),
        stretch(Code("ABCD", "EFGHJKMP"), salt),
        stretch(code, b"2" * 32),
    ]
    for other in others:
        assert {other.server, other.device}.isdisjoint({keys.server, keys.device})


def test_the_proof_covers_everything_that_was_said() -> None:
    assert proves(KEYS, HELLO, PROVED)
    assert not proves(Keys(b"t" * 32, KEYS.device), HELLO, PROVED)
    for change in ({"code": "ABCE"}, {"nonce": "01" * 32}):
        assert not proves(KEYS, HELLO.model_copy(update=change), PROVED), change
    changes: list[dict[str, object]] = [
        {"device": "till-4"}, {"store": "store-13"}, {"salt": "12" * 32}, {"nonce": "23" * 32},
        {"now": datetime(2026, 3, 2, tzinfo=UTC)}, {"trust": WELCOME.trust.replace("AAAA", "AAAB")},
        {"device": "till", "store": "-3store-12"},
    ]  # fmt: skip
    for changed in changes:
        assert not proves(KEYS, HELLO, PROVED.model_copy(update=changed)), changed


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (WELCOME.trust, True),
        (WELCOME.trust * 2, True),
        ("", False),
        ("text before " + WELCOME.trust, False),
        (WELCOME.trust.replace("CERTIFICATE", "PRIVATE KEY"), False),
    ],
)
def test_only_certificates_are_taken_for_trust(text: str, good: bool) -> None:
    assert enrolment.is_certificate_text(text) is good


def test_strangers_are_held_to_a_pace() -> None:
    """An installer of a whole shop is not held up; walking through codes is."""
    now_s = [0.0]
    pace = Pace(2.0, 5.0, lambda: now_s[0])
    assert [pace.allows() for _ in range(7)] == [True] * 5 + [False] * 2
    now_s[0] = 1.0
    assert [pace.allows() for _ in range(3)] == [True, True, False]
    now_s[0] = 1000.0
    assert [pace.allows() for _ in range(6)] == [True] * 5 + [False], "no more is saved up"
