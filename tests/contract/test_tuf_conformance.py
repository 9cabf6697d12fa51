"""The command line that the public suite tuf-conformance drives, and what that suite looks at: exit codes, the metadata
trusted, the artifacts stored, and the requests made. Each command is a call of the script's `main` on a real server."""

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from repository_world import Owner, utc_now
from tuf.api.metadata import DelegatedRole, Delegations, Metadata

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("tuf_conformance", ROOT / "scripts" / "tuf_conformance.py")
assert _spec is not None
assert _spec.loader is not None
client = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(client)


class Suite:
    """A repository on a server, and a client under test with its folders."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.owner = owner
        self.metadata = folder / "metadata"
        self.artifacts = folder / "targets"
        self.metadata.mkdir()
        self.artifacts.mkdir()
        self.initial = folder / "initial_root.json"
        self.initial.write_bytes(owner.files["metadata/1.root.json"])
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/repo/")
                asked.append(path.removeprefix("metadata/").removeprefix("targets/"))
                content = owner.lies.get(path, owner.files.get(path))
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)  # one request at a time, as the suite's
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/repo"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.server_close()

    def init(self) -> int:
        return client.main(["--metadata-dir", str(self.metadata), "init", str(self.initial)])

    def refresh(self) -> int:
        self.asked.clear()
        return client.main(["--metadata-url", f"{self.url}/metadata", "--metadata-dir", str(self.metadata), "refresh"])

    def download(self, name: str) -> int:
        self.asked.clear()
        return client.main([
            "--metadata-url", f"{self.url}/metadata", "--metadata-dir", str(self.metadata), "--target-name", name,
            "--target-dir", str(self.artifacts), "--target-base-url", f"{self.url}/targets", "download",
        ])  # fmt: skip

    def version(self, role: str) -> int:
        return Metadata.from_file(str(self.metadata / f"{role}.json")).signed.version

    def stored(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.artifacts.rglob("*") if path.is_file())

    def publish(self) -> None:
        self.owner.publish()


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    suite = Suite(tmp_path, Owner(utc_now()))
    yield suite
    suite.close()


def test_init_asks_nothing_and_refresh_asks_in_order(suite: Suite) -> None:
    assert suite.init() == 0
    assert suite.asked == []
    assert suite.refresh() == 0
    assert suite.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert {role: suite.version(role) for role in ("root", "timestamp", "snapshot", "targets")} == dict.fromkeys(
        ("root", "timestamp", "snapshot", "targets"), 1
    )
    assert sorted(path.name for path in suite.metadata.glob("*.json")) == [
        "root.json", "snapshot.json", "targets.json", "timestamp.json",
    ]  # fmt: skip
    assert suite.refresh() == 0
    assert suite.asked == ["2.root.json", "timestamp.json"]


def test_a_root_that_is_not_valid_fails_without_a_request(suite: Suite) -> None:
    good = suite.owner.files["metadata/1.root.json"]
    for spoiled in (b'"version":', b'"sig":"'):
        assert spoiled in good
        suite.initial.write_bytes(good.replace(spoiled, spoiled + b"17"))
        suite.init()
        assert suite.refresh() == 1
        assert suite.asked == []


def test_a_download_refreshes_first_and_keeps_what_it_has(suite: Suite) -> None:
    suite.init()
    assert suite.download("nonexistent artifact") == 1
    assert suite.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    target = suite.owner.target(suite.owner.targets.signed, "path/to/a.txt", b"first")
    suite.publish()
    assert suite.download("path/to/a.txt") == 0
    assert suite.asked[-1] == target.get_prefixed_paths()[0]
    assert suite.stored() == [b"first"]
    assert suite.download("path/to/a.txt") == 0
    assert suite.asked == ["2.root.json", "timestamp.json"]
    suite.owner.target(suite.owner.targets.signed, "path/to/a.txt", b"second")
    suite.publish()
    assert suite.download("path/to/a.txt") == 0
    assert suite.stored() == [b"second"]  # under the same name


def test_an_artifact_that_was_replaced_is_not_stored(suite: Suite) -> None:
    suite.init()
    target = suite.owner.target(suite.owner.targets.signed, "a.txt", b"good")
    suite.publish()
    assert suite.download("a.txt") == 0
    other = suite.owner.target(suite.owner.targets.signed, "b.txt", b"fine")
    suite.publish()
    for path in (target, other):
        suite.owner.lies[f"targets/{path.get_prefixed_paths()[0]}"] = b"evil"
    assert suite.download("b.txt") == 1
    assert suite.download("a.txt") == 0
    assert suite.stored() == [b"good"]


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole"])
def test_unusual_role_names_are_quoted(suite: Suite, role: str) -> None:
    owner = suite.owner
    targets = owner.delegate(role, ["*"])
    owner.publish_delegated(role, targets)
    owner.files[f"metadata/1.{quote(role, '')}.json"] = owner.files.pop(f"metadata/1.{role}.json")
    suite.publish()
    suite.init()
    assert suite.download("nonexistent") == 1
    assert f"1.{quote(role, '')}.json" in suite.asked
    assert len(list(suite.metadata.glob("*.json"))) == 5


def test_delegations_are_walked_in_order_until_one_ends_it(suite: Suite) -> None:
    """A before B by their order; C is terminating, so that D is never asked."""
    owner, top = suite.owner, suite.owner.targets.signed
    top.delegations = Delegations({}, {})
    assert top.delegations.roles is not None
    told = (("A", ["*.pkg"], False), ("B", ["*"], False), ("C", ["*.txt"], True), ("D", ["*"], False))
    for name, paths, terminating in told:
        role = owner.delegate(name, paths)
        top.delegations.roles[name] = DelegatedRole(
            name, top.delegations.roles[name].keyids, 1, terminating=terminating, paths=paths
        )
        owner.publish_delegated(name, role)
    suite.publish()
    suite.init()
    assert suite.download("file.txt") == 1
    assert [name for name in suite.asked if name[2:].startswith(("A", "B", "C", "D"))] == ["1.B.json", "1.C.json"]


def test_old_and_expired_metadata_fail_and_change_nothing(suite: Suite) -> None:
    suite.init()
    assert suite.refresh() == 0
    old = dict(suite.owner.files)
    suite.publish()
    assert suite.refresh() == 0
    suite.owner.files, new = old, suite.owner.files
    assert suite.refresh() == 1
    assert suite.version("timestamp") == 2
    suite.owner.files = new
    suite.owner.publish(timestamp_days=-1)
    assert suite.refresh() == 1
    assert suite.version("timestamp") == 2


def test_a_changed_timestamp_of_the_same_version_is_not_taken(suite: Suite) -> None:
    suite.init()
    assert suite.refresh() == 0
    suite.owner.timestamp.signed.version -= 1
    suite.owner.timestamp.signed.snapshot_meta.version = 100
    suite.owner.publish_timestamp()
    assert suite.refresh() == 0
    kept = json.loads((suite.metadata / "timestamp.json").read_bytes())
    assert kept["signed"]["meta"]["snapshot.json"]["version"] == 1


def test_fields_that_nobody_knows_are_kept_in_what_is_signed(suite: Suite) -> None:
    suite.init()
    root = suite.owner.root.signed
    root.unrecognized_fields["custom-field"] = "value"
    root.keys[root.roles["root"].keyids[0]].unrecognized_fields["extra"] = {"a": 1}
    suite.owner.publish_root()
    assert suite.refresh() == 0
    assert suite.version("root") == 2


def test_a_second_init_and_a_later_root_are_followed(suite: Suite) -> None:
    suite.init()
    suite.owner.publish_root()
    suite.publish()
    assert suite.refresh() == 0
    assert suite.init() == 0
    assert suite.refresh() == 0
    assert suite.version("root") == 2


def test_the_executable_itself(suite: Suite) -> None:
    entry = [str(ROOT / "scripts" / "tuf-conformance-client")]
    if not (ROOT / ".venv").exists():
        entry = [sys.executable, str(ROOT / "scripts" / "tuf_conformance.py")]
    words = [*entry, "--metadata-dir", str(suite.metadata)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    assert subprocess.run([*words, "init", str(suite.initial)], env=environment, check=False).returncode == 0
    refresh = [*words, "--metadata-url", f"{suite.url}/metadata", "refresh"]
    assert subprocess.run(refresh, env=environment, check=False).returncode == 0
    suite.owner.publish(timestamp_days=-1)
    failed = subprocess.run(refresh, env=environment, check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "update-expired" in failed.stderr
