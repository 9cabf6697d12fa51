"""What is reported of a scored day, and the pictures that go with it."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from batch_nights import NIGHT, Silent, night, receive
from shard_files import PRODUCTS, row, rows, shelf

from cloud.batch import text
from cloud.batch.engines import Local
from cloud.batch.pictures import MOST_BYTES, NoPicture, Pictures
from cloud.batch.report import Report, Reports
from cloud.batch.rows import Nights
from cloud.batch.run import Batch, Chosen
from cloud.batch.tally import MOST_FRAMES
from cloud.errors import CloudError, Rejected
from cloud.objects import Objects
from cloud.store import Store

BEFORE = NIGHT - timedelta(days=1)


@pytest.fixture
def reports(store: Store, objects: Objects) -> Reports:
    return Reports(Nights(store.pool), objects)


def run(store: Store, objects: Objects, day: date = NIGHT) -> None:
    outcome = Batch(Nights(store.pool, store.dsn), objects, Chosen.of("produce"), Local(1)).run(day, Silent())
    assert outcome.failed == []


def mixed() -> list[dict[str, Any]]:
    """Thirty frames: the device was wrong on three lemons, silent on one frame, and two pictures are damaged."""
    given = rows(30)
    for seq, score in ((2, 0.7), (8, 0.95), (14, 0.6)):
        given[seq - 1] = row(seq, picture=shelf("Lemon"), label="Lime", score=score, truth="Lemon")
    given[4] = row(5, label=None, score=None, labels=None, model_name=None, model_version=None, model_digest=None)
    given[5] = row(6, picture=shelf("Carrots")[:2500])
    given[6] = row(7, picture=b"GIF89a not ours")
    return given


def test_a_day_is_reported_by_camera_class_and_model(
    store: Store, objects: Objects, reports: Reports, tmp_path: Path
) -> None:
    receive(store, objects, tmp_path, mixed())
    run(store, objects)
    made = reports.report(NIGHT)
    assert (made.shards, made.shards_scored, made.devices, made.frames) == (1, 1, 1, 30)
    counts = made.counts
    assert (counts.frames, counts.answered, counts.unreadable, counts.compared) == (30, 28, 2, 27)
    assert counts.agreement == counts.agreed / 27
    assert [sum(getattr(one.counts, name) for one in made.cameras) for name in ("frames", "unreadable", "agreed")] == [
        30, 2, counts.agreed,
    ]  # fmt: skip
    assert {one.camera for one in made.cameras} == {"shelf-1", "shelf-2"}
    lime = next(one for one in made.classes if one.label == "Lime")
    assert (lime.compared, lime.agreed, lime.instead, lime.instead_frames) == (3, 0, "Lemon", 3)
    assert made.classes[0] is lime  # what agrees least comes first
    assert [(one.model, one.compared) for one in made.local_models] == [("produce 0.0.9", 27)]
    assert made.truth is not None
    assert (made.truth.frames, made.truth.device_right) == (27, 24)
    assert made.truth.batch_right >= 26
    assert made.before is None


def test_the_frames_most_worth_a_label_come_first(
    store: Store, objects: Objects, reports: Reports, tmp_path: Path
) -> None:
    declared = receive(store, objects, tmp_path, mixed())
    run(store, objects)
    worth = reports.report(NIGHT).worth
    by_reason = {why: [one for one in worth if one.why == why] for why in ("disagreement", "close", "unreadable")}
    limes = [one.seq for one in by_reason["disagreement"] if one.local_label == "Lime"]
    assert limes == [8, 2, 14]  # the surer the less sure of the two was, the more it is worth
    assert [one.seq for one in by_reason["unreadable"]] == [6, 7]
    assert all(one.margin is not None and one.margin < 0.5 for one in by_reason["close"])
    assert [one.margin for one in by_reason["close"]] == sorted(one.margin or 0 for one in by_reason["close"])
    assert {(one.shard_sha256, one.row) for one in worth} == {(declared.sha256, one.seq - 1) for one in worth}


def test_many_shards_give_one_report_of_bounded_length(
    store: Store, objects: Objects, reports: Reports, tmp_path: Path
) -> None:
    for part in range(3):
        given = rows(20, first=part * 20 + 1, label="Lime", score=0.9)
        receive(store, objects, tmp_path, given, part + 1)
    run(store, objects)
    made = reports.report(NIGHT)
    assert (made.shards_scored, made.counts.frames, made.counts.agreed) == (3, 60, 0)
    assert len([one for one in made.worth if one.why == "disagreement"]) == MOST_FRAMES
    assert reports.report(NIGHT) == made


def test_the_day_before_is_compared_and_a_later_run_is_seen(
    store: Store, objects: Objects, reports: Reports, tmp_path: Path
) -> None:
    day = {"day": BEFORE.isoformat()}
    receive(store, objects, tmp_path, [*rows(10, **day), *rows(10, first=11, label="Lime", **day)])
    receive(store, objects, tmp_path, rows(12))
    assert reports.report(NIGHT).model is None
    run(store, objects)
    assert reports.report(NIGHT).before is None
    run(store, objects, BEFORE)
    made = reports.report(NIGHT)
    assert made.before is not None
    assert made.before.day == BEFORE
    assert made.before.counts.agreement == pytest.approx(0.5, abs=0.1)
    assert all(one.before is not None for one in made.cameras)
    assert "points to the day before" in "\n".join(text.lines(made))


def test_a_model_is_chosen_by_its_digest(store: Store, objects: Objects, reports: Reports, tmp_path: Path) -> None:
    receive(store, objects, tmp_path, rows(5))
    run(store, objects)
    digest = Chosen.of("produce").model.digest
    assert reports.report(NIGHT, digest[:8]).model_digest == digest
    with pytest.raises(Rejected, match="no model 'abc'") as refused:
        reports.report(NIGHT, "abc")
    assert refused.value.code == "no-such-model"
    assert digest[:8] in refused.value.hint
    with pytest.raises(Rejected) as refused:
        reports.report(NIGHT + timedelta(days=9))
    assert refused.value.code == "no-such-day"


def test_the_words_round_no_disagreement_away() -> None:
    assert [text.percent(*pair) for pair in ((1, 1), (9999, 10000), (0, 3), (2, 3))] == [
        "100%",
        "99.9%",
        "0.0%",
        "66.7%",
    ]
    assert [text.points(*pair) for pair in ((0.5, 0.48), (0.48, 0.5), (0.5, 0.5004))] == ["+2.0", "-2.0", "0.0"]


def test_a_report_is_told_in_words_also_where_nothing_can_be_compared(
    store: Store, objects: Objects, reports: Reports, tmp_path: Path
) -> None:
    receive(store, objects, tmp_path, mixed())
    assert list(text.lines(reports.report(NIGHT)))[-1] == f"  score it: shelfwire-cloud batch run {NIGHT}"
    run(store, objects)
    said = "\n".join(text.lines(reports.report(NIGHT)))
    assert "30 frames, 28 answered, 2 unreadable" in said
    assert "Lime" in said
    assert "else mostly Lemon (3)" in said
    assert "picture-truncated: the jpeg file ends too early" in said
    silent = {"label": None, "score": None, "labels": None, "truth": None, "day": BEFORE.isoformat()}
    receive(store, objects, tmp_path, rows(3, **silent))
    run(store, objects, BEFORE)
    alone: Report = reports.report(BEFORE)
    assert (alone.counts.agreement, alone.classes, alone.truth) == (None, (), None)
    assert "no frame can be compared" in "\n".join(text.lines(alone))


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_read_by_row_from_received_shards_alone(store: Store, objects: Objects, tmp_path: Path) -> None:
    given = rows(230)
    given[201] = row(202, picture=b"\xff\xd8\xff" + bytes(MOST_BYTES))
    given[202] = row(203, picture=b"<svg onload=alert(1)>")
    declared = receive(store, objects, tmp_path, given)
    pictures = Pictures(Nights(store.pool), objects)
    assert pictures.picture(NIGHT, declared.sha256, 0, also=lambda: [229, 150]) == shelf(PRODUCTS[1])
    file = objects.address + "/" + declared.key
    Path(file).rename(file + ".away")
    assert pictures.picture(NIGHT, declared.sha256, 229) == shelf(PRODUCTS[230 % len(PRODUCTS)])  # was kept
    with pytest.raises(CloudError) as away:
        pictures.picture(NIGHT, declared.sha256, 1)
    assert away.value.code == "objects-missing"
    Path(file + ".away").rename(file)
    for row_number in (201, 202, 230, 10**6):
        with pytest.raises(NoPicture):
            pictures.picture(NIGHT, declared.sha256, row_number)
    for day, digest in ((BEFORE, declared.sha256), (NIGHT, "0" * 64)):
        with pytest.raises(NoPicture, match="no shard"):
            pictures.picture(day, digest, 0)
    with store.pool.connection() as connection:
        connection.execute(b"UPDATE shard SET state = 'bad'")
    with pytest.raises(NoPicture, match="no shard"):
        Pictures(Nights(store.pool), objects).picture(NIGHT, declared.sha256, 0)


def test_a_changed_shard_shows_nothing(store: Store, objects: Objects, tmp_path: Path) -> None:
    declared, other = night(store, objects, tmp_path, shards=2, frames=3)
    objects.put(declared.key, b"".join(objects.get(other.key)))
    with pytest.raises(CloudError) as changed:
        Pictures(Nights(store.pool), objects).picture(NIGHT, declared.sha256, 0)
    assert changed.value.code == "shard-changed"


def test_the_report_as_json_is_read_back(store: Store, objects: Objects, reports: Reports, tmp_path: Path) -> None:
    from dataclasses import asdict

    receive(store, objects, tmp_path, mixed())
    run(store, objects)
    told = json.loads(json.dumps(asdict(reports.report(NIGHT)), default=lambda value: value.isoformat()))
    assert told["day"] == NIGHT.isoformat()
    assert told["counts"]["unreadable"] == 2
    assert {one["why"] for one in told["worth"]} >= {"disagreement", "unreadable"}
