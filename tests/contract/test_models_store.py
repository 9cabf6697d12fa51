"""The store of models: whole bundles or none, links that a cut cannot tear, and a journal that says what is true."""

import shutil
from pathlib import Path

import pytest
import toy_bundles

from agent.core import lifecycle
from agent.core.updates import Entry, Links, When, begin
from agent.errors import Rejected
from agent.store.journal import JOURNAL, Journal
from agent.store.models import FAILED_KEPT, Models, key_of
from models import Bundle
from models.bundle import MANIFEST
from wire.orders import Desired, ModelOrder

NOW = When(wall_ns=1_800_000_000 * 10**9, boot_ns=5 * 10**9, boot="boot-1")


def toy(folder: Path, release: int) -> Bundle:
    return toy_bundles.bundle(folder / f"toy-{release}", toy_bundles.Toy(gain=0.05 + release / 1000), release=release)


def bring(models: Models, bundle: Bundle) -> str:
    """Put a bundle's files into the store and assemble them; gives its key."""
    for file in bundle.manifest.files:
        shutil.copyfile(bundle.folder / file.path, models.blob(file.sha256))
    with models.journal.turn():
        models.assemble((bundle.folder / MANIFEST).read_bytes())
    return key_of(bundle.ref.digest)


def entry(state: lifecycle.State, bundle: str, former: Links, what: lifecycle.What = "model") -> Entry:
    return Entry(what=what, revision=1, state=state, bundle=bundle, former=former)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models")


def test_a_store_without_anything_leaves_the_configured_bundle(models: Models) -> None:
    assert models.recover() is None
    assert models.current() is None
    assert models.links() == Links()


def test_a_bundle_is_whole_or_nothing(models: Models, tmp_path: Path) -> None:
    key = bring(models, toy(tmp_path, 1))
    found = models.bundle(key)
    assert found is not None
    assert found.ref.release == 1
    (models.folder / "bundles" / key / "ok").unlink()
    assert models.bundle(key) is None


def test_files_are_shared_and_never_wanted_twice(models: Models, tmp_path: Path) -> None:
    bundle = toy(tmp_path, 1)
    assert models.missing(bundle.manifest) == list(bundle.manifest.files)
    key = bring(models, bundle)
    assert models.missing(bundle.manifest) == []
    model = models.folder / "bundles" / key / "model.onnx"
    assert model.stat().st_ino == models.blob(bundle.manifest.files[0].sha256).stat().st_ino


def test_a_file_that_is_not_its_digest_is_refused_and_fetched_again(models: Models, tmp_path: Path) -> None:
    bundle = toy(tmp_path, 1)
    (file,) = bundle.manifest.files
    models.blob(file.sha256).write_bytes(b"x" * file.size_bytes)
    with pytest.raises(Rejected) as error, models.journal.turn():
        models.assemble((bundle.folder / MANIFEST).read_bytes())
    assert error.value.code == "update-digest"
    assert models.missing(bundle.manifest) == [file]
    assert models.held() == []


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "ok", "bundle.json", "ok/x"])
def test_a_name_that_climbs_out_or_covers_ours_is_refused(models: Models, tmp_path: Path, path: str) -> None:
    bundle = toy(tmp_path, 1)
    raw = (bundle.folder / MANIFEST).read_text().replace('"path": "model.onnx"', f'"path": "{path}"').encode()
    shutil.copyfile(bundle.folder / "model.onnx", models.blob(bundle.manifest.files[0].sha256))
    with pytest.raises(Rejected) as error, models.journal.turn():
        models.assemble(raw)
    assert error.value.code == "update-path"
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("state", lifecycle.STATES)
def test_after_a_cut_the_links_are_what_the_journal_says(
    models: Models, tmp_path: Path, state: lifecycle.State
) -> None:
    old, new = bring(models, toy(tmp_path, 1)), bring(models, toy(tmp_path, 2))
    for torn in (Links(), Links(current=old), Links(current=old, previous=new), Links(current=new, previous=old)):
        models.point(torn)
        models.journal.write(entry(state, new, Links(current=old)))
        found = models.recover()
        assert found is not None
        expected = new if state in ("trial", "committed") else old
        assert key_of(found.ref.digest) == expected
        assert models.links().current == expected


def test_a_model_that_rotted_gives_way_to_the_one_before_and_then_to_the_configured(
    models: Models, tmp_path: Path
) -> None:
    old, new = bring(models, toy(tmp_path, 1)), bring(models, toy(tmp_path, 2))
    models.journal.write(entry("committed", new, Links(current=old)))
    assert models.recover() is not None
    for key, expected in ((new, old), (old, None)):
        path = models.folder / "bundles" / key / "model.onnx"
        content = bytearray(path.read_bytes())
        path.unlink()
        content[-1] ^= 1
        path.write_bytes(content)
        found = models.recover()
        assert (key_of(found.ref.digest) if found else None) == expected
        assert models.links() == Links(current=expected)


@pytest.mark.parametrize("target", ["/etc", "bundles/../../..", "bundles/zz", "elsewhere/0123456789abcdef"])
def test_a_link_that_names_no_bundle_of_ours_counts_as_none(models: Models, tmp_path: Path, target: str) -> None:
    bring(models, toy(tmp_path, 1))
    (models.folder / "current").symlink_to(target)
    assert models.links() == Links()
    assert models.recover() is None
    assert not (models.folder / "current").is_symlink()


def test_sweeping_keeps_current_previous_and_the_candidate(models: Models, tmp_path: Path) -> None:
    keys = [bring(models, toy(tmp_path, release)) for release in (1, 2, 3, 4)]
    models.point(Links(current=keys[1], previous=keys[0]))
    models.journal.write(entry("shadow", keys[2], Links(current=keys[1], previous=keys[0])))
    models.sweep()
    assert models.held() == sorted(keys[:3])
    assert len(list((models.folder / "blobs").iterdir())) == 4  # while one is under way its files may be on their way
    models.journal.write(entry("rejected", keys[2], Links(current=keys[1], previous=keys[0])))
    models.sweep()
    assert models.held() == sorted(keys[:2])
    assert len(list((models.folder / "blobs").iterdir())) == 2


def test_diagnostics_are_kept_and_bounded(models: Models) -> None:
    for revision in range(1, 7):
        failed = Entry(what="model", revision=revision, state="rejected", bundle="0" * 16)
        kept = models.keep_failed(failed, {"said.txt": b"x" * (1 << 21)})
        assert kept is not None
        assert sum(p.stat().st_size for p in kept.iterdir()) < 1 << 20
    assert len(list(models.folder.glob("failed-*"))) == FAILED_KEPT


def test_a_journal_that_cannot_be_read_is_set_aside_and_the_links_stand(models: Models, tmp_path: Path) -> None:
    key = bring(models, toy(tmp_path, 1))
    models.point(Links(current=key))
    (models.folder / JOURNAL).write_bytes(b"\0" * 40)
    assert models.recover() is not None
    assert models.links() == Links(current=key)
    assert (models.folder / f"{JOURNAL}.broken").exists()


def test_only_a_newer_order_counts_and_the_floor_never_falls(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    at = "2026-11-28T00:00:00.000Z"
    orders = {n: Desired.model_validate_json(f'{{"revision": {n}, "ordered_at": "{at}"}}') for n in (3, 4)}
    assert journal.keep_newest(orders[3])
    assert not journal.keep_newest(orders[3])
    assert journal.keep_newest(orders[4])
    assert not journal.keep_newest(orders[3])
    assert journal.newest() == orders[4]
    for release in (7, 5):
        model = ModelOrder(name="produce", version="1", release=release, digest="0" * 64)
        journal.write(begin(orders[4].model_copy(update={"model": model}), "model", NOW), raise_floor=True)
    assert (journal.floor("produce"), journal.floor("other")) == (7, 0)
    journal.write(begin(orders[4], "model", NOW))
    assert journal.floor("produce") == 7


def test_an_entry_takes_only_steps_of_the_table() -> None:
    order = Desired.model_validate_json('{"revision": 1, "ordered_at": "2026-11-28T00:00:00.000Z"}')
    begun = begin(order, "model", NOW)
    with pytest.raises(ValueError, match="activate"):
        begun.step("activate", NOW)
    later = NOW.model_copy(update={"boot_ns": NOW.boot_ns + 10**10})
    ended = begun.step("fetch", NOW).end("update-path", "it climbs out", later)
    assert (ended.state, ended.code, ended.over) == ("rejected", "update-path", True)
    assert begun.since.age_s(later) == 10.0
    update = ended.as_update()
    assert update is not None
    assert (update.state, update.code, update.text) == ("rejected", "update-path", "it climbs out")
