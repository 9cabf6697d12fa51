"""Page 4: an order's way through both halves, and every way out of it, with a signed repository and a real store."""

from datetime import time, timedelta
from pathlib import Path

import pytest
from repository_world import DAY_S
from update_world import House, World, proving

from agent.core.updates import Entry, Links
from agent.errors import Rejected
from agent.proving import give_up, wake
from agent.store.models import key_of
from models.bundle import MANIFEST


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def verified(world: World, revision: int = 1, release: int = 1) -> Entry:
    order = world.publish(world.toy(release))
    world.order(revision, order)
    entry = world.turns()
    assert entry.state == "verified", entry
    return entry


def committed(world: World, house: House, revision: int, release: int) -> Entry:
    verified(world, revision, release)
    vision = proving(world, house)
    vision.turn()
    assert world.entry.state == "trial", world.entry
    house.does_well()
    world.clock.advance(61)
    vision.turn()
    return world.entry


# Sync's half


def test_an_order_is_fetched_checked_and_handed_over(world: World) -> None:
    entry = verified(world)
    assert world.models.bundle(entry.bundle) is not None
    assert (entry.progress, entry.attempt) == (1.0, 1)
    assert world.models.links() == Links()
    world.turns()
    assert world.entry == entry  # from here on it is vision's


def test_the_same_revision_again_and_an_older_one_change_nothing(world: World) -> None:
    entry = verified(world, revision=5)
    older = world.publish(world.toy(7))
    world.order(5, older)
    world.order(4, older)
    assert world.turns() == entry


def test_files_that_are_here_are_not_fetched_again(world: World) -> None:
    house = House()
    first = world.toy(1)
    committed(world, house, 1, 1)
    second = world.folder / "toy-2"
    changed = (first.folder / MANIFEST).read_text().replace('"release": 1', '"release": 2')
    second.mkdir()
    (second / "model.onnx").write_bytes((first.folder / "model.onnx").read_bytes())
    (second / MANIFEST).write_text(changed)
    from models import Bundle

    order = world.publish(Bundle.load(second))
    world.owner.asked.clear()
    world.order(2, order)
    assert world.turns().state == "verified"
    assert not [path for path in world.owner.asked if path.startswith("blobs/")]


def test_a_newer_order_takes_the_place_of_one_that_waits_or_is_tried(world: World) -> None:
    first, second = world.publish(world.toy(1)), world.publish(world.toy(2))
    world.order(1, first, download_window="02:00-03:00")
    assert (world.turns().state, world.entry.code) == ("deferred", "update-window")
    world.order(2, second)
    assert (world.turns().state, world.entry.revision) == ("verified", 2)
    world.order(3, world.publish(world.toy(3)))
    world.turns()
    assert world.entry.revision == 2  # vision's to end
    proving(world, House()).turn()
    assert (world.entry.state, world.entry.code) == ("failed", "update-superseded")
    assert (world.turns().state, world.entry.revision) == ("verified", 3)


def test_the_same_model_by_a_newer_order_goes_on_where_it_is(world: World) -> None:
    order = world.publish(world.toy(1))
    world.order(1, order)
    world.turns()
    world.order(2, order, rollout="r2")
    entry = world.turns()
    assert (entry.state, entry.revision, entry.rollout) == ("verified", 2, "r2")


def test_hours_of_the_order_and_of_the_device_are_kept(tmp_path: Path) -> None:
    world = World(tmp_path, window=(time(1, 0), time(5, 0)))
    world.order(1, world.publish(world.toy(1)), download_window="04:00-06:00")
    for local, state in ((time(0, 30), "deferred"), (time(2, 0), "deferred"), (time(5, 30), "deferred")):
        world.local = local
        assert (world.turns().state, world.entry.code) == (state, "update-window")
    world.local = time(4, 30)
    assert world.turns().state == "verified"


def test_a_model_that_a_technician_holds_waits(world: World) -> None:
    world.journal.pin(hold=True)
    world.order(1, world.publish(world.toy(1)))
    assert (world.turns().state, world.entry.code) == ("deferred", "update-pinned")
    world.journal.pin(hold=False)
    assert world.turns().state == "verified"


def test_without_a_network_it_tries_again_later_and_later(world: World) -> None:
    order = world.publish(world.toy(1))
    files, world.owner.files = world.owner.files, {}
    world.order(1, order)
    assert world.turns().state == "deferred"
    tries = world.entry.attempt
    world.turns(20)
    assert world.entry.attempt == tries  # a turn costs nothing while it waits
    world.clock.advance(3600)
    world.owner.files = files
    assert world.turns().state == "verified"


def test_a_file_that_the_repository_lacks_is_not_asked_for_for_ever(world: World) -> None:
    bundle = world.toy(1)
    order = world.publish(bundle)
    del world.owner.files[f"blobs/{bundle.manifest.files[0].sha256}"]
    world.order(1, order)
    for _ in range(20):
        world.turns()
        world.clock.advance(3601)
    assert (world.entry.state, world.entry.code) == ("rejected", "update-unlisted")
    asked = [path for path in world.owner.asked if path.startswith("blobs/")]
    assert len(asked) <= 6


def test_a_model_older_than_one_that_was_kept_is_refused(world: World) -> None:
    house = House()
    assert committed(world, house, 1, 5).state == "committed"
    world.order(2, world.publish(world.toy(4)))
    assert (world.turns().state, world.entry.code) == ("rejected", "update-rollback")
    assert world.models.links().current == house.key


def test_what_runs_already_is_confirmed(world: World) -> None:
    house = House()
    order = world.publish(world.toy(1))
    committed(world, house, 1, 1)
    world.order(2, order)
    entry = world.turns()
    assert (entry.state, entry.revision, entry.text) == ("committed", 2, "it runs already")
    assert world.models.recover() is not None
    assert world.models.links().current == house.key


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ('"path": "../../evil"', "update-path"),
        ('"path": "ok"', "update-path"),
        ('"pfad": "model.onnx"', "update-bundle"),
    ],
)
def test_a_signed_bundle_that_would_do_harm_is_refused(world: World, change: str, code: str) -> None:
    bundle = world.toy(1)
    raw = (bundle.folder / MANIFEST).read_text().replace('"path": "model.onnx"', change).encode()
    world.order(1, world.publish(bundle, raw))
    assert (world.turns().state, world.entry.code) == ("rejected", code), world.entry
    assert world.models.held() == []
    assert not list(world.folder.rglob("evil"))


def test_tampered_bytes_are_refused(world: World) -> None:
    bundle = world.toy(1)
    order = world.publish(bundle)
    (file,) = bundle.manifest.files
    blob = f"blobs/{file.sha256}"
    world.owner.files[blob] = world.owner.files[blob][:-1] + b"\0"
    world.order(1, order)
    for _ in range(20):
        world.turns()
        world.clock.advance(3601)
    assert world.entry.code in ("update-digest", "update-size")
    assert world.models.held() == []


def test_an_unsigned_repository_is_refused(world: World) -> None:
    order = world.publish(world.toy(1))
    world.owner.lies["metadata/timestamp.json"] = world.owner.forged(
        world.owner.timestamp, [world.owner.keys["targets"][0]], version=99
    )
    world.order(1, order)
    assert (world.turns().state, world.entry.code) == ("rejected", "update-signature")


def test_an_order_that_is_late_is_given_up(world: World) -> None:
    order = world.publish(world.toy(1))
    world.owner.files = {}
    late = world.now().when.wall_ns / 1e9 + DAY_S
    from datetime import UTC, datetime

    world.order(1, order, deadline_at=datetime.fromtimestamp(late, UTC))
    assert world.turns().state == "deferred"
    world.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    assert (world.turns().state, world.entry.code) == ("failed", "update-deadline")


def test_a_restart_in_a_download_goes_on(world: World) -> None:
    order = world.publish(world.toy(1))
    world.order(1, order)
    world.fetching.turn()
    moved = world.entry.model_copy(update={"state": "downloading"})
    with world.journal.turn():
        world.journal.write(moved)
    world.restart_sync()
    assert world.turns().state == "verified"


# Vision's half


def test_a_good_model_is_kept_after_its_trial(world: World) -> None:
    house = House()
    entry = committed(world, house, 1, 1)
    assert (entry.state, entry.code, entry.open) == ("committed", None, False)
    assert house.takes == [entry.bundle]
    assert world.models.links() == Links(current=entry.bundle)
    assert world.journal.floor("toy") == 1
    assert entry.numbers["frames"] == 100


@pytest.mark.parametrize("gate", ["incompatible", "compile", "golden", "slow", "crashed"])
def test_a_model_that_fails_a_gate_never_answers(world: World, gate: str) -> None:
    house = House()
    house.fails = gate
    entry = verified(world)
    proving(world, house).turn()
    assert (world.entry.state, world.entry.code) == ("rejected", f"update-{gate}")
    assert house.takes == []
    assert world.models.links() == Links()
    assert list(world.models.folder.glob(f"failed-1-{entry.bundle}"))


def test_a_model_that_disagrees_never_answers_and_says_where(world: World) -> None:
    house = House()
    house.differs = True
    verified(world)
    proving(world, house).turn()
    assert (world.entry.state, world.entry.code) == ("rejected", "update-disagrees")
    (worst,) = world.entry.disagreements
    assert (worst.label, worst.frames, worst.differ) == ("Banana", worst.frames, worst.frames)
    assert house.takes == []


def test_worse_in_its_trial_is_back_at_once(world: World) -> None:
    house = House()
    before = committed(world, house, 1, 1)
    verified(world, 2, 2)
    vision = proving(world, house)
    vision.turn()
    for _ in range(60):
        house.trial.add("Banana", 900.0)
    house.trial.captured = 60
    house.before.answered, house.before.captured = 1000, 1000
    house.before.took[32] = 1000
    vision.turn()
    assert (world.entry.state, world.entry.code) == ("rolled-back", "update-unhealthy"), world.entry
    assert world.entry.numbers["p95_ms"] > world.entry.numbers["limit_p95_ms"]
    assert house.takes[-1] == house.key == before.bundle
    assert world.models.links().current == before.bundle
    assert (world.models.folder / f"failed-2-{world.entry.bundle}" / "said.txt").exists()
    assert world.journal.floor("toy") == 1


def test_a_trial_without_frames_ends_by_the_way_back(world: World) -> None:
    house = House()
    verified(world)
    vision = proving(world, house)
    vision.turn()
    world.clock.advance(300)
    vision.turn()
    assert world.entry.state == "trial"
    world.clock.advance(400)
    vision.turn()
    assert (world.entry.state, world.entry.code) == ("rolled-back", "update-no-frames")
    assert house.key is None


def test_a_device_that_was_connected_must_be_so_again_and_one_that_was_not_need_not(world: World) -> None:
    house = House()
    house.online = True
    verified(world)
    vision = proving(world, house)
    vision.turn()
    house.online = False
    house.does_well()
    world.clock.advance(100)
    vision.turn()
    assert world.entry.state == "trial"  # the line may come back
    world.clock.advance(600)
    vision.turn()
    assert (world.entry.state, world.entry.code) == ("rolled-back", "update-unhealthy")
    house.online = None
    assert committed(world, house, 2, 2).state == "committed"


def test_a_trial_is_finished_before_a_newer_order_begins(world: World) -> None:
    house = House()
    verified(world)
    vision = proving(world, house)
    vision.turn()
    world.order(2, world.publish(world.toy(2)))
    world.turns()
    vision.turn()
    assert (world.entry.state, world.entry.revision) == ("trial", 1)
    house.does_well()
    world.clock.advance(61)
    vision.turn()
    assert world.entry.state == "committed"
    assert (world.turns().revision, world.entry.state) == (2, "verified")


def test_hours_for_the_swap_are_kept(world: World) -> None:
    order = world.publish(world.toy(1))
    world.order(1, order, apply_window="03:00-04:00")
    world.turns()
    vision = proving(world, House())
    vision.turn()
    assert world.entry.state == "verified"
    world.local = time(3, 30)
    vision.turn()
    assert world.entry.state == "trial"


def test_two_crashes_in_a_trial_and_the_model_before_answers(world: World) -> None:
    house = House()
    before = committed(world, house, 1, 1)
    verified(world, 2, 2)
    proving(world, house).turn()
    assert world.entry.open
    wake(world.models, world.now().when)
    assert (world.entry.state, world.entry.crashes) == ("trial", 1)
    wake(world.models, world.now().when)
    assert (world.entry.state, world.entry.code) == ("rolled-back", "update-crashed")
    assert world.models.links().current == before.bundle


def test_a_goodbye_is_no_crash(world: World) -> None:
    verified(world)
    vision = proving(world, House())
    vision.turn()
    for _ in range(5):
        vision.close()
        wake(world.models, world.now().when)
    assert (world.entry.state, world.entry.crashes) == ("trial", 0)


@pytest.mark.parametrize("state", ["compiled", "golden", "shadow"])
def test_what_was_tried_in_a_child_is_tried_again_from_its_first_gate(world: World, state: str) -> None:
    entry = verified(world)
    with world.journal.turn():
        world.journal.write(entry.model_copy(update={"state": state}))
    wake(world.models, world.now().when)
    assert world.entry.state == "verified"


def test_a_model_over_which_vision_dies_twice_while_it_is_tried_is_given_up(world: World) -> None:
    entry = verified(world)
    for state, crashes in (("compiled", 1), ("golden", 2)):
        with world.journal.turn():
            world.journal.write(world.entry.model_copy(update={"state": state, "open": True}))
        wake(world.models, world.now().when)
        assert world.entry.crashes == crashes
    assert (world.entry.state, world.entry.code) == ("rejected", "update-crashed")
    assert world.models.links() == entry.former


def test_a_model_that_cannot_be_opened_at_the_start_gives_way(world: World) -> None:
    house = House()
    before = committed(world, house, 1, 1)
    committed(world, house, 2, 2)
    assert give_up(world.models, world.now().when, Rejected("model-load", "it cannot be opened"))
    assert (world.entry.state, world.entry.code) == ("rolled-back", "update-compile")
    assert world.models.links().current == before.bundle
    assert not give_up(world.models, world.now().when, Rejected("model-load", "nor can this"))


def test_a_model_that_cannot_be_opened_in_vision_is_not_let_in(world: World) -> None:
    house = House()
    house.opens = False
    verified(world)
    proving(world, house).turn()
    assert world.entry.state in ("rejected", "failed")
    assert house.takes == []


def test_vision_follows_a_link_that_was_set_by_hand(world: World) -> None:
    house = House()
    first = committed(world, house, 1, 1)
    second = committed(world, house, 2, 2)
    assert world.models.links() == Links(current=second.bundle, previous=first.bundle)
    with world.journal.turn():
        back = world.entry.end("update-withdrawn", "by hand", world.now().when)
        world.journal.write(back)
        world.models.point(world.models.wanted(back))
    proving(world, house).turn()
    assert house.key == first.bundle
    assert key_of(world.models.recover().ref.digest) == first.bundle  # type: ignore[union-attr]
