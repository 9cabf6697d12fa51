"""The spool on a real folder: durable first, bounded always, and swept of what no row speaks of."""

import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from agent.errors import Broken, Rejected
from agent.ports import Spooled
from agent.store import spool as module
from agent.store.spool import ORPHAN_S, SWEEP_EVERY_S, Spool, Sweeper

JPEG = b"\xff\xd8\xff" + b"x" * 997


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def spool(tmp_path: Path, clock: Time) -> Spool:
    return Spool(tmp_path / "state", max_bytes=10_000, time_s=clock)


def age(spool: Spool, name: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(spool.folder / name, (then, then))


def test_a_picture_is_read_back_as_it_was_kept(spool: Spool) -> None:
    kept = spool.keep(JPEG)
    assert (kept.size_bytes, len(kept.sha256)) == (1000, 64)
    assert kept.name.endswith(".jpg")
    assert spool.read(kept) == JPEG
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in spool.folder.iterdir()] == [kept.name]
    assert spool.keep(JPEG).name != kept.name


def test_it_is_on_the_disk_before_it_has_its_name(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def spy_fsync(file: int) -> None:
        steps.append("fsync-folder" if os.fstat(file).st_mode & 0o040000 else "fsync-file")
        fsync(file)

    def spy_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "rename", spy_rename)
    spool.keep(JPEG)
    assert steps == ["fsync-file", "rename", "fsync-folder"]


def test_the_limit_counts_rows_and_what_is_not_committed_yet(spool: Spool) -> None:
    assert spool.room_bytes() == 10_000
    first = spool.keep(JPEG)
    assert spool.room_bytes() == 9_000
    spool.committed([first.name], 1_000)
    assert spool.room_bytes() == 9_000
    spool.committed([], 9_500)
    with pytest.raises(Broken) as full:
        spool.keep(JPEG)
    assert full.value.code == "spool-full"
    assert full.value.hint
    spool.committed([], 20_000)
    assert spool.room_bytes() == 0


def test_the_disk_is_looked_at_once_a_second(spool: Spool, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(module, "_free_bytes", lambda _folder: looks.append(1) or 500)  # type: ignore[func-returns-value]
    assert [spool.room_bytes() for _ in range(5)] == [500] * 5
    assert len(looks) == 1
    clock.now_s += 1.0
    spool.room_bytes()
    assert len(looks) == 2


def test_free_space_of_the_disk_is_kept(tmp_path: Path) -> None:
    assert Spool(tmp_path, max_bytes=1 << 40, keep_free_bytes=1 << 60).room_bytes() == 0


def test_a_full_disk_leaves_no_part_of_a_file(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Broken) as error:
        spool.keep(JPEG)
    assert error.value.code == "disk-full"
    assert list(spool.folder.iterdir()) == []
    assert spool.room_bytes() == 10_000


@pytest.mark.parametrize("harm", ["missing", "altered", "shorter", "longer"])
def test_a_missing_or_altered_picture_is_known_as_lost(spool: Spool, harm: str) -> None:
    kept = spool.keep(JPEG)
    file = spool.folder / kept.name
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes({"altered": b"y" * 1000, "shorter": JPEG[:-1], "longer": JPEG + b"x"}[harm])
    with pytest.raises(Rejected) as lost:
        spool.read(kept)
    assert lost.value.code == "picture-lost"


def test_old_files_without_a_row_are_swept_and_no_others(spool: Spool, clock: Time) -> None:
    rows: set[str] = set()

    def known(names: Collection[str]) -> set[str]:
        return rows & set(names)

    with_row, orphan, young = (spool.keep(JPEG).name for _ in range(3))
    rows.add(with_row)
    torn = spool.folder / "torn.jpg.part"
    torn.write_bytes(b"half")
    spool.committed([with_row, orphan, young], 0)
    for name in (with_row, orphan, torn.name):
        age(spool, name, ORPHAN_S + 5)
    sweeper = Sweeper(spool, known, clock)
    assert sweeper.turn() == 2
    assert {file.name for file in spool.folder.iterdir()} == {with_row, young}
    age(spool, young, ORPHAN_S + 5)
    assert [sweeper.turn() for _ in range(3)] == [0, 0, 0]
    clock.now_s += SWEEP_EVERY_S
    assert sweeper.turn() == 1


def test_what_was_just_kept_survives_a_jump_of_the_wall_clock(spool: Spool, clock: Time) -> None:
    kept = spool.keep(JPEG)
    age(spool, kept.name, 10 * 365 * 86_400)
    assert Sweeper(spool, lambda _names: set(), clock).turn() == 0
    clock.now_s += ORPHAN_S
    assert Sweeper(spool, lambda _names: set(), clock).turn() == 1


def test_a_large_folder_is_swept_in_slices(spool: Spool, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_AT_ONCE", 2)
    for n in range(5):
        (spool.folder / f"{n}.jpg").write_bytes(b"")
        age(spool, f"{n}.jpg", ORPHAN_S + 5)
    sweeper = Sweeper(spool, lambda _names: set(), clock)
    assert [sweeper.turn() for _ in range(4)] == [2, 2, 1, 0]


def test_a_folder_that_cannot_be_made_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(Broken) as error:
        Spool(tmp_path / "state")
    assert (error.value.code, bool(error.value.hint)) == ("spool-folder", True)


def test_removing_twice_is_no_fault(spool: Spool) -> None:
    kept = spool.keep(JPEG)
    spool.remove([kept.name, kept.name])
    with pytest.raises(Rejected):
        spool.read(Spooled(kept.name, kept.size_bytes, kept.sha256))
