"""A night is scored: every frame answered once, whatever dies on the way."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from batch_nights import NIGHT, Silent, count, dying, file_of, night, receive, verdicts
from shard_files import PRODUCTS, RUN, row, rows, shelf

from cloud.batch import scores
from cloud.batch.engines import Local
from cloud.batch.rows import Nights
from cloud.batch.run import Batch, Chosen, Outcome, output_of
from cloud.batch.score import Failed
from cloud.errors import Retryable
from cloud.objects import Objects
from cloud.store import Store
from models.bundle import Bundle, resolve


@pytest.fixture
def batch(store: Store, objects: Objects) -> Batch:
    return Batch(Nights(store.pool, store.dsn), objects, Chosen.of("produce"), Local(2))


def ran(outcome: Outcome) -> tuple[int, int, int, int, int]:
    return (outcome.shards, outcome.skipped, outcome.rows, outcome.answered, outcome.new_verdicts)


def test_a_night_is_answered_once(batch: Batch, store: Store, objects: Objects, tmp_path: Path) -> None:
    declared = night(store, objects, tmp_path, shards=3, frames=40)
    watching = Silent()
    outcome = batch.run(NIGHT, watching)
    assert ran(outcome) == (3, 0, 120, 120, 120)
    assert (outcome.failed, watching.rows) == ([], 0)
    assert outcome.agreed >= 0.9 * outcome.compared > 0
    kept = verdicts(store)
    assert [seq for seq, *_ in kept] == list(range(1, 121))
    assert {(mode, name) for _, _, _, mode, name, _, _ in kept} == {("batch", "produce")}
    right = sum(label == PRODUCTS[seq % len(PRODUCTS)] for seq, label, *_ in kept)
    assert right > 100
    assert all(agrees == (label == PRODUCTS[seq % len(PRODUCTS)]) for seq, label, agrees, *_ in kept)
    assert all(size == len(shelf(PRODUCTS[seq % len(PRODUCTS)])) for seq, *_, size in kept)
    assert (count(store, "outbound"), count(store, "shard_score")) == (120, 3)
    again = batch.run(NIGHT, Silent())
    assert ran(again) == (3, 3, 0, 0, 0)
    assert count(store, "outbound") == 120
    assert len(list(objects.list(f"scores/day={NIGHT}/"))) == len(declared)


def test_the_answers_are_read_by_stock_readers(batch: Batch, store: Store, objects: Objects, tmp_path: Path) -> None:
    (declared,) = night(store, objects, tmp_path, shards=1, frames=150)
    batch.run(NIGHT, Silent())
    path = file_of(objects, output_of(declared.key, NIGHT, batch.chosen.model.digest), tmp_path)
    frame = pd.read_parquet(path)
    assert list(frame["seq"]) == list(range(1, 151))
    assert frame["frame_id"][0] == f"shop-1/{RUN}/1"
    assert set(frame["model_digest"]) == {batch.chosen.model.digest}
    assert json.loads(frame["labels"][0])[0]["label"] == frame["label"][0]
    by_hand = duckdb.sql(f"SELECT count(*) FILTER (agrees), count(agrees) FROM '{path}'").fetchall()
    assert by_hand == [(int(frame["agrees"].sum()), 150)]


def test_a_frame_that_cannot_be_read_is_counted_and_kept_as_a_row(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    given = rows(5)
    given[1] = row(2, picture=shelf("Lemon")[:2000])
    given[2] = row(3, picture=b"\xff\xd8\xff no picture", label=None, score=None, labels=None)
    given[3] = row(4, label=None, score=None, labels=None)
    declared = receive(store, objects, tmp_path, given)
    outcome = batch.run(NIGHT, Silent())
    assert (outcome.rows, outcome.answered, outcome.unreadable, outcome.compared) == (5, 3, 2, 2)
    content = b"".join(objects.get(output_of(declared.key, NIGHT, batch.chosen.model.digest)))
    _, lines = scores.read(content)
    errors = {one.seq: one.error for one in lines}
    assert errors[2] is not None
    assert errors[2].startswith("picture-truncated")
    assert errors[3] is not None
    assert [seq for seq, *_ in verdicts(store)] == [1, 4, 5]
    assert {seq: agrees for seq, _, agrees, *_ in verdicts(store)}[4] is None


def test_an_empty_day(batch: Batch) -> None:
    assert ran(batch.run(NIGHT, Silent())) == (0, 0, 0, 0, 0)


def test_a_damaged_and_a_missing_shard_fail_alone(batch: Batch, store: Store, objects: Objects, tmp_path: Path) -> None:
    changed, missing, fewer, _ = night(store, objects, tmp_path, shards=4, frames=10)
    objects.put(changed.key, b"PAR1" + bytes(1000))
    objects.delete(missing.key)
    with store.pool.connection() as connection:
        connection.execute(b"UPDATE shard SET rows = 11 WHERE name = %s", (fewer.key,))
    outcome = batch.run(NIGHT, Silent())
    assert {failed.shard: failed.code for failed in outcome.failed} == {
        changed.key: "shard-changed", missing.key: "shard-missing", fewer.key: "shard-rows",
    }  # fmt: skip
    assert all(failed.hint for failed in outcome.failed)
    assert [seq for seq, *_ in verdicts(store)] == list(range(31, 41))


def test_two_runs_of_one_day_at_once_are_refused(batch: Batch) -> None:
    with batch.nights.alone(NIGHT):
        with pytest.raises(Retryable) as refused:
            batch.run(NIGHT, Silent())
        assert refused.value.code == "batch-running"
        other_day = NIGHT.replace(day=2)
        assert batch.run(other_day, Silent()).shards == 0
    assert batch.run(NIGHT, Silent()).failed == []


def test_scored_again_on_demand_and_nothing_is_kept_twice(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    night(store, objects, tmp_path, shards=2, frames=10)
    batch.run(NIGHT, Silent())
    before = verdicts(store)
    again = replace(batch, again=True).run(NIGHT, Silent())
    assert ran(again) == (2, 0, 20, 20, 0)
    assert verdicts(store) == before
    assert count(store, "shard_score") == 2


def test_another_model_answers_the_same_night_beside_the_first(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    night(store, objects, tmp_path, shards=1, frames=10)
    batch.run(NIGHT, Silent())
    newer = replace(batch, chosen=Chosen.of(str(newer_bundle(tmp_path / "newer"))))
    assert ran(newer.run(NIGHT, Silent())) == (1, 0, 10, 10, 10)
    assert count(store, "verdict") == 20
    assert len(batch.nights.scored([NIGHT])) == 2


def newer_bundle(folder: Path) -> Path:
    """The shipped bundle under a newer release number."""
    import shutil

    shutil.copytree(resolve("produce"), folder)
    manifest = folder / "bundle.json"
    told = json.loads(manifest.read_text())
    told["release"] += 1
    manifest.write_text(json.dumps(told))
    Bundle.load(folder)
    return folder


# -- workers that die --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_costs_a_try_and_no_frame(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    night(store, objects, tmp_path, shards=3, frames=20)
    engine = Local(2, dying(tmp_path / "marks", times=2))
    outcome = replace(batch, engine=engine).run(NIGHT, Silent())
    assert (ran(outcome), outcome.failed) == ((3, 0, 60, 60, 60), [])
    assert [seq for seq, *_ in verdicts(store)] == list(range(1, 61))


def test_a_shard_that_kills_every_worker_fails_alone(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    first, *_ = night(store, objects, tmp_path, shards=3, frames=20)
    engine = Local(2, dying(tmp_path / "marks", times=99))
    outcome = replace(batch, engine=engine).run(NIGHT, Silent())
    assert [(failed.shard, failed.code) for failed in outcome.failed] == [(first.key, "shard-crashed")]
    assert count(store, "verdict") == 40
    healed = batch.run(NIGHT, Silent())
    assert ran(healed) == (3, 2, 20, 20, 20)


def test_a_half_written_file_of_answers_is_made_anew(
    batch: Batch, store: Store, objects: Objects, tmp_path: Path
) -> None:
    (declared,) = night(store, objects, tmp_path, shards=1, frames=10)
    objects.put(output_of(declared.key, NIGHT, batch.chosen.model.digest), b"PAR1 half")
    assert ran(batch.run(NIGHT, Silent())) == (1, 0, 10, 10, 10)


def test_the_bundle_must_be_the_same_everywhere(batch: Batch, store: Store, objects: Objects, tmp_path: Path) -> None:
    night(store, objects, tmp_path, shards=1, frames=5)
    other = replace(batch.chosen, model=replace(batch.chosen.model, digest="f" * 64))
    outcome = replace(batch, chosen=other).run(NIGHT, Silent())
    assert [failed.code for failed in outcome.failed] == ["bundle-differs"]
    assert isinstance(outcome.failed[0], Failed)
