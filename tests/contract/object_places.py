"""Real places for objects, for the tests: a folder, and two programs that speak S3, on loopback and stopped by pid.

moto behaves as S3 does (conditional writes too) but looks at no signature; rclone checks signatures and their expiry
but knows no conditional write. Neither alone is enough.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import requests
from obstore.store import S3Store

KEY, SECRET, BUCKET = "AKIAEXAMPLE", "not-a-real-secret", "shelves"
START_S = 30.0


@dataclass(frozen=True)
class Place:
    """Where objects lie, and the environment that opens it."""

    kind: str
    address: str
    environment: Mapping[str, str]

    @property
    def knows_if_absent(self) -> bool:
        return self.kind != "rclone"

    @property
    def checks_signatures(self) -> bool:
        return self.kind != "moto"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a server until it answers; stop it by its pid."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "NO_PROXY": "*"})
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                requests.get(url, timeout=2)
                break
            except requests.ConnectionError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)  # a server tells nobody when it listens
        yield
    finally:
        process.terminate()
        process.wait(10)


def environment(url: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


@contextmanager
def moto(folder: Path) -> Iterator[Place]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, url, folder / "moto.log"):
        requests.put(f"{url}/{BUCKET}", timeout=10).raise_for_status()
        yield Place("moto", f"s3://{BUCKET}/some/prefix", environment(url))


@contextmanager
def rclone(folder: Path) -> Iterator[Place]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (folder / "served" / BUCKET).mkdir(parents=True)
    command = [
        str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key",
        f"{KEY},{SECRET}", "--config", str(folder / "none"), str(folder / "served"),
    ]  # fmt: skip
    with running(command, url, folder / "rclone.log"):
        yield Place("rclone", f"s3://{BUCKET}", environment(url))


@contextmanager
def elsewhere(folder: Path) -> Iterator[Place]:
    """A bucket of your own: SHELFWIRE_TEST_S3=s3://bucket/prefix with the AWS_* variables."""
    yield Place("s3", f"{os.environ['SHELFWIRE_TEST_S3']}/{folder.name}", os.environ)


@contextmanager
def folder_of_ours(folder: Path) -> Iterator[Place]:
    yield Place("folder", str(folder / "objects"), {})


PLACES = {"folder": folder_of_ours, "moto": moto, "rclone": rclone}
if "SHELFWIRE_TEST_S3" in os.environ:
    PLACES["s3"] = elsewhere


def empty(place: Place) -> None:
    """Delete every object of a bucket between tests."""
    bucket, _, prefix = place.address.removeprefix("s3://").partition("/")
    store = S3Store(
        bucket, prefix=prefix or None, endpoint=place.environment["AWS_ENDPOINT_URL"], region="us-east-1",
        access_key_id=KEY, secret_access_key=SECRET, virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )  # fmt: skip
    for page in obstore.list(store):
        for found in page:
            obstore.delete(store, found["path"])
