"""What the Live page says, from rows and statuses: pure rules, no database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.errors import Rejected
from cloud.listening import is_loopback
from cloud.store.read import AnswerRow, Cursor, DeviceRow, PictureRow
from cloud.web import live, words
from cloud.web.hub import Changes
from cloud.web.problems import answer
from wire.records import CameraStatus, Status

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SESSION = "00112233445566aa"


def device_row(state: str = "online", silent_s: float = 1, **status: object) -> DeviceRow:
    told = {"state": state, "session": SESSION, "vision": "running", "clock": "synced", **status}
    seen = NOW - timedelta(seconds=silent_s)
    return DeviceRow("shop-1", "Harbour", state, "0.1.0", told, seen, seen)


def answer_row(
    age_s: float = 1, late_s: float = 0.1, label: str = "Granny-Smith", truth: str | None = None
) -> AnswerRow:
    at = NOW - timedelta(seconds=age_s)
    labels = [{"label": "Granny-Smith", "score": 0.8}, {"label": "Pear", "score": 0.1}]
    return AnswerRow(
        "shop-1", "shelf", SESSION, 7, 7, at, at + timedelta(seconds=late_s), label, 0.8, "confirmed", "real-time",
        labels, "produce", "0.1.0", 18.0, truth,
    )  # fmt: skip


def one_camera(device: DeviceRow | None, *answers: AnswerRow) -> live.shapes.Camera:
    (made,) = live.cameras(live.Rows([device] if device else [], answers, []), NOW)
    return made


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("Granny-Smith", "Granny Smith"),
        ("unknown", "Unknown"),
        ("red_bell-pepper", "Red bell pepper"),
        ("  Sour   Cream\n", "Sour Cream"),
        ("--", "(no name)"),
        ("\u202edliw\u202c", "Dliw"),
        ("a\u200bb\x00c\x1b[31m", "Abc[31m"),
        ("Crème fraîche", "Crème fraîche"),
        ("梨", "梨"),
    ],
)
def test_labels_are_written_as_one_says_them(label: str, said: str) -> None:
    assert words.title(label) == said


@given(st.text(max_size=64))
def test_a_title_is_never_empty_and_never_hides_anything(label: str) -> None:
    said = words.title(label)
    assert said.strip() == said != ""
    assert not any(ord(c) < 32 or c in "\u202e\u2066\u200f" for c in said)


def test_the_decision_and_not_the_best_guess_gives_the_score_shown() -> None:
    changing = one_camera(device_row(), answer_row(label="Pear"))
    assert changing.answer is not None
    assert (changing.answer.title, changing.answer.score) == ("Pear", 0.1)
    unknown = one_camera(device_row(), answer_row(label="unknown"))
    assert unknown.answer is not None
    assert (unknown.answer.title, unknown.answer.score) == ("Unknown", 0.8)


def test_truth_is_compared_only_where_it_is_known() -> None:
    told = [one_camera(device_row(), answer_row(truth=truth)).answer for truth in (None, "Granny-Smith", "Pear")]
    assert [a.correct for a in told if a] == [None, True, False]


def test_the_age_of_an_answer_counts_from_a_clock_that_can_be_trusted() -> None:
    early, late = answer_row(age_s=300, late_s=299), answer_row(age_s=-60, late_s=-59)
    trusted = one_camera(device_row(), early).answer
    unsure = one_camera(device_row(clock="unsure"), early).answer
    future = one_camera(device_row(), late).answer
    assert trusted and trusted.as_of == early.captured_at
    assert unsure and unsure.as_of == early.received_at
    assert future and future.as_of == min(late.captured_at, late.received_at)


def test_a_slow_camera_is_given_more_time() -> None:
    assert live.stale_after_s(5) == live.stale_after_s(0) == 10
    assert live.stale_after_s(0.05) == 60


@pytest.mark.parametrize(
    ("row", "presence"),
    [
        (None, "unknown"),
        (device_row("unknown"), "unknown"),
        (device_row(), "online"),
        (device_row(silent_s=44), "online"),
        (device_row(silent_s=46), "stale"),
        (device_row("offline", silent_s=1), "offline"),
    ],
)
def test_presence(row: DeviceRow | None, presence: str) -> None:
    assert live.presence(row, row.seen_at if row else None, NOW) == presence


def test_a_device_is_heard_by_its_answers_too() -> None:
    (device,) = live.devices(live.Rows([device_row(silent_s=300)], [answer_row(age_s=5)], []), NOW)
    assert device.presence == "online"
    assert device.last_heard_at == NOW - timedelta(seconds=4.9)
    assert one_camera(device_row(silent_s=300), answer_row(age_s=5)).trouble is None


def test_trouble_is_told_from_the_outermost_cause_with_its_cure() -> None:
    failed = {
        "name": "shelf", "kind": "rtsp", "phase": "failed", "code": "camera-auth",
        "message": "camera shelf: it refuses the login", "cure": "correct username and password_file",
    }  # fmt: skip
    cases = {
        "camera-auth": device_row(cameras=[failed]),
        "vision-stopped": device_row(cameras=[failed], vision="stopped"),
        "device-silent": device_row(silent_s=60, cameras=[failed]),
        "device-offline": device_row("offline", reason="connection lost"),
        "device-stopped": device_row("offline", reason="stopped"),
    }
    for code, row in cases.items():
        trouble = one_camera(row, answer_row(age_s=61)).trouble
        assert trouble is not None
        assert trouble.code == code
        assert trouble.text
        assert trouble.cure
    trouble = one_camera(cases["camera-auth"], answer_row()).trouble
    assert trouble is not None
    assert trouble.text == "the camera refuses the login"
    assert one_camera(device_row(), answer_row()).trouble is None


@pytest.mark.parametrize("phase", ["opening", "stalled", "failed", "ended"])
def test_every_phase_has_words_even_when_the_device_sends_none(phase: str) -> None:
    told = CameraStatus.model_validate({"name": "shelf", "kind": "usb", "phase": phase})
    status = Status.model_validate({"state": "online", "session": SESSION, "vision": "running"})
    trouble = words.camera_trouble("online", status, told)
    assert trouble is not None
    assert trouble.code == f"camera-{phase}"
    assert trouble.cure


def test_a_camera_named_only_in_the_status_has_a_tile_too() -> None:
    told = device_row(cameras=[{"name": "door", "kind": "usb", "phase": "failed"}])
    made = one_camera(told)
    assert (made.camera, made.answer, made.picture, made.phase) == ("door", None, None, "failed")


def test_a_camera_taken_out_of_the_configuration_leaves_the_page_once_it_is_silent() -> None:
    told = device_row(cameras=[{"name": "door", "kind": "usb", "phase": "streaming"}])

    def names(age_s: float, device: DeviceRow) -> list[str]:
        return [c.camera for c in live.cameras(live.Rows([device], [answer_row(age_s)], []), NOW)]

    assert names(5, told) == ["door", "shelf"]
    assert names(500, told) == ["door"]
    assert names(500, device_row(vision="stopped")) == ["shelf"]
    assert names(500, device_row("offline")) == ["shelf"]


def test_a_status_that_cannot_be_read_costs_only_what_it_says() -> None:
    row = DeviceRow("shop-1", "Harbour", "online", "9", {"state": "sideways", "cameras": 7}, NOW, NOW)
    (device,) = live.devices(live.Rows([row], [], []), NOW)
    assert (device.presence, device.cameras_total, device.outbox, device.clock) == ("online", 0, None, "unknown")


def test_a_last_will_says_nothing_of_the_clock() -> None:
    (device,) = live.devices(live.Rows([device_row("offline")], [], []), NOW)
    assert (device.clock, device.vision, device.cameras_working) == ("unknown", "unknown", 0)


def test_a_picture_has_a_new_address_whenever_it_is_new() -> None:
    def url(received_at: datetime) -> str:
        rows = live.Rows([], [], [PictureRow("shop-1", "shelf", 1, NOW, received_at, 640, 360)])
        picture = live.cameras(rows, NOW)[0].picture
        assert picture is not None
        return picture.url

    assert url(NOW) == url(NOW)
    assert url(NOW) != url(NOW + timedelta(milliseconds=1))
    assert url(NOW).startswith("/api/v1/cameras/shop-1/shelf/picture.jpg?")


def test_a_cursor_comes_back_as_it_was() -> None:
    cursor = Cursor(NOW, "shop-1", SESSION, 7)
    assert Cursor.decode(cursor.encode()) == cursor


@given(st.text(max_size=80))
def test_a_foreign_cursor_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        Cursor.decode(text)
    assert caught.value.code == "bad-cursor"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True), ("LOCALHOST:8000", True), ("localhost.:80", True), ("127.0.0.1", True),
        ("127.8.9.1:1", True), ("[::1]:8000", True), ("::1", True), ("", False), ("0.0.0.0", False), ("[::]:1", False),
        ("192.168.1.5:8000", False), ("evil.example", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("127.0.0.1:80:80", False), ("localhost:x", False), ("[::1]evil", False),
        ("127.1", False),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_loopback(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


def test_notifications_are_gathered_and_a_strange_one_means_everything() -> None:
    changes = Changes()
    assert not changes
    changes.note('{"device": "shop-1", "what": ["answers"]}')
    changes.note('{"device": "shop-2", "what": ["alerts", "answers"]}')
    assert (changes.devices, changes.alerts, changes.everything) == ({"shop-1", "shop-2"}, True, False)
    for payload in ("", "[]", "null", "{}", '{"device": "a"}', "7"):
        strange = Changes()
        strange.note(payload)
        assert strange.everything


def test_a_problem_is_rfc_9457_with_a_cure() -> None:
    response = answer(503, "database-away", "no database", "start it")
    assert response.media_type == "application/problem+json"
    assert response.headers["retry-after"]
    assert b'"hint":"start it"' in response.body
