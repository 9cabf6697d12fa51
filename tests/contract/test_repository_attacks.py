"""The attacks of the TUF specification (section 1.5.2) and a few more, against the device's client.

Each ends in a code of its own, and with the metadata that was trusted before.
"""

import copy
import itertools
import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from repository_world import DAY_S, TODAY, Device, Owner, meta, sha256
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from agent.core import floor
from agent.errors import Rejected, Retryable, ShelfwireError
from agent.link.trust import LIMITS
from wire.orders import ModelOrder

BLOB = b"weights" * 100


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def device(tmp_path: Path, owner: Owner) -> Device:
    device = Device(tmp_path / "device", owner)
    device.refresh()
    return device


def refused(device: Device, code: str, kind: type[ShelfwireError] = Rejected) -> ShelfwireError:
    """A refresh must fail with this code, name a cure, and change nothing that was trusted."""
    before = {**device.versions(), "root": 0}
    with pytest.raises(kind) as caught:
        device.refresh()
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    assert {**device.versions(), "root": 0} == before
    return caught.value


# Arbitrary software


def test_a_bundle_that_was_signed_is_fetched_and_nothing_twice(owner: Owner, device: Device) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})
    owner.publish()
    device.refresh()
    assert sha256(device.repository.manifest(order)) == order.digest
    into = device.folder / "blob"
    device.repository.fetch(sha256(BLOB), len(BLOB), into)
    assert into.read_bytes() == BLOB
    owner.asked.clear()
    device.repository.manifest(order)
    device.repository.fetch(sha256(BLOB), len(BLOB), into)
    assert owner.asked == []


@pytest.mark.parametrize("evil", [b"w" * len(BLOB), b"", BLOB[:-1], BLOB + b"x", b"x" * 10_000_000])
def test_another_file_in_its_place_is_not_taken(owner: Owner, device: Device, evil: bytes) -> None:
    owner.lies[f"blobs/{sha256(BLOB)}"] = evil
    into = device.folder / "blob"
    for _ in range(2):
        with pytest.raises(ShelfwireError) as caught:
            device.repository.fetch(sha256(BLOB), len(BLOB), into)
        assert (
            caught.value.code
            == {-1: "update-net", 0: "update-digest", 1: "update-size"}[
                (len(evil) > len(BLOB)) - (len(evil) < len(BLOB))
            ]
        )
        assert not into.exists()
    owner.lies[f"blobs/{sha256(BLOB)}"] = BLOB
    for _ in range(2):  # of what was kept of the evil file, the first may be spent on finding it out
        try:
            device.repository.fetch(sha256(BLOB), len(BLOB), into)
        except Retryable as again:
            assert again.code == "update-digest"
    assert into.read_bytes() == BLOB


def test_a_manifest_in_place_of_another_is_not_taken(owner: Owner, device: Device) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})
    owner.publish()
    device.refresh()
    path = next(path for path in owner.files if path.startswith("targets/"))
    owner.lies[path] = owner.files[path].replace(b"model.onnx", b"evil!.onnx")
    with pytest.raises(Rejected) as caught:
        device.repository.manifest(order)
    assert caught.value.code == "update-digest"


def test_what_was_never_signed_is_not_known(owner: Owner, device: Device) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})  # on the mirror, but not published
    with pytest.raises(Rejected) as caught:
        device.repository.manifest(order)
    assert caught.value.code == "update-unlisted"


def test_an_order_for_another_bundle_than_was_published_is_refused(owner: Owner, device: Device) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})
    owner.publish()
    device.refresh()
    for other in ({"digest": "0" * 64}, {"version": "9.9"}):
        with pytest.raises(Rejected) as caught:
            device.repository.manifest(order.model_copy(update=other))
        assert caught.value.code == "update-differs"


def test_a_bundle_that_was_withdrawn_is_refused(owner: Owner, device: Device) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})
    owner.publish()
    device.refresh()
    device.repository.manifest(order)
    owner.targets.signed.targets.clear()
    owner.publish()
    device.refresh()
    with pytest.raises(Rejected) as caught:
        device.repository.manifest(order)
    assert caught.value.code == "update-unlisted"


# Rollback


def test_an_old_timestamp_is_refused(owner: Owner, device: Device) -> None:
    old = owner.files["metadata/timestamp.json"]
    owner.publish()
    device.refresh()
    owner.lies["metadata/timestamp.json"] = old
    refused(device, "update-rollback")


def test_a_whole_old_repository_is_refused(owner: Owner, device: Device) -> None:
    old = owner.kept()
    owner.add("produce", 2, {"model.onnx": BLOB})
    owner.publish()
    device.refresh()
    owner.files = old
    refused(device, "update-rollback")


def test_an_old_snapshot_is_refused_although_the_timestamp_is_new(owner: Owner, device: Device) -> None:
    """Somebody holds the timestamp key, which is online."""
    owner.publish()
    device.refresh()
    owner.timestamp.signed.snapshot_meta = meta(1, owner.files["metadata/1.snapshot.json"])
    owner.publish_timestamp()
    refused(device, "update-rollback")


def test_old_targets_are_refused_although_the_snapshot_is_new(owner: Owner, device: Device) -> None:
    """Somebody holds both online keys."""
    owner.publish()
    device.refresh()
    owner.snapshot.signed.meta["targets.json"] = meta(1, owner.files["metadata/1.targets.json"])
    owner.publish_snapshot()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-rollback"
    assert device.versions()["targets"] == 2


def test_targets_that_vanish_from_the_snapshot_are_refused(owner: Owner, device: Device) -> None:
    role = owner.delegate("acme", ["models/acme-*/*/*"])
    owner.publish_delegated("acme", role)
    owner.publish()
    device.refresh()
    del owner.snapshot.signed.meta["acme.json"]
    owner.publish()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-rollback"


# Indefinite freeze, and the clock


def test_metadata_that_is_held_back_runs_out(owner: Owner, device: Device) -> None:
    device.clock.advance(6.9 * DAY_S)
    device.refresh()
    device.clock.advance(0.2 * DAY_S)
    assert "shelfwire-cloud fleet refresh" in refused(device, "update-expired").hint


@pytest.mark.parametrize(
    "lives",
    [{"timestamp_days": -1}, {"snapshot_days": -1}, {"targets_days": -1}],
    ids=["timestamp", "snapshot", "targets"],
)
def test_new_metadata_that_has_run_out_is_refused(owner: Owner, device: Device, lives: dict[str, float]) -> None:
    owner.publish(**lives)
    role = next(iter(lives)).removesuffix("_days")
    before = device.versions()[role]
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-expired"
    assert device.versions()[role] == before


def test_a_root_that_has_run_out_is_kept_but_ends_there(owner: Owner, device: Device) -> None:
    owner.publish_root(days=-1)
    owner.publish()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-expired"
    assert device.versions() == {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}


def test_a_clock_in_the_past_does_not_make_old_metadata_good(tmp_path: Path, owner: Owner) -> None:
    """At 1970 nothing would ever have run out."""
    owner.now = floor.BUILT - timedelta(days=30)
    owner.publish()
    device = Device(tmp_path / "new", owner)
    device.clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-expired"


def test_a_clock_behind_accepted_metadata_is_not_believed_and_told_of(
    owner: Owner, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    owner.now = TODAY + timedelta(days=100)
    owner.publish()
    device.clock.set(owner.now)
    device.refresh()
    device.clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    device.refresh()
    assert device.trust.accepted is not None
    assert device.trust.accepted.clock_behind_s > 50 * 365 * DAY_S
    assert "clock" in caplog.text
    owner.now = TODAY + timedelta(days=50)
    owner.publish()  # signed, but it ran out before what is known to have passed
    refused(device, "update-expired")


def test_a_clock_far_ahead_is_named_as_the_cause(owner: Owner, device: Device) -> None:
    device.clock.advance(400 * DAY_S)
    owner.told_at = TODAY
    assert "clock" in str(refused(device, "update-clock"))
    owner.told_at = None
    device.clock.synced = False  # from a stick, on a device that no time server reaches
    refused(device, "update-clock")
    device.clock.synced = True
    refused(device, "update-expired")


def test_a_mirror_that_lies_about_the_time_changes_nothing(owner: Owner, device: Device) -> None:
    device.clock.advance(400 * DAY_S)
    owner.told_at = TODAY + timedelta(days=400)
    refused(device, "update-expired")
    owner.told_at = TODAY
    refused(device, "update-clock")  # another word, and still refused


def test_a_stolen_key_cannot_put_the_clock_forward_for_ever(owner: Owner, device: Device) -> None:
    owner.publish_timestamp(days=365 * 50, signed_at=TODAY + timedelta(days=365 * 40))
    device.refresh()
    owner.publish()
    refused(device, "update-expired")  # it judges by 40 years from now
    owner.rotate("timestamp")
    owner.publish_root()
    owner.publish()
    device.refresh()
    assert device.trust.accepted is not None
    assert device.trust.accepted.clock_behind_s == 0


def test_a_timestamp_dated_after_its_own_end_moves_no_clock(owner: Owner, device: Device) -> None:
    owner.publish_timestamp(days=7, signed_at=TODAY + timedelta(days=365 * 40))
    device.refresh()
    owner.publish()
    device.refresh()


# Endless data, and bombs


@pytest.mark.parametrize("role", ["2.root", "timestamp", "2.snapshot", "2.targets"])
def test_metadata_without_end_is_cut_off(owner: Owner, device: Device, role: str) -> None:
    owner.publish()
    taken = itertools.count()
    owner.lies[f"metadata/{role}.json"] = (b"x" * 65536 for _ in taken)
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-size"
    assert next(taken) * 65536 <= LIMITS.targets_max_length + 3 * 65536


BOMBS = {
    "empty": b"",
    "zeros": b"\0" * 1000,
    "not text": b"\xff\xfe{}",
    "a login page": b"<html><body>Please sign in</body></html>",
    "a number": b"1e400",
    "a list": b"[]",
    "null": b"null",
    "too deep": b"[" * 7000 + b"]" * 7000,
    "deep in a field": b'{"signatures":[],"signed":{"_type":"timestamp","x":' + b"[" * 900 + b"]" * 900 + b"}}",
    "no signed": b'{"signatures":[]}',
    "no signatures": b'{"signed":{"_type":"timestamp"}}',
    "another role": b'{"signatures":[],"signed":{"_type":"root","version":1}}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_what_is_no_metadata_is_refused_and_tried_again(owner: Owner, device: Device, bomb: bytes) -> None:
    owner.lies["metadata/timestamp.json"] = bomb
    refused(device, "update-metadata", Retryable)


def test_a_signed_part_that_nests_without_end_is_refused(owner: Owner, device: Device) -> None:
    document = json.loads(owner.files["metadata/timestamp.json"])
    deep = json.dumps(document).replace('"version": 1', '"version": 9, "x": ' + "[" * 950 + "]" * 950, 1)
    owner.lies["metadata/timestamp.json"] = deep.encode()
    with pytest.raises(ShelfwireError) as caught:
        device.refresh()
    assert caught.value.code in ("update-metadata", "update-signature")


@pytest.mark.parametrize("role", ["2.root", "timestamp", "2.snapshot", "2.targets"])
def test_no_change_of_any_byte_is_taken(owner: Owner, device: Device, role: str) -> None:
    """Bits flipped, bytes dropped and doubled: refused, or read as exactly what was signed."""
    owner.publish_root()
    owner.publish()
    path, dice = f"metadata/{role}.json", random.Random(role)
    good = owner.files[path]
    meant = json.loads(good)["signed"]
    for _ in range(12):
        at = dice.randrange(len(good))
        change = dice.choice([bytes([good[at] ^ 1 << dice.randrange(8)]), b"", good[at : at + 1] * 2, b"[", b"\0"])
        owner.lies[path] = good[:at] + change + good[at + 1 :]
        fresh = Device(device.folder / f"try-{_}", owner)
        try:
            fresh.refresh()
        except ShelfwireError as error:
            assert error.code.startswith("update-")
        name = f"{role.partition('.')[2] or role}.json"
        if (kept := fresh.folder / "trust" / name).exists():
            taken = json.loads(kept.read_bytes())["signed"]
            assert taken == meant or taken["version"] == 1  # of the root: the one that it was given


# Mix and match, lengths and hashes


def test_targets_of_another_snapshot_are_refused(owner: Owner, device: Device) -> None:
    owner.publish()
    owner.lies["metadata/2.targets.json"] = owner.files["metadata/1.targets.json"]
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code in ("update-digest", "update-rollback")
    assert device.versions()["targets"] == 1


def test_a_snapshot_of_another_timestamp_is_refused(owner: Owner, device: Device) -> None:
    owner.publish()
    owner.publish()
    owner.lies["metadata/3.snapshot.json"] = owner.files["metadata/2.snapshot.json"]
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-digest"
    assert device.versions()["snapshot"] == 1


@pytest.mark.parametrize("wrong", [{"length": 10}, {"hashes": {"sha256": "0" * 64}}, {"version": 7}])
def test_metadata_that_is_not_what_was_promised_is_refused(owner: Owner, device: Device, wrong: dict) -> None:
    owner.publish()
    for name, value in wrong.items():
        setattr(owner.timestamp.signed.snapshot_meta, name, value)
    owner.publish_timestamp()
    with pytest.raises(ShelfwireError) as caught:
        device.refresh()
    assert caught.value.code in ("update-size", "update-digest", "update-missing")
    assert device.versions()["snapshot"] == 1


@pytest.mark.parametrize("content", [b"", BLOB])
def test_a_target_whose_length_or_hash_is_wrong_in_the_metadata_is_refused(
    owner: Owner, device: Device, content: bytes
) -> None:
    order = owner.add("produce", 2, {"model.onnx": BLOB})
    target = owner.targets.signed.targets["models/produce/2/bundle.json"]
    target.length += 1 if content else -1
    owner.publish()
    device.refresh()
    with pytest.raises(ShelfwireError) as caught:
        device.repository.manifest(order)
    assert caught.value.code in ("update-size", "update-net")


# Keys


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_the_wrong_key_signs_nothing(owner: Owner, device: Device, role: str) -> None:
    thief = [CryptoSigner.generate_ed25519() for _ in owner.keys[role]]
    honest, owner.keys[role] = owner.keys[role], thief
    if role == "root":
        owner.publish_root()
    else:
        owner.publish()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-signature"
    assert device.versions()[role] == 1
    owner.keys[role] = honest


def test_one_root_key_of_three_is_not_enough(owner: Owner, device: Device) -> None:
    owner.keys["root"] = owner.keys["root"][:1]
    owner.publish_root()
    refused(device, "update-signature")


def test_the_same_signature_twice_counts_once(owner: Owner, device: Device) -> None:
    one = owner.keys["root"][0]
    owner.keys["root"] = [one]
    owner.publish_root()
    document = json.loads(owner.files["metadata/2.root.json"])
    document["signatures"] *= 2
    owner.files["metadata/2.root.json"] = json.dumps(document).encode()
    with pytest.raises(ShelfwireError) as caught:
        device.refresh()
    assert caught.value.code in ("update-signature", "update-metadata")


def test_a_new_root_needs_the_old_ones_word(owner: Owner, device: Device) -> None:
    """All keys exchanged, signed by the new ones alone."""
    old = owner.rotate("root")
    owner.publish_root()
    refused(device, "update-signature")
    owner.root.signed.version -= 1
    owner.publish_root(*old)
    device.refresh()
    assert device.versions()["root"] == 2


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_an_exchanged_key_is_followed_and_the_old_one_counts_no_more(owner: Owner, device: Device, role: str) -> None:
    old = owner.rotate(role)
    owner.publish_root()
    owner.publish()
    device.refresh()
    assert device.versions()["root"] == 2
    owner.keys[role] = old
    owner.publish()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert caught.value.code == "update-signature"


def test_after_a_fast_forward_new_online_keys_bring_devices_back(owner: Owner, device: Device) -> None:
    """Somebody who holds the online keys counts up to the end, so that no version of the owner's is newer."""
    honest = copy.deepcopy((owner.timestamp, owner.snapshot))
    owner.snapshot.signed.version = owner.timestamp.signed.version = 2**31
    owner.publish()
    device.refresh()
    assert device.versions()["timestamp"] == 2**31
    owner.timestamp, owner.snapshot = honest
    owner.publish()
    refused(device, "update-rollback")
    owner.rotate("timestamp")
    owner.rotate("snapshot")
    owner.publish_root()
    owner.publish()
    device.refresh()
    assert device.versions()["timestamp"] < 10


# The chain of roots


def test_two_years_in_a_drawer_and_it_follows_expired_roots(tmp_path: Path, owner: Owner) -> None:
    device = Device(tmp_path / "drawer", owner)
    for _ in range(8):
        owner.now += timedelta(days=92)
        old = owner.rotate("root")
        owner.publish_root(*old, days=30)
        owner.rotate("timestamp")
    owner.publish_root(*owner.keys["root"], days=300)
    owner.publish()
    device.clock.set(owner.now)
    device.refresh()
    assert device.versions()["root"] == 10


def test_a_gap_in_the_chain_of_roots_ends_it_there(owner: Owner, device: Device) -> None:
    owner.publish_root()
    owner.publish_root()
    owner.publish()
    del owner.files["metadata/2.root.json"]
    device.refresh()
    assert device.versions()["root"] == 1
    owner.lies["metadata/2.root.json"] = owner.files["metadata/3.root.json"]
    refused(device, "update-rollback")


def test_so_many_roots_at_once_and_the_rest_next_time(
    owner: Owner, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS, "max_root_rotations", 6)
    for _ in range(LIMITS.max_root_rotations + 5):
        owner.publish_root()
    owner.publish()
    owner.asked.clear()
    device.refresh()
    assert device.versions()["root"] == 1 + LIMITS.max_root_rotations
    assert sum("root" in path for path in owner.asked) == LIMITS.max_root_rotations
    device.refresh()
    assert device.versions()["root"] == 1 + LIMITS.max_root_rotations + 5


# Delegations and paths


def test_a_delegate_speaks_for_its_paths_and_for_no_others(owner: Owner, device: Device) -> None:
    role = owner.delegate("acme", ["models/acme-*/*/*"])
    raw = b'{"evil": true}'
    for path in ("models/acme-1/1/bundle.json", "models/produce/9/bundle.json"):
        owner.target(role, path, raw).unrecognized_fields["custom"] = {"version": "1"}
    owner.publish_delegated("acme", role)
    owner.publish()
    device.refresh()
    own = ModelOrder(name="acme-1", version="1", release=1, digest=sha256(raw))
    assert device.repository.manifest(own) == raw
    with pytest.raises(Rejected) as caught:
        device.repository.manifest(ModelOrder(name="produce", version="1", release=9, digest=sha256(raw)))
    assert caught.value.code == "update-unlisted"


def test_another_key_than_the_delegates_signs_nothing(owner: Owner, device: Device) -> None:
    role = owner.delegate("acme", ["models/acme-*/*/*"])
    owner.publish_delegated("acme", role, by=[CryptoSigner.generate_ed25519()])
    owner.publish()
    device.refresh()
    with pytest.raises(Rejected) as caught:
        device.repository.manifest(ModelOrder(name="acme-1", version="1", release=1, digest="0" * 64))
    assert caught.value.code == "update-signature"


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "..", "a/b", "a\0b", "%2e%2e", "x" * 5000])
def test_the_name_of_a_role_reaches_no_other_folder(owner: Owner, device: Device, name: str) -> None:
    role = owner.delegate(name, ["*/*/*/*"])
    owner.publish_delegated(name, role)
    owner.publish()
    device.refresh()
    outside = {p for p in device.folder.parent.rglob("*") if "trust" not in p.parts}
    with pytest.raises(ShelfwireError):
        device.repository.manifest(ModelOrder(name="acme-1", version="1", release=1, digest="0" * 64))
    assert {p for p in device.folder.parent.rglob("*") if "trust" not in p.parts} == outside
    assert all(p.parent.name in ("trust", "root_history") for p in (device.folder / "trust").rglob("*") if p.is_file())


def test_a_climbing_target_is_never_asked_for(owner: Owner, device: Device) -> None:
    """A thief of the targets key lists such paths; they are not among those that an order can mean."""
    raw = b"evil"
    for path in ("../../../etc/cron.d/x", "/etc/passwd", "models/../../x/1/bundle.json", "a\0b", "m/" * 3000):
        owner.target(owner.targets.signed, path, raw)
    owner.publish()
    device.refresh()
    for name in ("produce", "..x", "passwd"):
        with pytest.raises((Rejected, ValueError)):
            device.repository.manifest(ModelOrder(name=name, version="1", release=1, digest=sha256(raw)))
    assert not [path for path in owner.asked if path.startswith("targets/")]


def test_a_digest_that_is_a_path_is_never_asked_for(owner: Owner, device: Device) -> None:
    owner.asked.clear()
    for digest in ("../../etc/passwd", "", "A" * 64, "0" * 63 + "\n", "0" * 64 + "/x"):
        with pytest.raises(Rejected):
            device.repository.fetch(digest, 10, device.folder / "blob")
    for size_bytes in (0, -1, 1 << 40):
        with pytest.raises(Rejected):
            device.repository.fetch("0" * 64, size_bytes, device.folder / "blob")
    assert owner.asked == []


# What is on the disk


def test_a_device_without_a_root_says_what_it_needs(tmp_path: Path, owner: Owner) -> None:
    device = Device(tmp_path / "bare", owner)
    (device.folder / "root.json").unlink()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert (caught.value.code, "root_file" in caught.value.hint) == ("update-root", True)


def test_the_trusted_root_outlives_the_file_that_it_came_in(owner: Owner, device: Device) -> None:
    (device.folder / "root.json").unlink()
    owner.publish_root()
    owner.publish()
    device.refresh()
    assert device.versions()["root"] == 2


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"{}"])
def test_a_damaged_folder_mends_itself(owner: Owner, device: Device, damage: bytes) -> None:
    owner.publish_root()
    owner.publish()
    device.refresh()
    good = device.versions()
    for path in (device.folder / "trust").rglob("*.json"):
        if path.name != "1.root.json" and not path.is_symlink():
            path.write_bytes(damage)
    (device.folder / "trust" / "floor").write_bytes(damage)
    device.refresh()
    assert device.versions() == good


def test_what_is_trusted_is_safe_on_the_disk(owner: Owner, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also fails when python-tuf renames what `_Updater` replaces."""
    import os

    flushed: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        "os.fsync", lambda number: (flushed.append(str(Path(f"/proc/self/fd/{number}").readlink())), fsync(number))
    )
    owner.publish_root()
    owner.publish()
    device.refresh()
    names = {re.sub(r"^\.(.*)\.\d+\.half$", r"\1", Path(name).name) for name in flushed}
    assert {"2.root.json", "timestamp.json", "snapshot.json", "targets.json", "trust", "root_history"} <= names


def test_a_check_that_finds_nothing_new_asks_twice(owner: Owner, device: Device) -> None:
    owner.asked.clear()
    device.refresh()
    assert owner.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_the_root_that_a_device_was_given_must_be_whole(tmp_path: Path, owner: Owner) -> None:
    device = Device(tmp_path / "fresh", owner)
    forged = owner.forged(owner.root, [CryptoSigner.generate_ed25519()])
    (device.folder / "root.json").write_bytes(forged)
    owner.asked.clear()
    with pytest.raises(Rejected) as caught:
        device.refresh()
    assert (caught.value.code, owner.asked) == ("update-signature", [])


def test_an_empty_targets_role_offers_nothing(owner: Owner, device: Device) -> None:
    owner.targets = Metadata(Targets(version=2))
    owner.publish()
    device.refresh()
    assert device.trust.find("models/produce/1/bundle.json", owner) is None


def test_every_code_is_in_the_guide() -> None:
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "repository.md").read_text("utf-8")
    for name in ("trust", "mirror", "mirror_http", "download", "repository"):
        text = (root / "agent" / "link" / f"{name}.py").read_text("utf-8")
        for code in sorted(set(re.findall(r'"(update-[a-z]+)"', text))):
            assert f"| `{code}` |" in guide, code
