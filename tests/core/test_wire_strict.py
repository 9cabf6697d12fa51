"""Strict JSON: bad input gets its own code, quickly, and never another exception."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import bounds, strict
from wire.errors import WireError

BAD = {
    "empty": (b"", "empty"),
    "only blanks": (b"  \n", "bad-json"),
    "no JSON": (b"hello", "bad-json"),
    "cut off": (b'{"a": [1, 2', "bad-json"),
    "two documents": (b"{} {}", "bad-json"),
    "single quotes": (b"{'a': 1}", "bad-json"),
    "trailing comma": (b"[1,]", "bad-json"),
    "raw NUL": (b'"a\x00b"', "bad-json"),
    "raw newline in a text": (b'"a\nb"', "bad-json"),
    "duplicate key": (b'{"run": 1, "run": 2}', "duplicate-key"),
    "duplicate key, deep down": (b'[{"a": {"b": 1, "c": 2, "b": 1}}]', "duplicate-key"),
    "duplicate key, once escaped": (b'{"a": 1, "\\u0061": 2}', "duplicate-key"),
    "NaN": (b'{"score": NaN}', "not-finite"),
    "Infinity": (b"[Infinity]", "not-finite"),
    "minus Infinity": (b"-Infinity", "not-finite"),
    "1e999": (b"[1e999]", "not-finite"),
    "-1e999": (b"[-1e999]", "not-finite"),
    "integer of 5,000 digits": (b"[" + b"9" * 5_000 + b"]", "integer-range"),
    "2**63": (b"9223372036854775808", "integer-range"),
    "-2**63 - 1": (b"-9223372036854775809", "integer-range"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not-utf8"),
    "UTF-16 without its mark": ('{"a": "ä"}'.encode("utf-16-le"), "not-utf8"),
    "UTF-32": ('{"a": 1}'.encode("utf-32"), "not-utf8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not-utf8"),
    "invalid UTF-8": (b'"\xff"', "not-utf8"),
    "overlong UTF-8": (b'"\xc0\xaf"', "not-utf8"),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', "not-utf8"),
    "NUL escape": (b'["a\\u0000b"]', "nul"),
    "NUL escape in a key": (b'{"a\\u0000b": 1}', "nul"),
    "lone high surrogate": (b'["\\ud800"]', "surrogate"),
    "lone low surrogate": (b'{"a": {"b": "\\udfff"}}', "surrogate"),
    "lone surrogate in a key": (b'{"\\ud800": 1}', "surrogate"),
    "pair the wrong way round": (b'"\\udc00\\ud800"', "surrogate"),
    "100,000 brackets": (b"[" * 100_000, "too-deep"),
    "100,000 braces": (b'{"a":' * 20_000, "too-deep"),
    "one level too deep": (b"[" * (bounds.DEPTH + 1) + b"]" * (bounds.DEPTH + 1), "too-deep"),
    "deep after a text with brackets": (b'["]]]]]]]]\\"]]]]",' + b"[" * bounds.DEPTH, "too-deep"),
    "label of 10 MB": (b'{"label": "' + b"a" * 10_000_000 + b'"}', "too-large"),
    "one byte too many": (b" " * (bounds.ENVELOPE_BYTES - 1) + b"{}", "too-large"),
}


@pytest.mark.parametrize(("payload", "code"), BAD.values(), ids=BAD.keys())
def test_bad_input_has_its_code(payload: bytes, code: str) -> None:
    with pytest.raises(WireError) as caught:
        strict.loads(payload)
    assert caught.value.code == code
    str(caught.value).encode()  # fit for a log and a database, whatever came


def test_size_is_measured_before_anything_is_parsed() -> None:
    with pytest.raises(WireError) as caught:
        strict.loads(b"\xff" * 11, limit_bytes=10)
    assert caught.value.code == "too-large"
    assert caught.value.hint


def test_a_repeated_surrogate_key_is_reported_in_plain_characters() -> None:
    with pytest.raises(WireError) as caught:
        strict.loads(b'{"\\ud800": 1, "\\ud800": 2}')
    assert caught.value.code == "duplicate-key"
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"-0", 0),
        (b"1e308", 1e308),
        (b"1e-999", 0.0),
        (b"[true, false, null]", [True, False, None]),
        (b'"\\ud83e\\uddc0"', "\U0001f9c0"),
        ('"\U0001f9c0 ä"'.encode(), "\U0001f9c0 ä"),
        (b'{"a": {"b": 1}, "c": {"b": 2}}', {"a": {"b": 1}, "c": {"b": 2}}),
        (b" [ ] ", []),
        (b'"' + b"[" * 1_000 + b'"', "[" * 1_000),
        (b'["\\\\", "' + b"{" * 1_000 + b'\\""]', ["\\", "{" * 1_000 + '"']),
    ],
)
def test_good_input_is_read(payload: bytes, document: strict.Json) -> None:
    read = strict.loads(payload)
    assert read == document
    assert type(read) is type(document)


def test_the_deepest_document_is_read() -> None:
    payload = b"[" * bounds.DEPTH + b"]" * bounds.DEPTH
    assert json.dumps(strict.loads(payload)).encode() == payload


def test_an_envelope_of_exactly_the_limit_is_read() -> None:
    assert strict.loads(b'"' + b"a" * (bounds.ENVELOPE_BYTES - 2) + b'"')


COSTLY = {
    "many keys, the last one twice": b"{" + b",".join(b'"%x":0' % i for i in range(28_000)) + b',"6d5f":0}',
    "escaped quotes without an end": b'["' + b'\\"' * 130_000 + b"[" * 20,
    "quotes only": b"[" * 20 + b'"' * 260_000,
    "backslashes only": b"[" * 20 + b'"' + b"\\" * 260_000,
    "flat brackets": b"[" + b"[]," * 87_000 + b"[]]",
    "digits before the point": b"[" + b"1" * 260_000 + b".5]",
    "digits behind the point": b"[0." + b"1" * 260_000 + b"]",
    "blanks": b" " * 262_000 + b"}",
}


@pytest.mark.parametrize("payload", COSTLY.values(), ids=COSTLY.keys())
def test_no_envelope_takes_long(payload: bytes) -> None:
    assert len(payload) <= bounds.ENVELOPE_BYTES
    start_s = time.process_time()
    try:
        strict.loads(payload)
    except WireError:
        pass
    assert time.process_time() - start_s < 1.0  # milliseconds when it grows with the size, many seconds with its square


@settings(deadline=None)
@given(st.binary(max_size=2_000))
def test_arbitrary_bytes_raise_nothing_else(payload: bytes) -> None:
    try:
        strict.loads(payload)
    except WireError as error:
        assert error.code


@settings(deadline=None)
@given(st.text(alphabet='[]{}",:\\u0d8trefalsn1.e-', max_size=200))
def test_json_like_text_raises_nothing_else_and_keeps_to_the_depth(text: str) -> None:
    try:
        document = strict.loads(text.encode())
    except WireError as error:
        assert error.code
    else:
        assert document == json.loads(text)
        assert depth(document) <= bounds.DEPTH


def depth(document: strict.Json) -> int:
    if isinstance(document, list):
        return 1 + max(map(depth, document), default=0)
    if isinstance(document, dict):
        return 1 + max(map(depth, document.values()), default=0)
    return 0


CLEAN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | CLEAN_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(CLEAN_TEXT, inner, max_size=4),
    max_leaves=12,
).filter(lambda document: depth(document) <= bounds.DEPTH)


@settings(deadline=None)
@given(DOCUMENTS, st.booleans())
def test_every_clean_document_comes_back(document: strict.Json, ascii_only: bool) -> None:
    assert strict.loads(json.dumps(document, ensure_ascii=ascii_only).encode()) == document
