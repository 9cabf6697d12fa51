"""The contract of a place for objects, kept by a folder, by moto and by rclone; then what each refuses."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from object_places import BUCKET, PLACES, Place, empty, environment, free_port

from cloud.errors import Broken, CloudError, Rejected, Retryable
from cloud.objects import NoSuchObject, Objects, check_key, fetch, open_objects
from cloud.objects.folder import FolderObjects
from cloud.objects.keys import Grant

KEY = "shards/day=2026-03-01/store=harbour/device=shop-1/part-0001-00ff.parquet"
CONTENT = b"PAR1" + bytes(range(256)) * 40_000  # ten MB: more than one piece, and more than one part of an upload


@pytest.fixture(scope="module", params=sorted(PLACES))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(request.param)
    with PLACES[request.param](folder) as started:
        yield started


@pytest.fixture
def objects(place: Place, tmp_path: Path) -> Iterator[Objects]:
    if place.kind == "folder":
        yield open_objects(tmp_path / "objects")
        return
    yield open_objects(place.address, place.environment)
    if place.kind != "s3":
        empty(place)


def read(objects: Objects, key: str) -> bytes:
    return b"".join(objects.get(key))


# -- for every place ---------------------------------------------------------------------------------------------------


def test_what_is_put_is_read_back(objects: Objects, tmp_path: Path) -> None:
    assert objects.put(KEY, CONTENT)
    assert objects.size(KEY) == len(CONTENT)
    assert read(objects, KEY) == CONTENT
    assert fetch(objects, KEY, tmp_path / "copy") == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert objects.put(KEY, b"newer")
    assert read(objects, KEY) == b"newer"


def test_a_file_is_put_as_its_bytes_are(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert objects.put(KEY, tmp_path / "file")
    assert read(objects, KEY) == CONTENT
    assert (tmp_path / "file").exists()


def test_what_is_not_there(objects: Objects) -> None:
    assert objects.size("a/b") is None
    objects.delete("a/b")
    with pytest.raises(NoSuchObject, match="a/b"):
        read(objects, "a/b")
    with pytest.raises(NoSuchObject):
        objects.move("a/b", "a/c")
    assert list(objects.list("a/")) == []


def test_the_first_stays_where_the_place_can_tell(objects: Objects, place: Place, tmp_path: Path) -> None:
    assert objects.put(KEY, b"first", if_absent=True)
    (tmp_path / "second").write_bytes(b"second")
    second = objects.put(KEY, tmp_path / "second", if_absent=True)
    if place.knows_if_absent:
        assert not second
        assert read(objects, KEY) == b"first"


def test_keys_are_listed_by_their_prefix(objects: Objects) -> None:
    keys = {f"scores/day=2026-03-0{n}/part-{m}.parquet" for n in (1, 2) for m in range(60)}
    for key in [*keys, "scoresheet/x"]:
        objects.put(key, b"x")
    assert set(objects.list("scores/")) == keys
    assert set(objects.list("scores/day=2026-03-01/")) == {key for key in keys if "-01/" in key}


def test_an_object_is_moved_and_deleted(objects: Objects) -> None:
    objects.put("shards/one", b"bad")
    objects.move("shards/one", "bad/shards/one")
    assert (objects.size("shards/one"), objects.size("bad/shards/one")) == (None, 3)
    objects.put("shards/one", b"worse")
    objects.move("shards/one", "bad/shards/one")
    assert read(objects, "bad/shards/one") == b"worse"
    objects.delete("bad/shards/one")
    assert objects.size("bad/shards/one") is None


def test_the_same_place_is_opened_again_by_its_address(objects: Objects, place: Place) -> None:
    objects.put(KEY, b"one place")
    assert read(open_objects(objects.address, place.environment), KEY) == b"one place"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a//b",
        "a/",
        ".shelfwire/signing-key",
        "a\\b",
        "a\n",
        "ä",
        "a%2e",
        "x" * 600,
    ],
)
def test_no_key_leads_outside(objects: Objects, key: str) -> None:
    for use in (
        lambda: objects.put(key, b"x"), lambda: read(objects, key), lambda: objects.size(key),
        lambda: objects.delete(key), lambda: objects.move("a", key), lambda: objects.move(key, "a"),
        lambda: objects.sign_put(key, size=1, sha256="0" * 64, expires_s=60),
    ):  # fmt: skip
        with pytest.raises(Rejected) as refused:
            use()
        assert refused.value.code == "bad-key"


# -- signed addresses of services: used by plain requests --------------------------------------------------------------


def signed(objects: Objects, content: bytes, expires_s: int = 60) -> tuple[str, dict[str, str]]:
    put = objects.sign_put(KEY, size=len(content), sha256=hashlib.sha256(content).hexdigest(), expires_s=expires_s)
    return put.url, dict(put.headers)


def needs(place: Place, *kinds: str) -> None:
    if place.kind not in kinds:
        pytest.skip(f"not for {place.kind}")


def test_a_signed_address_takes_one_object_from_somebody_without_rights(objects: Objects, place: Place) -> None:
    needs(place, "moto", "rclone", "s3")
    url, headers = signed(objects, CONTENT)
    requests.put(url, CONTENT, headers=headers, timeout=30).raise_for_status()
    assert read(objects, KEY) == CONTENT


def test_an_expired_and_a_forged_address_are_refused(objects: Objects, place: Place) -> None:
    needs(place, "rclone", "s3")
    url, headers = signed(objects, b"x", expires_s=1)
    threading.Event().wait(2.2)  # the service's clock is not ours to move
    assert requests.put(url, b"x", headers=headers, timeout=10).status_code in (400, 403)
    url, headers = signed(objects, b"x")
    assert requests.put(url.replace("part-0001", "part-0002"), b"x", headers=headers, timeout=10).status_code == 403
    assert objects.size(KEY) is None


# -- a service that is away or refuses ---------------------------------------------------------------------------------


def code_of(use: object) -> tuple[type[CloudError], str]:
    with pytest.raises(CloudError) as failed:
        use()  # type: ignore[operator]
    assert failed.value.hint
    return type(failed.value), failed.value.code


def test_a_service_that_is_away_may_come_back() -> None:
    away = open_objects(f"s3://{BUCKET}", environment(f"http://127.0.0.1:{free_port()}"))
    assert code_of(lambda: away.size("a")) == (Retryable, "objects-away")
    assert code_of(lambda: away.put("a", b"x")) == (Retryable, "objects-away")


def test_wrong_credentials_name_the_cure(place: Place) -> None:
    needs(place, "rclone")
    url = place.environment["AWS_ENDPOINT_URL"]
    wrong = open_objects(place.address, environment(url, secret="wrong"))
    assert code_of(lambda: wrong.put("a", b"x")) == (Rejected, "objects-auth")
    assert code_of(lambda: list(wrong.list("a/"))) == (Rejected, "objects-auth")


def test_a_missing_bucket_names_the_cure(place: Place) -> None:
    needs(place, "moto", "rclone")
    wrong = open_objects("s3://no-such-bucket", place.environment)
    assert code_of(lambda: wrong.put("a", b"x")) == (Rejected, "objects-bucket")


@pytest.mark.parametrize("address", ["gopher://x", "s3://", "s3:///prefix", "http://x/y"])
def test_an_address_that_is_none(address: str) -> None:
    assert code_of(lambda: open_objects(address, {})) == (Rejected, "objects-address")


# -- the folder's own signatures ---------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def grant(content: bytes = b"whole", **changed: object) -> Grant:
    fields = {"key": KEY, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "expires_at": 1_000_060}
    return Grant(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ours(tmp_path: Path, clock: Clock) -> FolderObjects:
    return FolderObjects(tmp_path / "objects", clock)


def signature_of(objects: FolderObjects) -> str:
    put = objects.sign_put(KEY, size=5, sha256=hashlib.sha256(b"whole").hexdigest(), expires_s=60)
    assert put.url.startswith(f"/v1/objects/{KEY}?")
    return put.url.rsplit("signature=", 1)[1]


def left_over(objects: FolderObjects) -> list[str]:
    return [path.name for path in (Path(objects.address) / ".shelfwire" / "incoming").iterdir()]


def test_a_signed_upload_becomes_an_object_when_it_is_whole(ours: FolderObjects) -> None:
    with ours.receive(grant(), signature_of(ours)) as upload:
        upload.write(b"wh")
        upload.write(b"ole")
        upload.finish()
    assert read(ours, KEY) == b"whole"
    assert left_over(ours) == []


@pytest.mark.parametrize(
    "changed", [{"key": "shards/other"}, {"size": 6}, {"sha256": "0" * 64}, {"expires_at": 2_000_000}]
)
def test_a_signature_is_bound_to_key_size_digest_and_time(ours: FolderObjects, changed: dict[str, object]) -> None:
    with pytest.raises(Rejected) as refused:
        ours.receive(grant(**changed), signature_of(ours))
    assert refused.value.code == "signature-bad"


def test_an_address_expires(ours: FolderObjects, clock: Clock) -> None:
    signature = signature_of(ours)
    clock.now_s += 60
    with pytest.raises(Rejected) as refused:
        ours.receive(grant(), signature)
    assert refused.value.code == "signature-expired"


@contextmanager
def refused_with(code: str) -> Iterator[None]:
    with pytest.raises(Rejected) as refused:
        yield
    assert refused.value.code == code


def test_a_cut_a_longer_and_another_body_leave_no_trace(ours: FolderObjects) -> None:
    signature = signature_of(ours)
    with refused_with("object-differs"), ours.receive(grant(), signature) as upload:
        upload.write(b"wh")
        upload.finish()
    with refused_with("object-too-large"), ours.receive(grant(), signature) as upload:
        upload.write(b"whole and more")
    with refused_with("object-differs"), ours.receive(grant(), signature) as upload:
        upload.write(b"WHOLE")
        upload.finish()
    with pytest.raises(ConnectionError), ours.receive(grant(), signature) as upload:
        upload.write(b"wh")
        raise ConnectionError("the line was cut")
    assert ours.size(KEY) is None
    assert left_over(ours) == []


def test_another_process_on_the_folder_takes_what_this_one_signed(ours: FolderObjects, clock: Clock) -> None:
    signature = signature_of(ours)
    with FolderObjects(Path(ours.address), clock).receive(grant(), signature) as upload:
        upload.write(b"whole")
        upload.finish()
    with pytest.raises(Rejected):
        FolderObjects(Path(ours.address).parent / "another", clock).receive(grant(), signature)


def test_the_secret_is_the_owners_alone_and_no_object(ours: FolderObjects) -> None:
    path = Path(ours.address) / ".shelfwire" / "signing-key"
    assert path.stat().st_mode & 0o077 == 0
    assert path.stat().st_size == 32


def test_an_upload_that_was_cut_long_ago_is_swept(ours: FolderObjects, clock: Clock) -> None:
    left = Path(ours.address) / ".shelfwire" / "incoming" / "left"
    left.write_bytes(b"half")
    os.utime(left, (clock.now_s, clock.now_s))
    FolderObjects(Path(ours.address), clock)
    assert left.exists()
    clock.now_s += 25 * 3600
    FolderObjects(Path(ours.address), clock)
    assert not left.exists()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert code_of(lambda: open_objects(tmp_path / "file")) == (Broken, "objects-folder")


def test_a_good_key() -> None:
    assert check_key(KEY) == KEY
