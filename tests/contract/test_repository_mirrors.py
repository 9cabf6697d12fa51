"""The port `Mirror` with all its adapters in one suite, and files fetched through it whatever the mirror does."""

import contextlib
import gzip
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from repository_servers import Wire, head, ours, plain, raw
from repository_world import Clock, Device, Owner, sha256

from agent.errors import Rejected, Retryable, ShelfwireError
from agent.link.download import Downloads
from agent.link.mirror import FolderMirror, Mirror, Part, safe_path
from agent.link.mirror_http import HttpMirror

BLOB = bytes(range(256)) * 2000
DIGEST = sha256(BLOB)
PATH = f"blobs/{DIGEST}"
PACKED = gzip.compress(b"\0" * 9_000_000)
SHA = {"sha256": DIGEST}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository's folder."""
    folder = tmp_path / "repository"
    for name, content in {"metadata/timestamp.json": b"{}", PATH: BLOB}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(params=["folder", "serve", "plain server"])
def mirror(request: pytest.FixtureRequest, folder: Path) -> Iterator[Mirror]:
    with contextlib.ExitStack() as stack:
        if request.param == "folder":
            yield FolderMirror(folder)
        elif request.param == "serve":
            yield HttpMirror(stack.enter_context(ours(folder)))
        else:
            yield HttpMirror(stack.enter_context(plain(folder)))


def downloads(mirror: Mirror, clock: Clock | None = None, **more: object) -> Downloads:
    return Downloads(mirror, clock or Clock(), **{"bytes_per_second": 1 << 40, **more})


def test_a_mirror_gives_files_and_parts_of_them(mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.read("metadata/timestamp.json", 100) == b"{}"
    with mirror.open(PATH, 0) as part:
        assert (part.start, b"".join(part.pieces)) == (0, BLOB)
    with mirror.open(PATH, 1000) as part:
        assert part.start in (0, 1000)
        assert b"".join(part.pieces) == BLOB[part.start :]


def test_a_mirror_says_what_is_missing_and_what_is_too_large(mirror: Mirror) -> None:
    for path in ("metadata/2.root.json", "blobs/" + "0" * 64):
        with pytest.raises(Retryable) as caught:
            mirror.read(path, 100)
        assert caught.value.code == "update-missing"
    with pytest.raises(Rejected) as caught_large:
        mirror.read(PATH, 1000)
    assert caught_large.value.code == "update-size"
    assert mirror.read("metadata/timestamp.json", 2) == b"{}"  # and goes on


def test_a_file_is_fetched_over_every_road_and_resumed(mirror: Mirror, tmp_path: Path) -> None:
    into = tmp_path / "blob"
    (tmp_path / "blob.part").write_bytes(BLOB[:100_000])
    downloads(mirror).fetch(PATH, SHA, len(BLOB), into)
    assert into.read_bytes() == BLOB
    assert not (tmp_path / "blob.part").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "./a",
        "a\0b",
        "a\\b",
        "",
        "http://evil.example/x",
        "C:/x",
        "a/" * 600 + "b",
    ],
)
def test_a_path_stays_below_its_base(path: str, folder: Path) -> None:
    with pytest.raises(Rejected) as caught:
        safe_path(path)
    assert caught.value.code == "update-path"
    for mirror in (FolderMirror(folder), HttpMirror("http://127.0.0.1:9")):
        with pytest.raises(Rejected):
            mirror.read(path, 100)


def test_links_and_pipes_on_a_stick_are_not_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", "utf-8")
    (folder / "metadata" / "1.root.json").symlink_to(secret)
    (folder / "targets").symlink_to(tmp_path)
    os.mkfifo(folder / "metadata" / "2.root.json")
    for path in ("metadata/1.root.json", "targets/secret", "metadata/2.root.json", "metadata"):
        with pytest.raises(ShelfwireError) as caught:
            FolderMirror(folder).read(path, 100)
        assert caught.value.code in ("update-path", "update-net")


@pytest.mark.parametrize(
    ("path", "status"),
    [("../repository-keys/timestamp-1.key", 404), ("metadata/.timestamp.json.new", 404), ("metadata", 404),
     ("blobs/", 404), ("metadata/..%2f..%2fkeys", 404), ("blobs/" + DIGEST.upper(), 404),
     ("metadata/timestamp.json", 200)],
)  # fmt: skip
def test_our_server_gives_nothing_but_the_repository(folder: Path, path: str, status: int) -> None:
    keys = folder.parent / "repository-keys"
    keys.mkdir()
    (keys / "timestamp-1.key").write_text("secret", "utf-8")
    with ours(folder) as url:
        host, port = url.removeprefix("http://").removesuffix("/repository").split(":")
        with socket.create_connection((host, int(port))) as connection:  # a client would tidy the path
            connection.sendall(f"GET /repository/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"secret" not in answer


def test_our_server_speaks_of_parts_and_of_what_is_kept_already(folder: Path) -> None:
    with ours(folder) as url:
        session = HttpMirror(url).session
        whole = session.get(f"{url}/{PATH}")
        assert whole.headers["ETag"] == f'"{DIGEST}"'
        assert "immutable" in whole.headers["Cache-Control"]
        part = session.get(f"{url}/{PATH}", headers={"Range": "bytes=10-19", "If-Range": f'"{DIGEST}"'})
        assert (part.status_code, part.content) == (206, BLOB[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(BLOB)}"
        other = session.get(f"{url}/{PATH}", headers={"Range": "bytes=10-19", "If-Range": '"another"'})
        assert other.status_code == 200
        assert session.get(f"{url}/{PATH}", headers={"If-None-Match": f'"{DIGEST}"'}).status_code == 304
        assert session.get(f"{url}/{PATH}", headers={"Range": "bytes=99999999-"}).status_code == 416
        empty = session.head(f"{url}/{PATH}")
        assert (empty.headers["Content-Length"], empty.content) == (str(len(BLOB)), b"")
        assert "no-cache" in session.get(f"{url}/metadata/timestamp.json").headers["Cache-Control"]


# A server that fails, or means harm


def cut_after(count: int, log: list[str]) -> Callable[[socket.socket, str], None]:
    """Sends at most `count` bytes of the blob each time, then cuts the line."""

    def answer(connection: socket.socket, asked: str) -> None:
        log.append(asked)
        line = next((one for one in asked.split("\r\n") if one.lower().startswith("range: ")), "")
        start = int(line.partition("=")[2].rstrip("-") or 0)
        lines = [f"Content-Length: {len(BLOB) - start}", f"Content-Range: bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"]
        connection.sendall(head("206 Partial Content" if line else "200 OK", *lines) + BLOB[start : start + count])

    return answer


def test_a_cut_line_costs_no_byte_twice(tmp_path: Path) -> None:
    asked: list[str] = []
    with raw(cut_after(150_000, asked)) as url:
        wire = Wire(url)
        into = tmp_path / "blob"
        for _ in range(3):
            with pytest.raises(Retryable) as caught:
                downloads(HttpMirror(wire.url)).fetch(PATH, SHA, len(BLOB), into)
            assert caught.value.code == "update-net"
        downloads(HttpMirror(wire.url)).fetch(PATH, SHA, len(BLOB), into)
        wire.close()
    assert into.read_bytes() == BLOB
    assert len(asked) == 4
    assert wire.down_bytes < len(BLOB) + 4 * 300


def answering(content: bytes) -> Callable[[socket.socket, str], None]:
    return lambda connection, _: connection.sendall(content)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (head("302 Found", "Location: http://127.0.0.1:9/x", "Content-Length: 0"), "update-net"),
        (head("200 OK", "Content-Length: 900000"), "update-size"),
        (head("200 OK", "Content-Length: 9000", "Content-Encoding: gzip") + PACKED, "update-net"),
        (head("500 Internal Server Error", "Content-Length: 0"), "update-net"),
        (head("404 Not Found", "Content-Length: 0"), "update-missing"),
        (head("403 Forbidden", "Content-Length: 0"), "update-missing"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: y\r\n" * 50_000, "update-net"),
        (b"not http at all\r\n\r\n", "update-net"),
        (b"", "update-net"),
        (head("200 OK", "Content-Length: 50") + b"short", "update-net"),
    ],
    ids=["redirect", "too large", "packed", "fault", "missing", "hidden", "heads", "no http", "nothing", "short"],
)  # fmt: skip
def test_what_a_server_may_answer_to_a_request_for_metadata(answer: bytes, code: str) -> None:
    with raw(answering(answer)) as url, pytest.raises(ShelfwireError) as caught:
        HttpMirror(url).read("metadata/timestamp.json", 16_000)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        head("206 Partial Content", "Content-Range: bytes 7-99/100", "Content-Length: 5") + b"12345",
        head("206 Partial Content", "Content-Length: 5") + b"12345",
        head("206 Partial Content", "Content-Range: elephants", "Content-Length: 5") + b"12345",
    ],
)
def test_a_part_from_elsewhere_is_not_appended(answer: bytes, tmp_path: Path) -> None:
    (tmp_path / "blob.part").write_bytes(BLOB[:100])
    with raw(answering(answer)) as url, pytest.raises(Retryable) as caught:
        downloads(HttpMirror(url)).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert caught.value.code == "update-net"
    assert (tmp_path / "blob.part").read_bytes() == BLOB[:100]


def test_a_server_that_drips_is_let_go(tmp_path: Path) -> None:
    """Time is the test's: each look at the clock finds 25 s gone."""
    ticks = iter(range(0, 10**9, 25))
    stop = threading.Event()

    def drip(connection: socket.socket, _: str) -> None:
        connection.sendall(head("200 OK", f"Content-Length: {len(BLOB)}"))
        while not stop.wait(0.005):
            connection.sendall(b"x")

    with raw(drip) as url:
        mirror = HttpMirror(url, now=lambda: float(next(ticks)))
        with pytest.raises(Retryable) as caught:
            downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
        assert "slowly" in str(caught.value)
        with pytest.raises(Retryable) as caught:
            mirror.read("metadata/timestamp.json", len(BLOB))
        assert "slowly" in str(caught.value)
        stop.set()


def test_a_refused_connection_names_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Retryable) as caught:
        HttpMirror(f"http://127.0.0.1:{port}").read("metadata/timestamp.json", 100)
    assert caught.value.code == "update-net"
    assert "nothing listens" in str(caught.value)


# Downloads


class Pieces:
    """A mirror that gives the blob in pieces of 10 kB."""

    where = "the mirror"
    told_at = None

    def __init__(self, content: bytes = BLOB) -> None:
        self.content = content
        self.starts: list[int] = []

    def read(self, path: str, most_bytes: int) -> bytes:
        raise AssertionError(path)

    @contextlib.contextmanager
    def open(self, path: str, start: int) -> Iterator[Part]:
        self.starts.append(start)
        rest = self.content[start:]
        yield Part(start, (rest[i : i + 10_000] for i in range(0, len(rest), 10_000)))


def test_the_cap_on_bandwidth_holds(tmp_path: Path) -> None:
    clock = Clock()
    began_ns = clock.boot_ns
    downloads(Pieces(), clock, bytes_per_second=64_000).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    took_s = (clock.boot_ns - began_ns) / 1e9
    assert took_s == pytest.approx((len(BLOB) - 256 * 1024) / 64_000, abs=0.5)


def test_the_gate_is_asked_before_each_piece_and_stops_it_in_between(tmp_path: Path) -> None:
    def gate(done_bytes: int) -> None:
        seen.append(done_bytes)
        if done_bytes >= 200_000:
            raise Retryable("update-window", "the window has ended", "")

    seen: list[int] = []
    mirror = Pieces()
    with pytest.raises(Retryable) as caught:
        downloads(mirror, gate=gate).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert caught.value.code == "update-window"
    assert seen == list(range(0, 200_001, 10_000))
    downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert mirror.starts == [0, 200_000]


def test_a_stop_ends_a_download_and_keeps_what_there_is(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Retryable) as caught:
        downloads(Pieces(), stop=stop).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert caught.value.code == "update-stopped"
    assert (tmp_path / "blob.part").stat().st_size == 10_000


def test_a_full_disk_is_seen_before_anything_is_fetched(tmp_path: Path) -> None:
    mirror = Pieces()
    keep_free = shutil.disk_usage(tmp_path).free
    with pytest.raises(Retryable) as caught:
        downloads(mirror, keep_free_bytes=keep_free).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert (caught.value.code, mirror.starts) == ("update-space", [])


def test_a_part_that_was_spoiled_is_fetched_anew(tmp_path: Path) -> None:
    mirror = Pieces()
    (tmp_path / "blob.part").write_bytes(b"spoiled" * 1000)
    with pytest.raises(Retryable) as caught:
        downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert caught.value.code == "update-digest"
    downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert mirror.starts == [7000, 0]
    (tmp_path / "blob").unlink()
    (tmp_path / "blob.part").write_bytes(BLOB + b"more than there is")
    downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert mirror.starts[2:] == [0]


def test_a_whole_part_needs_no_line(tmp_path: Path) -> None:
    """A power cut came between the last byte and the name."""
    mirror = Pieces()
    (tmp_path / "blob.part").write_bytes(BLOB)
    downloads(mirror).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert mirror.starts == []


def test_a_link_in_place_of_a_part_or_a_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(BLOB)
    (tmp_path / "blob").symlink_to(other)
    (tmp_path / "blob.part").symlink_to(tmp_path / "victim")
    downloads(Pieces()).fetch(PATH, SHA, len(BLOB), tmp_path / "blob")
    assert not (tmp_path / "blob").is_symlink()
    assert not (tmp_path / "victim").exists()


def test_a_file_described_by_nothing_is_not_fetched(tmp_path: Path) -> None:
    for hashes in ({}, {"md2": "00"}):
        with pytest.raises(ShelfwireError) as caught:
            downloads(Pieces()).fetch(PATH, hashes, len(BLOB), tmp_path / "blob")
        assert caught.value.code == "update-digest"


# What a check costs


def test_a_check_that_finds_nothing_new_costs_under_two_kilobytes(tmp_path: Path) -> None:
    """Every byte of HTTP in both directions, request lines and headers too."""
    owner = Owner()
    folder = tmp_path / "repository"
    for name, content in owner.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    device = Device(tmp_path / "device", owner)
    with ours(folder) as url:
        device.trust.refresh(HttpMirror(url))
        wire = Wire(url)
        device.restart()
        device.trust.refresh(HttpMirror(wire.url, agent="0.1.0"))
        wire.close()
    assert wire.connections == 1
    assert 500 < wire.up_bytes + wire.down_bytes < 2000, (wire.up_bytes, wire.down_bytes)
    print(f"a check: {wire.up_bytes} bytes up, {wire.down_bytes} down")
