"""The publisher: keys and their exchange, what is let in, what devices see of it, and the signature of every day."""

import contextlib
import io
import json
import logging
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import pytest
import toy_bundles
from repository_servers import plain
from repository_world import Clock
from tuf.ngclient import Updater

from agent.errors import ShelfwireError
from agent.link.download import Downloads
from agent.link.mirror import FolderMirror
from agent.link.repository import ModelRepository
from agent.link.trust import Trust
from cloud.cli import main as cloud_main
from cloud.errors import Broken, Rejected
from cloud.repository import Keys, Published, RepositoryFolder, publish, unpublish
from cloud.repository.export import export
from cloud.repository.keys import signers_in
from cloud.repository.resigning import RepositoryMetrics, Resigner, resign
from models import Bundle, Classifier, pack
from models.bundle import Golden, GoldenInput, Limits, parse_manifest
from wire.orders import ModelOrder

START = datetime(2027, 1, 1, tzinfo=UTC)


class Shop:
    """An owner's machine with its repository, the stick with the offline keys, and a device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moment = START
        self.stick = folder / "stick"
        self.repository = RepositoryFolder(folder / "repository", folder / "online", lambda: self.moment)
        self.keys = Keys(self.repository)
        self.keys.init(self.stick)
        self.clock = Clock()
        self.clock.set(START)

    def later(self, **delta: float) -> None:
        self.moment += timedelta(**delta)
        self.clock.set(self.moment)

    def publish(self, bundle: Bundle | Path) -> Published:
        folder = bundle.folder if isinstance(bundle, Bundle) else bundle
        return publish(self.repository, folder, signers_in([self.stick]))

    def device(self, name: str = "device") -> ModelRepository:
        """What a device makes of it, over a stick; called again it is a new process."""
        folder = self.folder / name
        mirror = FolderMirror(self.repository.folder)
        trust = Trust(folder / "trust", self.clock, self.stick / "root.json")
        return ModelRepository(trust, mirror, Downloads(mirror, self.clock, bytes_per_second=1 << 40), folder)

    def refused(self, code: str, bundle: Bundle | Path) -> None:
        """Nothing of the repository may change when a bundle is refused."""
        before = files(self.repository.folder)
        with pytest.raises(Rejected) as caught:
            self.publish(bundle)
        assert caught.value.code == code, caught.value
        assert caught.value.hint
        assert files(self.repository.folder) == before


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def bundle(folder: Path, release: int = 1, gain: float = 0.05, **changes: object) -> Bundle:
    """A toy with one golden picture, whose scores were found by running it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(toy_bundles.model(toy_bundles.Toy(gain=gain)))
    (folder / "golden.png").write_bytes(cv2.imencode(".png", toy_bundles.plain(20, 60, 200))[1].tobytes())
    listed = {"model.onnx": "model", "golden.png": "golden"}
    limits = Limits(runtimes=("onnxruntime",))  # opens a toy in milliseconds
    first = pack.write(folder, toy_bundles.manifest(folder, listed, limits=limits))
    with Classifier.open(first) as classifier:
        answer = classifier.worker().classify(toy_bundles.plain(20, 60, 200), k=3)
    inputs = (GoldenInput(path="golden.png", expected={label: float(score) for label, score in answer.top}),)
    fields = {
        "limits": limits,
        "golden": Golden(inputs=inputs),
        "release": release,
        "version": f"{release}.0",
        **changes,
    }
    return pack.write(folder, toy_bundles.manifest(folder, listed, **fields))


def order(one: Published) -> ModelOrder:
    return ModelOrder(name=one.name, version=one.version, release=one.release, digest=one.digest)


def fetched(repository: ModelRepository, one: Published, into: Path) -> dict[str, bytes]:
    """Fetch a bundle as a device does; gives its files."""
    into.mkdir(parents=True, exist_ok=True)
    found = {}
    for file in parse_manifest(repository.manifest(order(one))).files:
        repository.fetch(file.sha256, file.size_bytes, into / file.sha256)
        found[file.path] = (into / file.sha256).read_bytes()
    return found


# In and out


def test_a_published_bundle_reaches_a_device_whole(shop: Shop, tmp_path: Path) -> None:
    made = bundle(tmp_path / "b")
    one = shop.publish(made)
    assert (one.name, one.release, one.version, one.digest) == ("toy", 1, "1.0", made.ref.digest)
    device = shop.device()
    device.refresh()
    got = fetched(device, one, tmp_path / "blobs")
    assert got == {name: (made.folder / name).read_bytes() for name in ("model.onnx", "golden.png")}
    assert shop.repository.published() == [one]


def test_unchanged_files_are_stored_once(shop: Shop, tmp_path: Path) -> None:
    shop.publish(bundle(tmp_path / "b"))
    before = set((shop.repository.folder / "blobs").iterdir())
    shop.publish(bundle(tmp_path / "b", release=2, gain=0.06))  # the picture is the same
    assert len(set((shop.repository.folder / "blobs").iterdir()) - before) == 1


def test_the_release_counter_goes_up_or_nothing_happens(shop: Shop, tmp_path: Path) -> None:
    shop.publish(bundle(tmp_path / "b", release=5))
    shop.refused("publish-release", bundle(tmp_path / "b", release=5))
    shop.refused("publish-release", bundle(tmp_path / "b", release=4, gain=0.07))
    unpublish(shop.repository, "toy", 5, signers_in([shop.stick]))
    shop.refused("publish-release", bundle(tmp_path / "b", release=5))  # not even once it was taken back
    shop.publish(bundle(tmp_path / "b", release=6))


def test_a_bundle_taken_back_is_refused_and_its_own_files_go(shop: Shop, tmp_path: Path) -> None:
    first = shop.publish(bundle(tmp_path / "b"))
    second = shop.publish(bundle(tmp_path / "b", release=2, gain=0.06))
    assert unpublish(shop.repository, "toy", 1, signers_in([shop.stick])) > 0
    device = shop.device()
    device.refresh()
    with pytest.raises(ShelfwireError) as caught:
        device.manifest(order(first))
    assert caught.value.code == "update-unlisted"
    assert len(fetched(device, second, tmp_path / "blobs")) == 2
    with pytest.raises(Rejected) as unknown:
        unpublish(shop.repository, "toy", 1, signers_in([shop.stick]))
    assert unknown.value.code == "publish-unknown"


def test_a_damaged_blob_is_mended_by_publishing_it_again(shop: Shop, tmp_path: Path) -> None:
    made = bundle(tmp_path / "b")
    shop.publish(made)
    blob = shop.repository.folder / "blobs" / made.file("model").sha256
    blob.write_bytes(b"x" * blob.stat().st_size)
    one = shop.publish(bundle(tmp_path / "b", release=2))
    device = shop.device()
    device.refresh()
    assert fetched(device, one, tmp_path / "blobs")["model.onnx"] == (tmp_path / "b" / "model.onnx").read_bytes()


# Gates


def relist(made: Bundle, **changes: object) -> Path:
    """Write another manifest over the same files, unchecked, as somebody who means harm would."""
    document = json.loads((made.folder / "bundle.json").read_text("utf-8"))
    (made.folder / "bundle.json").write_text(json.dumps({**document, **changes}), "utf-8")
    return made.folder


def listed(made: Bundle, **of_model: object) -> list[dict[str, object]]:
    files = json.loads((made.folder / "bundle.json").read_text("utf-8"))["files"]
    return [{**file, **of_model} if file["role"] == "model" else file for file in files]


def tampered(made: Bundle) -> Path:
    raw = (made.folder / "model.onnx").read_bytes()
    (made.folder / "model.onnx").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    return made.folder


def linked(made: Bundle) -> Path:
    (made.folder / "model.onnx").rename(made.folder.parent / "elsewhere.onnx")
    (made.folder / "model.onnx").symlink_to(made.folder.parent / "elsewhere.onnx")
    return made.folder


def stray_link(made: Bundle) -> Path:
    (made.folder / "notes").symlink_to("/etc/passwd")
    return made.folder


def permuted(made: Bundle) -> Path:
    return relist(made, labels=list(reversed(made.manifest.labels)))


def external(made: Bundle) -> Path:
    (made.folder / "model.onnx").write_bytes(toy_bundles.model(toy_bundles.Toy(outside="../../../etc/passwd")))
    pack.refresh(made.folder)
    return made.folder


def nonsense(made: Bundle) -> Path:
    (made.folder / "model.onnx").write_bytes(b"no model" * 100)
    pack.refresh(made.folder)
    return made.folder


def picture_bomb(made: Bundle) -> Path:
    """A few bytes that say they are a picture of 60,000 by 60,000 pixels."""
    raw = bytearray((made.folder / "golden.png").read_bytes())
    raw[16:24] = (60_000).to_bytes(4, "big") * 2
    (made.folder / "golden.png").write_bytes(bytes(raw))
    pack.refresh(made.folder)
    return made.folder


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (tampered, "bundle-digest"),
        (linked, "publish-link"),
        (stray_link, "publish-link"),
        (lambda b: relist(b, files=listed(b, path="../b/model.onnx")), "bundle-path"),
        (lambda b: relist(b, files=listed(b, path="/etc/passwd")), "bundle-path"),
        (lambda b: relist(b, files=listed(b, size_bytes=2**40)), "bundle-json"),
        (lambda b: relist(b, files=listed(b, size_bytes=7)), "bundle-digest"),
        (permuted, "bundle-golden"),
        (lambda b: relist(b, golden={"inputs": [], "tolerance": {"cpu": 0.001}}), "publish-golden"),
        (external, "bundle-path"),
        (nonsense, "model-load"),
        (picture_bomb, "picture-too-large"),
        (lambda b: relist(b, name="../../evil"), "bundle-json"),
    ],
)
def test_a_bundle_that_fails_a_gate_is_not_published(
    shop: Shop, tmp_path: Path, spoil: Callable[[Bundle], Path], code: str
) -> None:
    shop.refused(code, spoil(bundle(tmp_path / "b")))


def test_without_the_targets_key_nothing_is_published(shop: Shop, tmp_path: Path) -> None:
    made = bundle(tmp_path / "b")
    (shop.stick / "targets-1.key").unlink()
    shop.refused("keys-missing", made)


# Keys


def test_offline_keys_are_for_their_owner_alone_and_not_beside_the_online_ones(shop: Shop) -> None:
    assert {p.name for p in shop.stick.glob("*.key")} == {"root-1.key", "root-2.key", "root-3.key", "targets-1.key"}
    assert {p.name for p in shop.repository.online.glob("*.key")} == {"snapshot-1.key", "timestamp-1.key"}
    for path in [*shop.stick.glob("*.key"), *shop.repository.online.glob("*.key")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    served = b"".join(p.read_bytes() for p in shop.repository.folder.rglob("*") if p.is_file())
    assert b"PRIVATE" not in served
    with pytest.raises(Rejected) as caught:
        shop.keys.init(shop.folder / "again")
    assert caught.value.code == "repository-there"


def test_a_lost_root_key_is_replaced_by_the_other_two(shop: Shop, tmp_path: Path) -> None:
    device = shop.device()
    device.refresh()
    (shop.stick / "root-2.key").unlink()
    assert shop.keys.rotate("root", [shop.stick], shop.stick, "root-2") == ["root-4"]
    assert {key.name for key in shop.keys.show([shop.stick]) if key.role == "root"} == {"root-1", "root-3", "root-4"}
    (shop.stick / "root-1.key").unlink()  # and the new one is as good as any
    shop.keys.rotate("root", [shop.stick], shop.stick, "root-1")
    one = shop.publish(bundle(tmp_path / "b"))
    device.refresh()
    assert device.accepted is not None
    assert device.accepted.root == 3
    assert len(fetched(device, one, tmp_path / "blobs")) == 2
    never_seen = shop.device("another")
    never_seen.refresh()  # from root 1, over the whole chain


def test_one_root_key_alone_changes_nothing(shop: Shop) -> None:
    for name in ("root-1", "root-2"):
        (shop.stick / f"{name}.key").unlink()
    before = files(shop.repository.folder)
    for role in ("root", "targets", "online"):
        with pytest.raises(Rejected) as caught:
            shop.keys.rotate(role, [shop.stick], shop.stick, "root-1")
        assert caught.value.code == "keys-missing"
    assert files(shop.repository.folder) == before
    assert not list(shop.stick.glob("*-4.key"))


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp", "online"])
def test_a_stolen_key_is_exchanged_and_devices_follow(shop: Shop, tmp_path: Path, role: str) -> None:
    shop.publish(bundle(tmp_path / "b"))
    device = shop.device()
    device.refresh()
    shop.keys.rotate(role, [shop.stick], shop.stick)
    one = shop.publish(bundle(tmp_path / "b", release=2))
    device.refresh()
    assert len(fetched(device, one, tmp_path / "blobs")) == 2
    online = {p.name for p in shop.repository.online.glob("*.key")}
    assert len(online) == 2
    assert ("timestamp-1.key" in online) == (role in ("targets", "snapshot"))


@pytest.mark.parametrize("role", ["targets", "online"])
@pytest.mark.parametrize("writes", range(5))
def test_a_power_cut_amid_an_exchange_of_keys_stops_no_device(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, role: str, writes: int
) -> None:
    """The power goes before each of the files that are written, one after the other."""
    device = shop.device()
    device.refresh()
    write, done = RepositoryFolder.write, iter(range(100))

    def cut(repository: RepositoryFolder, name: str, content: bytes) -> None:
        if next(done) == writes:
            raise KeyboardInterrupt
        write(repository, name, content)

    monkeypatch.setattr(RepositoryFolder, "write", cut)
    with contextlib.suppress(KeyboardInterrupt):
        shop.keys.rotate(role, [shop.stick], shop.stick)
    monkeypatch.undo()
    device.refresh()
    shop.device(f"new-{role}-{writes}").refresh()
    assert not any(state.alarm for state in shop.repository.states())
    shop.keys.rotate(role, [shop.stick], shop.stick)
    device.refresh()


def test_a_lost_key_is_exchanged_too_and_a_power_cut_amid_that_is_mended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = shop.device()
    device.refresh()
    (shop.stick / "targets-1.key").unlink()
    for path in shop.repository.online.glob("*.key"):
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RepositoryFolder, "write_snapshot", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shop.keys.rotate("online", [shop.stick], shop.stick)
    assert {state.role for state in shop.repository.states() if state.alarm} == {"snapshot", "timestamp"}
    Resigner(shop.repository).turn()
    device.refresh()
    shop.keys.rotate("targets", [shop.stick], shop.stick)
    shop.publish(bundle(tmp_path / "b"))
    device.refresh()


def test_keys_may_lie_in_several_places(shop: Shop) -> None:
    places = []
    for name in ("root-1", "root-3"):
        place = shop.folder / f"safe-{name}"
        place.mkdir()
        (shop.stick / f"{name}.key").rename(place / f"{name}.key")
        places.append(place)
    assert shop.keys.rotate("root", places, places[0], "root-2") == ["root-4"]
    with pytest.raises(Rejected) as caught:
        shop.keys.rotate("root", places, places[0], "root-2")
    assert caught.value.code == "keys-unknown"


def test_locked_keys_open_by_their_passphrases_and_online_keys_need_none(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            return cloud_main(["fleet", *words, "--data", str(tmp_path / "cloud")]), said.getvalue()

    stick, first, second = tmp_path / "stick", tmp_path / "first", tmp_path / "second"
    first.write_text("correct horse\n", "utf-8")
    second.write_text("battery staple\n", "utf-8")
    bundle(tmp_path / "b")
    assert run("keys", "init", str(stick), "--passphrase-file", str(first)) == (0, "")
    keys = ["--keys", str(stick)]
    assert all(b"ENCRYPTED" in path.read_bytes() for path in stick.glob("*.key"))
    for wrong in ([], ["--passphrase-file", str(second)]):
        exit_code, said = run("publish", str(tmp_path / "b"), *keys, *wrong)
        assert (exit_code, "keys-locked" in said) == (2, True)
    both = ["--passphrase-file", str(second), "--passphrase-file", str(first)]
    assert (
        run("keys", "rotate", "root", "--replace", "root-3", *keys, *both)[0] == 0
    )  # the new one is locked by another
    assert run("keys", "rotate", "targets", *keys, "--passphrase-file", str(first))[0] == 2
    assert run("keys", "rotate", "targets", *keys, *both)[0] == 0
    assert run("publish", str(tmp_path / "b"), *keys, *both) == (0, "")
    assert run("refresh") == (0, "")


def test_what_is_no_key_is_named(shop: Shop) -> None:
    (shop.stick / "targets-1.key").write_bytes(b"-----BEGIN NONSENSE-----")
    with pytest.raises(Rejected) as caught:
        signers_in([shop.stick])
    assert caught.value.code == "keys-bad"
    with pytest.raises(Rejected) as gone:
        signers_in([shop.folder / "unplugged"])
    assert gone.value.code == "keys-missing"


# Every day


def test_the_timestamp_is_signed_every_day_and_devices_never_see_it_run_out(shop: Shop, tmp_path: Path) -> None:
    shop.publish(bundle(tmp_path / "b"))
    device = shop.device()
    for _ in range(15):
        shop.later(hours=25)
        resign(shop.repository)
        device.refresh()
    metadata = {path.name for path in (shop.repository.folder / "metadata").iterdir()}
    assert device.accepted is not None
    assert device.accepted.timestamp >= 15
    assert device.accepted.snapshot == 4
    assert len(metadata) < 10


def test_it_is_signed_when_a_day_is_over_and_not_before(shop: Shop) -> None:
    assert not resign(shop.repository)
    shop.later(hours=23.9)
    assert not resign(shop.repository)
    shop.later(hours=0.2)
    assert resign(shop.repository)
    assert not resign(shop.repository)
    assert resign(shop.repository, force=True)


def test_nobody_signs_and_the_alarm_comes_three_days_before_the_end(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    for path in shop.repository.online.glob("*.key"):
        path.unlink()
    resigner = Resigner(shop.repository)
    shop.later(days=3.9)
    resigner.turn()
    assert "repository-expires" not in caplog.text
    assert not any(state.alarm for state in shop.repository.states())
    shop.later(days=0.2)
    resigner.turn()
    assert "repository-expires" in caplog.text
    assert "fleet refresh" in caplog.text
    assert [state.role for state in shop.repository.states() if state.alarm] == ["timestamp"]
    found = {
        (sample.name, sample.labels["role"]): sample.value
        for metric in RepositoryMetrics(shop.repository).collect()
        for sample in metric.samples
    }
    assert found["shelfwire_repository_alarm", "timestamp"] == 1
    assert found["shelfwire_repository_alarm", "root"] == 0
    assert 2.8 * 86400 < found["shelfwire_repository_expires_seconds", "timestamp"] < 3 * 86400


def test_what_ran_out_is_mended_by_one_signature(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    device = shop.device()
    device.refresh()
    shop.later(days=20)
    with pytest.raises(ShelfwireError) as caught:
        device.refresh()
    assert caught.value.code == "update-expired"
    with caplog.at_level(logging.INFO):
        Resigner(shop.repository).turn()
    device.refresh()


def test_root_and_targets_are_renewed_for_another_term(shop: Shop) -> None:
    device = shop.device()
    device.refresh()
    shop.later(days=360)
    resign(shop.repository)
    assert [state.role for state in shop.repository.states() if state.alarm] == ["targets"]
    assert shop.keys.renew([shop.stick]) == ["root", "targets"]
    assert not any(state.alarm for state in shop.repository.states())
    shop.later(days=6)
    device.refresh()
    assert device.accepted is not None
    assert device.accepted.root == 2


def test_a_damaged_repository_is_said_to_be_damaged(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    (shop.repository.folder / "metadata" / "1.snapshot.json").write_bytes(b"")
    with pytest.raises(Broken) as caught:
        shop.repository.states()
    assert caught.value.code == "repository-bad"
    Resigner(shop.repository).turn()
    assert "repository-bad" in caplog.text


# Others


def test_any_tuf_client_can_read_it_from_any_file_server(shop: Shop, tmp_path: Path) -> None:
    """python-tuf's own client as it is, over Python's own file server."""
    now = datetime.now(UTC)
    shop.moment = now
    made = bundle(tmp_path / "b")
    shop.publish(made)
    resign(shop.repository, force=True)
    for folder in ("trust", "got"):
        (tmp_path / folder).mkdir()
    with plain(shop.repository.folder) as url:
        updater = Updater(
            str(tmp_path / "trust"), f"{url}/metadata/", str(tmp_path / "got"), f"{url}/targets/",
            bootstrap=(shop.stick / "root.json").read_bytes(),
        )  # fmt: skip
        info = updater.get_targetinfo("models/toy/1/bundle.json")
        assert info is not None
        path = Path(updater.download_target(info))
    assert path.read_bytes() == (made.folder / "bundle.json").read_bytes()


def test_a_stick_lasts_as_long_as_it_was_told_and_harms_no_device_with_a_line(shop: Shop, tmp_path: Path) -> None:
    one = shop.publish(bundle(tmp_path / "b"))
    until = export(shop.repository, tmp_path / "usb", 25)
    assert until == START + timedelta(days=25)
    online = shop.device("online")
    online.refresh()
    shop.later(days=24)
    mirror = FolderMirror(tmp_path / "usb")
    trust = Trust(tmp_path / "far" / "trust", shop.clock, shop.stick / "root.json")
    far = ModelRepository(trust, mirror, Downloads(mirror, shop.clock, bytes_per_second=1 << 40), tmp_path / "far")
    far.refresh()
    assert len(fetched(far, one, tmp_path / "blobs")) == 2
    resign(shop.repository)
    online.refresh()
    shop.later(days=2)
    with pytest.raises(ShelfwireError) as caught:
        far.refresh()
    assert caught.value.code == "update-expired"
    for folder, days in ((shop.repository.folder, 7), (shop.folder, 7), (tmp_path / "usb", 31)):
        with pytest.raises(Rejected):
            export(shop.repository, folder, days)


def test_a_writer_waits_for_the_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.repository.folder.MOST_WAIT_S", 0.1)
    other = RepositoryFolder(shop.repository.folder, shop.repository.online)
    with shop.repository.locked(), pytest.raises(Broken) as caught, other.locked():
        pass
    assert caught.value.code == "repository-busy"
