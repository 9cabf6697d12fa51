"""Page 2 on a real outbox: what is sent, in which order, and what each answer or silence does."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from world import BOOT, FakeClock, FakeLink, Published, opened, receipt

from agent.core.alerting import Change
from agent.core.decide import Conclusion
from agent.core.records import Origin, alert_body, result_body
from agent.ports import Draft, Lane
from agent.store.inspect import look
from agent.store.sender import REFUSALS_BEFORE_DEAD, Sender
from agent.store.verdicts import VerdictStore
from agent.store.writer import Limits, Writer
from agent.uplink import BACKLOG_WINDOW, WINDOW, Uplink, Who
from wire import envelope, mqtt, topics
from wire.records import ModelName, Receipt, Score, Status, Verdict

DEVICE = "till-3"


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.writer = Writer(folder, Limits(), 0)
        self.writer.start_run(BOOT, 0, "test")
        self.sender = Sender(folder, 0)
        self.verdicts = VerdictStore(folder)
        self.link = FakeLink()
        self.status = Status(state="online", session="0" * 16)
        self.pictures: list[bytes] = []
        self.uplink = Uplink(
            Who(DEVICE, "store-1", "0", BOOT),
            self.sender,
            self.link,
            self.clock,
            random.Random(1),
            verdicts=self.verdicts,
            receipt_timeout_s=30,
            describe=lambda: self.status,
            pictures=self._take_pictures,
        )

    def _take_pictures(self) -> list[bytes]:
        taken, self.pictures = self.pictures, []
        return taken

    def results(self, n: int) -> None:
        drafts = []
        for _ in range(n):
            now = self.clock.now()
            body = result_body(
                Origin("shelf", 1, now.wall_ns, now.boot_ns, "synced"),
                labels=(("Banana", 0.9),), conclusion=Conclusion("Banana", "confirmed", False, "why"),
                model={"name": "m", "version": "1", "release": 1, "digest": "0" * 64}, runtime="openvino",
                waiting_ms=1, inference_ms=2, total_ms=3, truth=None,
            )  # fmt: skip
            drafts.append(Draft("result", Lane.RESULT, body, now, "synced"))
        self.writer.put(drafts)

    def alert(self) -> None:
        now = self.clock.now()
        body = alert_body(
            Origin("shelf", 1, now.wall_ns, now.boot_ns, "synced"), rule="r",
            change=Change("raised", now.wall_ns, "why"), label="Banana", score=0.9, thumbnail=None,
        )  # fmt: skip
        self.writer.put([Draft("alert", Lane.ALERT, body, now, "synced")])

    def connect(self) -> None:
        self.link.up()
        self.uplink.turn()

    def answer(self, message: Published, refused: dict[int, str] | None = None) -> None:
        records = opened(message, DEVICE)
        self.link.events.append(receipt(DEVICE, records.event.id, list(records.good), refused))
        self.uplink.turn()

    def counters(self) -> dict[str, int]:
        return dict(look(self.folder).counters)

    def close(self) -> None:
        self.writer.close()
        self.verdicts.close()
        self.sender.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.close()


def sequences(message: Published) -> list[int]:
    return [record.seq for record in opened(message, DEVICE).good]


def test_results_leave_in_one_envelope_and_die_on_the_receipt(world: World) -> None:
    world.results(7)
    world.connect()
    (message,) = world.link.on("results")
    assert sequences(message) == [1, 2, 3, 4, 5, 6, 7]
    assert message.correlation == json.loads(message.payload)["id"].encode()
    assert look(world.folder).waiting == 7
    world.answer(message)
    assert look(world.folder).waiting == 0
    assert world.counters()["result:delivered"] == 7


def test_the_brokers_word_alone_deletes_nothing(world: World) -> None:
    world.results(1)
    world.connect()
    world.link.events.append(mqtt.Acknowledged(world.link.on("results")[0].mid, 0, "Success"))
    world.uplink.turn()
    assert look(world.folder).waiting == 1


def test_an_alert_does_not_wait_behind_results(world: World) -> None:
    world.results(3000)
    world.alert()
    world.connect()
    kinds = [p.topic.rsplit("/", 1)[1] for p in world.link.published if p.qos == 1 and not p.retain]
    assert kinds[0] == "alerts"
    assert kinds.count("results") <= WINDOW


def test_a_backlog_leaves_room_for_live_results(world: World) -> None:
    world.results(2500)
    world.clock.advance(60)
    world.connect()
    assert len(world.link.take("results")) == BACKLOG_WINDOW
    world.results(1)
    world.uplink.turn()
    (live,) = world.link.take("results")
    assert sequences(live) == [2501]


def test_no_receipt_means_sent_again_and_a_late_one_still_counts(world: World) -> None:
    world.results(3)
    world.connect()
    (first,) = world.link.take("results")
    world.clock.advance(31)
    world.uplink.turn()
    world.clock.advance(301)
    world.uplink.turn()
    (second,) = world.link.take("results")
    assert sequences(second) == sequences(first)
    world.answer(first)
    world.answer(second)
    assert world.counters()["result:delivered"] == 3


def test_a_cut_connection_sends_everything_again(world: World) -> None:
    world.results(3)
    world.connect()
    (first,) = world.link.take("results")
    world.link.down()
    world.uplink.turn()
    assert world.uplink.down is not None
    world.connect()
    assert world.uplink.down is None
    assert sequences(world.link.take("results")[0]) == sequences(first)


def test_a_refused_record_goes_aside_after_some_tries_and_holds_nobody_up(world: World) -> None:
    world.results(3)
    world.connect()
    for _ in range(REFUSALS_BEFORE_DEAD):
        (message,) = world.link.take("results")
        world.answer(message, {2: "bad-record"})
        world.clock.advance(400)
        world.uplink.turn()
    assert look(world.folder).dead == 1
    assert look(world.folder).waiting == 0
    assert world.counters()["result:delivered"] == 2


def test_an_envelope_that_the_cloud_cannot_read_goes_record_by_record(world: World) -> None:
    world.results(3)
    world.connect()
    (message,) = world.link.take("results")
    token = json.loads(message.payload)["id"]
    world.link.events.append(receipt(DEVICE, token, [], rejected="bad-json"))
    world.uplink.turn()
    world.uplink.turn()
    alone = world.link.take("results")
    assert [sequences(m) for m in alone] == [[1], [2], [3]]


def test_a_record_too_large_for_the_broker_is_set_aside(world: World) -> None:
    world.results(3)
    world.link.packet_bytes = 700
    world.connect()
    world.uplink.turn()
    assert look(world.folder).dead == 3


def test_a_refusal_by_the_broker_keeps_the_records_and_slows_down(world: World) -> None:
    world.results(3)
    world.connect()
    (message,) = world.link.take("results")
    world.link.events.append(mqtt.Acknowledged(message.mid, 0x97, "Quota exceeded"))
    world.uplink.turn()
    assert world.uplink.counts["broker-refused"] == 1
    world.clock.advance(400)
    world.uplink.turn()
    assert sequences(world.link.take("results")[0]) == [1, 2, 3]


def test_a_broker_without_ingest_is_named_and_not_flooded(world: World) -> None:
    world.results(3)
    world.connect()
    for _ in range(6):
        for message in world.link.take("results"):
            world.link.events.append(mqtt.Acknowledged(message.mid, 0x10, "No matching subscribers"))
        world.uplink.turn()
        world.clock.advance(11)
        world.uplink.turn()
    assert world.uplink.refused is not None
    assert world.uplink.refused.code == "cloud-away"
    (message,) = world.link.take("results")
    world.answer(message)
    assert world.uplink.refused is None
    assert look(world.folder).waiting == 0


def test_the_first_receipt_after_a_silence_ends_the_waiting(world: World) -> None:
    world.results(250)
    world.connect()
    for _ in range(8):
        world.link.take("results")
        world.clock.advance(31)
        world.uplink.turn()
    world.results(1)
    world.uplink.turn()
    fresh = world.link.take("results")
    for message in fresh:
        world.answer(message)
    for _ in range(3):
        for message in world.link.take("results"):
            world.answer(message)
        world.uplink.turn()
    assert look(world.folder).waiting == 0


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 5000, b'{"specversion":"1.0"}', b"x" * 300_000])
def test_a_hostile_message_changes_nothing(world: World, payload: bytes) -> None:
    world.results(1)
    world.connect()
    name = f"shelfwire/v1/{DEVICE}/receipts/down"
    world.link.events.append(mqtt.Message(name, payload, False, False, None, (1, 1, 1)))
    world.uplink.turn()
    assert world.uplink.counts["messages-refused"] == 1
    assert look(world.folder).waiting == 1


def test_a_receipt_meant_for_another_device_is_ignored(world: World) -> None:
    world.results(1)
    world.connect()
    records = opened(world.link.on("results")[0], DEVICE)
    world.link.events.append(receipt("other", records.event.id, list(records.good)))
    world.uplink.turn()
    assert look(world.folder).waiting == 1


def test_status_is_retained_told_at_once_when_it_changes_and_else_now_and_then(world: World) -> None:
    world.connect()
    (first,) = world.link.take("status")
    assert first.retain
    world.clock.advance(1)
    world.uplink.turn()
    assert world.link.take("status") == []
    world.status = world.status.model_copy(update={"vision": "running"})
    world.clock.advance(1)
    world.uplink.turn()
    assert len(world.link.take("status")) == 1
    world.clock.advance(11)
    world.uplink.turn()
    assert len(world.link.take("status")) == 1


def test_pictures_go_at_most_once(world: World) -> None:
    world.connect()
    world.pictures = [b'{"camera":"shelf"}']
    world.clock.advance(1)
    world.uplink.turn()
    (picture,) = world.link.take("pictures")
    assert picture.qos == 0
    assert json.loads(picture.payload)["data"] == {"camera": "shelf"}


def test_records_of_another_boot_are_not_dated_by_this_boots_clock(world: World) -> None:
    world.writer.start_run("boot-0", 0, "test")
    world.results(1)
    world.writer.start_run(BOOT, 0, "test")
    world.results(1)
    world.connect()
    old, new = (opened(message, DEVICE) for message in world.link.on("results"))
    assert (len(old.good), old.origin.boot, old.origin.sent_boot_ns) == (1, "", 0)
    assert (len(new.good), new.origin.boot, new.origin.sent_boot_ns) == (1, BOOT, world.clock.boot_ns)


# -- late answers --------------------------------------------------------------------------------------------

CLOUD_RUN = "c" * 16


def verdict(seq: int, device: str = DEVICE, agrees: bool | None = None) -> Verdict:
    return Verdict(
        device=device, run="a" * 16, seq=seq, camera="shelf", frame=seq, captured_at=envelope.utc(0), mode="serverless",
        label="Banana", labels=(Score(label="Banana", score=0.75),), runtime="onnxruntime", inference_ms=12.0,
        model=ModelName(name="m", version="1", release=1, digest="0" * 64), answered_at=envelope.utc(0), agrees=agrees,
    )  # fmt: skip


def verdicts(answers: dict[int, Verdict | dict[str, object]], token: str = "f" * 24) -> mqtt.Message:
    """Make an envelope of late answers; its records are numbered by the cloud."""
    records = [
        envelope.keyed(
            CLOUD_RUN, seq, json.dumps({"verdict": v if isinstance(v, dict) else v.model_dump(mode="json")}).encode()
        )
        for seq, v in answers.items()
    ]
    payload = envelope.seal_records(
        "verdict", envelope.Origin(device=DEVICE), records, envelope.utc(0), token, envelope.CLOUD_SOURCE
    )
    return mqtt.Message(topics.topic(DEVICE, topics.VERDICTS), payload, False, False, None, (1, 1, 1))


def receipts_up(world: World) -> list[Receipt]:
    source = envelope.device_source(DEVICE)
    return [
        envelope.open_message(message.payload, "receipt", Receipt, source)[1]
        for message in world.link.take("receipts/up")
    ]


def test_a_late_answer_is_committed_and_then_its_receipt_names_the_clouds_own_key(world: World) -> None:
    world.connect()
    world.link.events.append(verdicts({7: verdict(1), 8: verdict(2), 10: verdict(3)}))
    world.uplink.turn()
    (sent,) = receipts_up(world)
    assert sent.envelope == "f" * 24
    assert [(s.run, s.first, s.last) for s in sent.committed] == [(CLOUD_RUN, 7, 8), (CLOUD_RUN, 10, 10)]
    assert (world.counters()["answers:serverless"], world.counters()["frames:answered"]) == (3, 3)
    kept = world.verdicts.answer("a" * 16, 2)
    assert kept is not None
    assert kept.verdict == verdict(2)


def test_a_copy_counts_once_and_gets_its_receipt_too(world: World) -> None:
    world.connect()
    for token in ("1" * 24, "2" * 24):
        world.link.events.append(verdicts({7: verdict(1)}, token))
    world.uplink.turn()
    assert [r.envelope for r in receipts_up(world)] == ["1" * 24, "2" * 24]
    assert world.counters()["answers:serverless"] == 1
    assert world.uplink.counts["verdict-copies"] == 1


def test_no_receipt_leaves_before_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.connect()
    keep = world.verdicts.keep

    def full(*_: object) -> int:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(world.verdicts, "keep", full)
    world.link.events.append(verdicts({7: verdict(1)}))
    with pytest.raises(apsw.FullError):
        world.uplink.turn()
    assert receipts_up(world) == []
    monkeypatch.setattr(world.verdicts, "keep", keep)
    world.link.events.append(verdicts({7: verdict(1)}))
    world.uplink.turn()
    assert len(receipts_up(world)) == 1


def test_a_bad_late_answer_is_refused_by_name_and_holds_no_other_back(world: World) -> None:
    world.connect()
    bad = verdict(2).model_dump(mode="json") | {"mode": "guess"}
    world.link.events.append(verdicts({7: verdict(1), 8: bad, 9: verdict(3, "till-4"), 10: verdict(4)}))
    world.uplink.turn()
    (sent,) = receipts_up(world)
    assert [(s.first, s.last) for s in sent.committed] == [(7, 7), (10, 10)]
    assert {(r.seq, r.code) for r in sent.refused} == {(8, "bad-record"), (9, "not-mine")}
    assert world.uplink.counts["verdicts-refused"] == 2
    assert world.counters()["answers:serverless"] == 2


@pytest.mark.parametrize("payload", [b"", b"{", b"[" * 5000, b'{"specversion":"1.0"}', b"x" * 300_000])
def test_an_envelope_of_answers_that_cannot_be_read_is_counted_and_ignored(world: World, payload: bytes) -> None:
    world.connect()
    name = topics.topic(DEVICE, topics.VERDICTS)
    world.link.events.append(mqtt.Message(name, payload, False, False, None, (1, 1, 1)))
    world.uplink.turn()
    assert receipts_up(world) == []
    assert world.uplink.counts["messages-refused"] == 1


def test_a_receipt_that_cannot_be_sent_now_comes_with_the_next_copy(world: World) -> None:
    world.connect()
    world.link.connected = False
    world.link.events.append(verdicts({7: verdict(1)}))
    world.uplink.turn()
    world.link.connected = True
    world.link.events.append(verdicts({7: verdict(1)}))
    world.uplink.turn()
    assert len(receipts_up(world)) == 1
    assert world.counters()["answers:serverless"] == 1
