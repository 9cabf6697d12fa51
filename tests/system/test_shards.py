"""A device's night is handed over: announced, sent to a signed address, looked at row by row, received once."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_places import moto, rclone
from shard_files import DAY, SCHEMA, declare, row, rows, write
from web_shop import serving

from cloud.objects import Objects, open_objects
from cloud.shards import intake as intake_module
from cloud.shards.form import Declared
from cloud.store import Store


class House:
    """A server with a place for objects, and a device that hands shards over."""

    def __init__(self, store: Store, objects: Objects, url: str) -> None:
        self.store = store
        self.objects = objects
        self.http = httpx.Client(base_url=url, timeout=30)

    def announce(self, declared: Declared) -> httpx.Response:
        return self.http.post("/v1/shards", json=declared.model_dump())

    def send(self, answer: httpx.Response, content: bytes) -> httpx.Response:
        put = answer.json()["put"]
        return self.http.put(put["url"], content=content, headers=put["headers"])

    def done(self, declared: Declared) -> httpx.Response:
        return self.http.post(f"/v1/shards/{declared.sha256}/done", json={"device": declared.device})

    def hand_over(self, declared: Declared, path: Path) -> httpx.Response:
        announced = self.announce(declared)
        assert announced.json()["state"] == "expected", announced.text
        assert self.send(announced, path.read_bytes()).is_success
        return self.done(declared)

    def shard(self) -> tuple[Any, ...]:
        with self.store.pool.connection() as connection:
            found = connection.execute("SELECT state, detail, rows, received_at IS NOT NULL FROM shard").fetchall()
        assert len(found) == 1
        return tuple(found[0])


@contextmanager
def house_at(store: Store, objects: Objects) -> Iterator[House]:
    with serving(store, objects=objects) as served:
        house = House(store, objects, served.url)
        yield house
        house.http.close()


@pytest.fixture
def house(store: Store, tmp_path: Path) -> Iterator[House]:
    with house_at(store, open_objects(tmp_path / "objects")) as made:
        yield made


@pytest.mark.parametrize("where", ["folder", "moto", "rclone"])
def test_a_shard_is_received_once(store: Store, tmp_path: Path, where: str) -> None:
    with ExitStack() as stack:
        if where == "folder":
            objects = open_objects(tmp_path / "objects")
        else:
            place = stack.enter_context({"moto": moto, "rclone": rclone}[where](tmp_path))
            objects = open_objects(place.address, place.environment)
        house = stack.enter_context(house_at(store, objects))
        declared = write(tmp_path / "shard", rows(250))
        assert house.done(declared).status_code == 404
        announced = house.announce(declared)
        assert announced.json()["state"] == "expected"
        assert announced.json()["expires_in_s"] == 3600
        early = house.done(declared)
        assert (early.status_code, early.json()["state"], early.json()["code"]) == (409, "expected", "shard-missing")
        assert house.send(announced, (tmp_path / "shard").read_bytes()).is_success
        assert house.done(declared).json() == {"state": "received"}
        assert house.done(declared).json() == {"state": "received"}
        assert house.announce(declared).json() == {"state": "received"}
        assert house.shard() == ("received", "", 250, True)
        assert declared.key.startswith(f"shards/day={DAY}/store=harbour-street/device=shop-1/part-0001-")
        assert objects.size(declared.key) == declared.bytes


def test_a_receipt_that_was_lost_is_given_again_without_the_file(house: House, tmp_path: Path) -> None:
    """The file came, the connection broke, and the device starts over: it is not sent twice."""
    declared = write(tmp_path / "shard", rows(20))
    announced = house.announce(declared)
    house.send(announced, (tmp_path / "shard").read_bytes())
    assert house.announce(declared).json() == {"state": "received"}


def test_a_viewer_is_told(house: House, dsn: str, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(3))
    with psycopg.connect(dsn, autocommit=True) as listening:
        listening.execute("LISTEN shelfwire_live")
        house.hand_over(declared, tmp_path / "shard")
        told = next(listening.notifies(timeout=5))
    assert told.payload == '{"device": "shop-1", "what": ["shards"]}'


# -- what is refused before a byte is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("rows", 0, "bad-parameter"), ("rows", 1_000_001, "bad-parameter"), ("bytes", 128 * 2**20 + 1, "bad-parameter"),
        ("device", "../shop", "bad-parameter"), ("store", "a\nb", "bad-parameter"), ("sha256", "xyz", "bad-parameter"),
        ("part", 0, "bad-parameter"), ("day", "yesterday", "bad-parameter"), ("day", "2026-02-30", "shard-day"),
        ("day", "2199-01-01", "shard-day"), ("rows", "5", "bad-parameter"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(house: House, tmp_path: Path, field: str, value: object, code: str) -> None:
    declared = write(tmp_path / "shard", rows(2)).model_dump()
    answer = house.http.post("/v1/shards", json={**declared, field: value})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_another_sites_page_may_not_announce(house: House, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(2))
    answer = house.http.post("/v1/shards", json=declared.model_dump(), headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


def test_a_server_without_a_place_for_objects_says_how_to_get_one(store: Store, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(2))
    with serving(store) as served:
        answer = httpx.post(f"{served.url}/v1/shards", json=declared.model_dump())
    assert (answer.status_code, answer.json()["code"]) == (503, "objects-off")
    assert "--objects" in answer.json()["hint"]


# -- the signed address ------------------------------------------------------------------------------------------------


def test_an_address_takes_only_what_was_announced(house: House, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(30))
    content = (tmp_path / "shard").read_bytes()
    announced = house.announce(declared)
    url = announced.json()["put"]["url"]

    def refused(url: str, content: bytes) -> tuple[int, str]:
        answer = house.http.put(url, content=content)
        return answer.status_code, answer.json()["code"]

    assert refused(url, content[:-1]) == (422, "object-differs")
    assert refused(url, content[:-1] + b"x") == (422, "object-differs")
    assert refused(url, content + b"x") == (413, "object-too-large")
    assert refused(url.replace("part-0001", "part-0002"), content) == (403, "signature-bad")
    assert refused(url.replace(f"size={len(content)}", f"size={len(content) + 1}"), content + b"x") == (
        403,
        "signature-bad",
    )
    assert refused(url.replace("/v1/objects/shards", "/v1/objects/..%2f..%2fetc"), content) == (422, "bad-key")
    assert refused(url.replace("/v1/objects/shards", "/v1/objects/.shelfwire"), content) == (422, "bad-key")

    def pieces() -> Iterator[bytes]:  # no content-length: it is only found too long while it comes
        yield content
        yield b"x" * 10

    answer = house.http.put(url, content=pieces())
    assert answer.status_code == 413
    assert house.objects.size(declared.key) is None
    assert house.done(declared).status_code == 409
    assert house.send(announced, content).status_code == 201
    assert house.done(declared).is_success


def test_an_upload_that_is_cut_leaves_nothing_and_goes_again(house: House, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(200))
    content = (tmp_path / "shard").read_bytes()
    announced = house.announce(declared)

    def cut() -> Iterator[bytes]:
        yield content[:1000]
        raise ConnectionError("the line was cut")

    with pytest.raises(ConnectionError):
        house.http.put(announced.json()["put"]["url"], content=cut(), headers={"Content-Length": str(len(content))})
    assert house.done(declared).status_code == 409
    assert house.send(announced, content).status_code == 201
    assert house.done(declared).is_success


# -- a file that is not what was declared ------------------------------------------------------------------------------


def change(**values: object) -> Callable[[list[dict[str, Any]]], None]:
    return lambda given: given[1].update(values)


TORN = {
    "another device's frame": (change(device="shop-2", frame_id=f"shop-2/{'0' * 16}/2"), "speaks of device 'shop-2'"),
    "another day": (change(day="2026-03-02"), "speaks of day"),
    "an id of another frame": (change(frame_id="shop-1/0011223344556677/9"), "not made of its key"),
    "no run": (change(run="x", frame_id="shop-1/x/2"), "has no key"),
    "a frame twice": (lambda given: given.append(given[1]), "is there twice"),
    "another picture": (change(picture=b"\xff\xd8\xff other"), "whose digest it names"),
    "no picture": (change(picture=None), "whose digest it names"),
    "a camera's name that climbs": (change(camera="../x"), "names no camera"),
}


@pytest.mark.parametrize("what", sorted(TORN))
def test_a_row_that_speaks_of_what_is_not_its_own_makes_the_shard_bad(house: House, tmp_path: Path, what: str) -> None:
    tear, said = TORN[what]
    given = rows(5)
    tear(given)
    declared = write(tmp_path / "shard", given)
    answer = house.hand_over(declared, tmp_path / "shard")
    assert (answer.status_code, answer.json()["code"]) == (422, "shard-bad"), answer.text
    assert said in answer.json()["detail"]
    assert house.shard()[0] == "bad"
    assert said in house.shard()[1]
    assert house.objects.size(declared.key) is None
    assert house.objects.size(f"bad/{declared.key}") == declared.bytes, "what was bad is kept, to be looked at"
    assert house.done(declared).status_code == 422
    assert house.announce(declared).json()["state"] == "expected", "it may be tried again"


def bad_files(folder: Path) -> dict[str, tuple[Declared, str]]:
    given = rows(5)
    whole = write(folder / "whole", given)
    made = {
        "manifest of another device": (
            write(folder / "manifest of another device", given, device="shop-2"),
            "manifest says device",
        )
    }
    made["manifest with other rows"] = (write(folder / "manifest with other rows", given, rows=6), "manifest says rows")
    made["other rows declared"] = (whole.model_copy(update={"rows": 6}), "manifest says rows 5, 6 was declared")
    shutil.copy(folder / "whole", folder / "other rows declared")
    less = pa.schema([field for field in SCHEMA if field.name != "camera"])
    made["a column less"] = (write(folder / "a column less", given, schema=less), "column camera is missing")
    other = SCHEMA.set(SCHEMA.get_field_index("seq"), pa.field("seq", pa.string()))
    written = write(folder / "another type", [{**r, "seq": str(r["seq"])} for r in given], schema=other)
    made["another type"] = (written, "column seq holds")
    pq.write_table(pa.Table.from_pylist(given, schema=SCHEMA), folder / "no manifest")
    made["no manifest"] = (declare(folder / "no manifest", given), "no manifest")
    (folder / "not Parquet").write_bytes(b"PAR1 nothing PAR1")
    made["not Parquet"] = (declare(folder / "not Parquet", given), "no Parquet file")
    middle = bytearray((folder / "whole").read_bytes())
    middle[200:4000] = os.urandom(3800)
    (folder / "damaged inside").write_bytes(middle)
    made["damaged inside"] = (declare(folder / "damaged inside", given), "")
    return made


def test_a_file_that_is_no_such_shard_is_set_aside(house: House, tmp_path: Path) -> None:
    for name, (declared, said) in bad_files(tmp_path).items():
        answer = house.hand_over(declared, tmp_path / name)
        assert (answer.status_code, answer.json()["code"]) == (422, "shard-bad"), name
        assert said in answer.json()["detail"], name


def test_a_file_that_unfolds_to_more_memory_than_there_is_harms_nobody(house: House, tmp_path: Path) -> None:
    given = [row(1, picture=bytes(450_000_000), picture_sha256="0" * 64)]
    declared = write(tmp_path / "shard", given)
    assert declared.bytes < 1_000_000
    answer = house.hand_over(declared, tmp_path / "shard")
    assert (answer.status_code, answer.json()["code"]) == (422, "shard-bad"), answer.text
    assert house.http.get("/healthz").is_success


def test_more_columns_than_we_know_are_welcome(house: House, tmp_path: Path) -> None:
    more = SCHEMA.append(pa.field("lens", pa.string()))
    declared = write(tmp_path / "shard", [{**r, "lens": "wide"} for r in rows(3)], schema=more)
    assert house.hand_over(declared, tmp_path / "shard").is_success


# -- parts that are away -----------------------------------------------------------------------------------------------


def test_objects_that_are_away_are_tried_again(store: Store, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(3))
    with ExitStack() as stack:
        place = stack.enter_context(moto(tmp_path))
        house = stack.enter_context(house_at(store, open_objects(place.address, place.environment)))
        announced = house.announce(declared)
        house.send(announced, (tmp_path / "shard").read_bytes())
        gone = open_objects(place.address, {**place.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
        with house_at(store, gone) as elsewhere:
            for answer in (elsewhere.done(declared), elsewhere.announce(declared)):
                assert (answer.status_code, answer.json()["code"]) == (503, "objects-away")
                assert answer.headers["retry-after"]
        assert house.done(declared).is_success


def test_a_judge_that_is_killed_says_nothing_against_the_shard(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine short of memory is no reason to call a device's file bad."""
    declared = write(tmp_path / "shard", rows(3))
    house.send(house.announce(declared), (tmp_path / "shard").read_bytes())
    run = subprocess.run

    def kill(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return run(["sh", "-c", "kill -9 $$"], **{**options, "input": None})

    monkeypatch.setattr(intake_module.subprocess, "run", kill)
    answer = house.done(declared)
    assert (answer.status_code, answer.json()["code"]) == (503, "shard-busy")
    monkeypatch.undo()
    assert house.done(declared).is_success


def test_two_that_say_done_at_once_are_both_told_so(house: House, tmp_path: Path) -> None:
    declared = write(tmp_path / "shard", rows(100))
    house.send(house.announce(declared), (tmp_path / "shard").read_bytes())
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(house.done(declared))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.json() for answer in answers] == [{"state": "received"}] * 4
