"""The rules of ingest without broker and database: opening, dating, identity, batches, receipts."""

import argparse
import itertools
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from broker import RUN, alert, result, sealed
from hypothesis import given
from hypothesis import strategies as st

from cloud.arrival import Arrival, Settled, open_arrival, poisoned, receipt, spans
from cloud.cli import main
from cloud.cli.common import broker_options, parse_broker
from cloud.errors import Rejected
from cloud.ingest import BATCH_ENVELOPES, WAITING_PICTURES, WINDOW_S, _Gathering
from cloud.store.rows import AHEAD_S, Entry, Shot, content, date, jpeg
from wire import envelope, topics
from wire.envelope import Origin
from wire.errors import WireError
from wire.mqtt import Message
from wire.records import Refusal, Result, Span, Status

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
keys = st.tuples(st.sampled_from(["00000000000000aa", "00000000000000bb"]), st.integers(1, 60))


def message(
    payload: bytes, rest: str = topics.RESULTS, device: str = "shop-1", correlation: bytes | None = b"e1"
) -> Message:
    return Message(f"shelfwire/v1/{device}/{rest}", payload, False, False, correlation, (1, 1, 1))


def record(**other: object) -> Result:
    return Result.model_validate(result(1, **other))


# -- spans and receipts -----------------------------------------------------------------------------------------------


@given(st.lists(keys))
def test_spans_hold_exactly_the_keys_that_were_sent(sent: list[tuple[str, int]]) -> None:
    found = spans(sent)
    held = [(span.run, seq) for span in found for seq in range(span.first, span.last + 1)]
    assert sorted(held) == sorted(set(sent))
    assert len(held) == len(set(held))
    for one, other in itertools.pairwise(found):
        assert one.run != other.run or one.last + 1 < other.first, "two spans that touch are one"


def test_a_receipt_lists_what_is_committed_and_what_is_refused() -> None:
    arrival = open_arrival(message(sealed("shop-1", [result(n) for n in (1, 2, 3, 5)])[1]), NOW)
    answer = receipt(Settled(arrival, frozenset({(RUN, 2)})))
    assert answer is not None
    assert answer.committed == tuple(Span(run=RUN, first=n, last=n) for n in (1, 3, 5))
    assert answer.refused == (Refusal(run=RUN, seq=2, code="key-conflict"),)


def test_an_envelope_that_cannot_be_read_is_named_by_its_correlation() -> None:
    answer = receipt(Settled(open_arrival(message(b"{", correlation=b"abc"), NOW)))
    assert answer is not None
    assert (answer.envelope, answer.rejected, answer.committed) == ("abc", "bad-json", ())


@pytest.mark.parametrize("correlation", [None, b"", b"x" * 65, "schön".encode(), b"a\x00b"])
def test_without_a_usable_correlation_there_is_no_receipt(correlation: bytes | None) -> None:
    assert receipt(Settled(open_arrival(message(b"{", correlation=correlation), NOW))) is None


@pytest.mark.parametrize("rest", [topics.STATUS, topics.PICTURES])
def test_status_and_pictures_get_no_receipt(rest: str) -> None:
    arrival = open_arrival(message(b"{", rest), NOW)
    assert arrival.rejected == "bad-json"
    assert receipt(Settled(arrival)) is None


def test_poison_is_kept_in_quarantine_and_refused_as_a_whole() -> None:
    arrival = open_arrival(message(sealed("shop-1", [result(1), result(2)], envelope_id="e9")[1]), NOW)
    bad = poisoned(arrival, "no \x00 room")
    answer = receipt(Settled(bad))
    assert answer is not None
    assert (answer.envelope, answer.rejected) == ("e9", "store-refused")
    assert (bad.entry.results, bad.entry.refused) == ((), 2)
    assert "\x00" not in bad.entry.quarantined[0].detail


# -- opening ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_whatever_comes_opening_never_raises(payload: bytes) -> None:
    for rest in (topics.RESULTS, topics.ALERTS, topics.STATUS, topics.PICTURES, "nonsense"):
        arrival = open_arrival(message(payload, rest), NOW)
        assert arrival.rejected or not payload


@pytest.mark.parametrize(
    "topic", ["", "shelfwire/v1/a b/results", "other/v1/x/results", "shelfwire/v1/x/\x00", "\ud800"]
)
def test_a_topic_that_is_not_ours_is_quarantined_under_no_device(topic: str) -> None:
    arrival = open_arrival(Message(topic, b"{}", False, False, b"e1", (1, 1, 1)), NOW)
    (kept,) = arrival.entry.quarantined
    assert arrival.entry.device == "" or kept.code == "bad-topic"
    kept.topic.encode()
    assert "\x00" not in kept.topic
    assert receipt(Settled(arrival)) is None


def test_the_device_is_who_the_broker_knows_never_who_the_payload_claims_to_be() -> None:
    payload = sealed("shop-1", [result(1)])[1]
    assert open_arrival(message(payload, device="shop-2"), NOW).rejected == "bad-source"
    (row,) = open_arrival(message(payload), NOW).entry.results
    assert row[0] == "shop-1"


def test_each_refused_record_is_kept_itself() -> None:
    wrong = result(2, mode="telepathy")
    payload = sealed("shop-1", [result(1), wrong, result(3, captured_at="9500-01-01T00:00:00Z"), "text", result(4)])[1]  # type: ignore[list-item]
    entry = open_arrival(message(payload), NOW).entry
    kept = {row.code + str(row.seq): json.loads(row.payload) for row in entry.quarantined}
    assert kept == {
        "bad-record2": wrong,
        "bad-recordNone": "text",
        "bad-time3": result(3, captured_at="9500-01-01T00:00:00Z"),
    }
    assert (len(entry.results), entry.refused) == (2, 3)


@pytest.mark.parametrize("thumbnail", ["AAAA", "////"])
def test_a_thumbnail_that_is_no_jpeg_is_refused(thumbnail: str) -> None:
    arrival = open_arrival(
        message(sealed("shop-1", [alert(1, thumbnail=thumbnail)], kind="alert")[1], topics.ALERTS), NOW
    )
    assert [refused.code for refused in arrival.refused] == ["bad-picture"]


def test_a_cleared_retained_status_says_nothing() -> None:
    arrival = open_arrival(message(b"", topics.STATUS), NOW)
    assert (arrival.rejected, arrival.entry.presence, arrival.entry.quarantined) == (None, None, ())


@pytest.mark.parametrize(("ahead", "retained", "noted"), [(-7200, False, -7200.0), (2, False, 2.0), (2, True, None)])
def test_a_live_status_tells_by_how_much_the_devices_clock_is_off(
    ahead: int, retained: bool, noted: float | None
) -> None:
    status = Status(state="online", session="0" * 16)
    said_at = NOW + timedelta(seconds=ahead)
    payload = envelope.seal_message("status", envelope.device_source("shop-1"), status, said_at)
    heard = Message("shelfwire/v1/shop-1/status", payload, retained, False, None, (1, 1, 1))
    presence = open_arrival(heard, NOW).entry.presence
    assert presence is not None
    assert json.loads(presence.status)[AHEAD_S] == noted


def test_jpeg_wants_base64_of_a_jpeg() -> None:
    assert jpeg("/9j/4A==") == b"\xff\xd8\xff\xe0"
    for text in ("/9j/4A", "R0lGODlh"):
        with pytest.raises(WireError):
            jpeg(text)


# -- dating and identity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "boot", "sent_ns", "boot_ns", "dated_by", "age_s"),
    [
        ("synced", "b1", 9_000_000_000, 5_000_000_000, "device", None),
        ("unsure", "b1", 9_000_000_000, 5_000_000_000, "boot-clock", 4.0),
        ("unsure", "b1", 5_000_000_000, 5_000_000_000, "boot-clock", 0.0),
        ("unsure", "", 9_000_000_000, 5_000_000_000, "unsure", None),
        ("unsure", "b1", 0, 5_000_000_000, "unsure", None),
        ("unsure", "b1", 4_000_000_000, 5_000_000_000, "unsure", None),
        ("unsure", "b1", 2**63 - 1, 0, "unsure", None),
    ],
)
def test_an_unsure_clock_is_corrected_only_inside_one_boot(
    clock: str, boot: str, sent_ns: int, boot_ns: int, dated_by: str, age_s: float | None
) -> None:
    one = record(clock=clock, boot_ns=boot_ns)
    found = date(one, Origin(device="shop-1", boot=boot, sent_boot_ns=sent_ns), NOW)
    assert found == (one.captured_at if age_s is None else NOW - timedelta(seconds=age_s), dated_by)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, min_size=1))
def test_content_is_the_same_for_a_copy_and_other_for_any_change(body: dict[str, object]) -> None:
    copy = json.loads(json.dumps(dict(reversed(body.items())), indent=2))
    assert content(copy) == content(body)  # type: ignore[arg-type]
    assert len(content(body)) == 32  # type: ignore[arg-type]
    assert content(body | {"one more": 1}) != content(body)  # type: ignore[arg-type]


# -- batches ----------------------------------------------------------------------------------------------------------


def opened(seq: int, kind: str = "result") -> Arrival:
    make = alert if kind == "alert" else result
    return open_arrival(message(sealed("shop-1", [make(seq)], kind=kind)[1], f"{kind}s"), NOW)


def test_a_batch_waits_a_short_time_unless_it_is_full_or_somebody_must_be_told() -> None:
    gathering = _Gathering()
    assert gathering.due_s() is None
    gathering.add(opened(1), 100.0)
    gathering.add(opened(2), 100.01)
    assert gathering.due_s() == 100.0 + WINDOW_S
    gathering.add(opened(1, "alert"), 100.01)
    assert gathering.due_s() == 0.0
    assert len(gathering.take()) == 3
    assert gathering.due_s() is None
    for seq in range(BATCH_ENVELOPES):
        gathering.add(opened(seq + 1), 200.0)
    assert gathering.due_s() == 0.0


def test_while_the_database_is_away_only_the_newest_pictures_wait() -> None:
    gathering = _Gathering()
    for n in range(3 * WAITING_PICTURES):
        camera = f"cam-{n % (WAITING_PICTURES + 5)}"
        one = Entry("shop-1", NOW, shot=Shot(camera, n, NOW, 8, 8, b""))
        gathering.add(Arrival(Message("t", b"", False, False, None, (1, 0, 0)), one), 0.0)
    assert len(gathering) == WAITING_PICTURES
    for _ in range(1000):
        gathering.add(open_arrival(Message("shelfwire/v1/x/pictures", b"bad", False, False, None, (1, 0, 0)), NOW), 0.0)
    assert len(gathering) < WAITING_PICTURES + 11 * BATCH_ENVELOPES


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_broker_address_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("pass word\n")
    found = parse_broker("mqtts://cloud@broker.example", password_file=secret, client_id="i1")
    assert (found.host, found.port, found.tls) == ("broker.example", 8883, True)
    assert (found.username, found.password, found.client_id) == ("cloud", "pass word", "i1")
    plain = argparse.Namespace(broker="mqtt://127.0.0.1:1899", password_file=None, ca_file=None, client_id=None)
    first, second = broker_options(plain, "ingest"), broker_options(plain, "ingest")
    assert (first.port, first.username, first.tls) == (1899, None, False)
    assert first.client_id != second.client_id


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://x", "bad-broker-url"),
        ("mqtt://", "bad-broker-url"),
        ("mqtt://x:99999", "bad-broker-url"),
        ("mqtt://user:secret@x", "bad-broker-url"),
        ("mqtt://x/path", "bad-broker-url"),
        ("127.0.0.1", "bad-broker-url"),
    ],
)
def test_a_wrong_broker_address_names_the_cure_and_no_secret(url: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_broker(url, password_file=None, client_id="i1")
    assert caught.value.code == code
    assert caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """A command sets up logging for its process; here the process is the tests'."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("_own_logging")
def test_a_command_that_fails_prints_the_cure_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    code = main(["ingest", "--broker", "mqtt://x", "--password-file", str(missing), "--json"])
    printed = capsys.readouterr()
    assert code == 2
    assert json.loads(printed.out)["error"]["code"] == "password-file"
    assert "error: " in printed.err
    assert "\n  cure: " in printed.err


def test_the_version_and_the_commands_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--version", "--help"):
        with pytest.raises(SystemExit) as ended:
            main([argument])
        assert ended.value.code == 0
    assert "shelfwire-cloud" in (text := capsys.readouterr().out)
    assert "ingest" in text
