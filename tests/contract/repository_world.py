"""A repository in memory whose owner signs what a test says, and a device that trusts its first root."""

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from world import FakeClock

from agent.core import floor
from agent.link.download import Downloads
from agent.link.mirror import Missing, Part, gather, safe_path
from agent.link.repository import ModelRepository
from agent.link.trust import Trust
from wire.orders import ModelOrder
from wire.repository import SIGNED_AT

TODAY = floor.BUILT + timedelta(days=30)
DAY_S = 86400.0
TOP = ("timestamp", "snapshot", "targets")


class Clock(FakeClock):
    """The device's clock: it stands at `TODAY` until the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_ns = int(TODAY.timestamp()) * 10**9
        self.synced = True

    def set(self, moment: datetime) -> None:
        self.wall_ns = int(moment.timestamp()) * 10**9

    def trust(self):
        return "synced" if self.synced else "unsure"


class Owner:
    """Keys and metadata of a repository; as a mirror it gives out `files`, what stands in `lies` first."""

    where = "the mirror"

    def __init__(self, now: datetime = TODAY) -> None:
        self.now = now
        self.told_at: datetime | None = None
        self.files: dict[str, bytes] = {}
        self.lies: dict[str, bytes | Iterator[bytes]] = {}
        self.asked: list[str] = []
        self.keys: dict[str, list[CryptoSigner]] = {}
        self.root = Metadata(Root(consistent_snapshot=True))
        self.timestamp = Metadata(Timestamp())
        self.snapshot = Metadata(Snapshot())
        self.targets = Metadata(Targets())
        for role, count in (("root", 3), ("targets", 1), ("snapshot", 1), ("timestamp", 1)):
            self.keys[role] = [self.add_key(role) for _ in range(count)]
        self.root.signed.roles["root"].threshold = 2
        self.root.signed.version = 0
        self.publish_root()
        self.publish()

    # What an honest owner does

    def add_key(self, role: str) -> CryptoSigner:
        signer = CryptoSigner.generate_ed25519()
        self.root.signed.add_key(signer.public_key, role)
        return signer

    def rotate(self, role: str) -> list[CryptoSigner]:
        """Exchange all keys of a role; gives the old ones. A new root has to be published."""
        old = self.keys[role]
        for signer in old:
            self.root.signed.revoke_key(signer.public_key.keyid, role)
        self.keys[role] = [self.add_key(role) for _ in old]
        return old

    def publish_root(self, *also: CryptoSigner, days: float = 1000) -> None:
        """Publish the next root, signed by its own keys and others."""
        self.root.signed.version += 1
        self.root.signed.expires = self.now + timedelta(days=days)
        self._sign(self.root, [*self.keys["root"], *also])
        self.files[f"metadata/{self.root.signed.version}.root.json"] = self.root.to_bytes()

    def publish(self, *, timestamp_days: float = 7, snapshot_days: float = 30, targets_days: float = 365) -> None:
        """Publish targets, snapshot and timestamp as they are now, each as its next version."""
        self.targets.signed.expires = self.now + timedelta(days=targets_days)
        raw = self.put("targets", self.targets)
        self.snapshot.signed.meta["targets.json"] = meta(self.targets.signed.version, raw)
        self.publish_snapshot(timestamp_days=timestamp_days, snapshot_days=snapshot_days)
        self.targets.signed.version += 1

    def publish_snapshot(self, *, timestamp_days: float = 7, snapshot_days: float = 30) -> None:
        self.snapshot.signed.expires = self.now + timedelta(days=snapshot_days)
        raw = self.put("snapshot", self.snapshot)
        self.timestamp.signed.snapshot_meta = meta(self.snapshot.signed.version, raw)
        self.snapshot.signed.version += 1
        self.publish_timestamp(days=timestamp_days)

    def publish_timestamp(self, *, days: float = 7, signed_at: datetime | None = None) -> None:
        self.timestamp.signed.expires = self.now + timedelta(days=days)
        self.timestamp.signed.unrecognized_fields[SIGNED_AT] = (signed_at or self.now).isoformat()
        self._sign(self.timestamp, self.keys["timestamp"])
        self.files["metadata/timestamp.json"] = self.timestamp.to_bytes()
        self.timestamp.signed.version += 1

    def put(self, role: str, metadata: Metadata) -> bytes:
        self._sign(metadata, self.keys[role])
        raw = metadata.to_bytes()
        self.files[f"metadata/{metadata.signed.version}.{role}.json"] = raw
        return raw

    def add(self, name: str, release: int, blobs: dict[str, bytes], version: str = "") -> ModelOrder:
        """Add a bundle to the targets; gives the order for it. It counts from the next `publish` on."""
        files = [{"path": p, "sha256": sha256(c), "size_bytes": len(c)} for p, c in blobs.items()]
        raw = json.dumps({"name": name, "release": release, "files": files}).encode()
        target = self.target(self.targets.signed, f"models/{name}/{release}/bundle.json", raw)
        target.unrecognized_fields["custom"] = {"version": version or f"{release}.0"}
        for content in blobs.values():
            self.files[f"blobs/{sha256(content)}"] = content
        return ModelOrder(name=name, version=version or f"{release}.0", release=release, digest=sha256(raw))

    def target(self, role: Targets, path: str, content: bytes) -> TargetFile:
        target = TargetFile.from_data(path, content, ["sha256"])
        role.targets[path] = target
        self.files[f"targets/{target.get_prefixed_paths()[0]}"] = content
        return target

    def delegate(self, name: str, paths: list[str]) -> Targets:
        """Let a new key speak for some paths; gives its targets, to be published by `publish_delegated`."""
        signer = CryptoSigner.generate_ed25519()
        role = DelegatedRole(name, [], 1, terminating=False, paths=paths)
        top = self.targets.signed
        top.delegations = top.delegations or Delegations({}, {})
        assert top.delegations.roles is not None
        top.delegations.roles[name] = role
        top.add_key(signer.public_key, name)
        self.keys[name] = [signer]
        return Targets(version=1, expires=self.now + timedelta(days=100))

    def publish_delegated(self, name: str, role: Targets, by: list[CryptoSigner] | None = None) -> None:
        metadata = Metadata(role)
        self._sign(metadata, by or self.keys[name])
        raw = metadata.to_bytes()
        self.files[f"metadata/{role.version}.{name}.json"] = raw
        self.snapshot.signed.meta[f"{name}.json"] = meta(role.version, raw)

    def _sign(self, metadata: Metadata, signers: list[CryptoSigner]) -> None:
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)

    # What a thief of keys, or of the mirror, does

    def forged(self, metadata: Metadata, signers: list[CryptoSigner], **fields: object) -> bytes:
        """A copy with other fields, signed by these keys."""
        forged = copy.deepcopy(metadata)
        for name, value in fields.items():
            setattr(forged.signed, name, value)
        self._sign(forged, signers)
        return forged.to_bytes()

    def kept(self) -> dict[str, bytes]:
        return dict(self.files)

    # What a mirror does

    def read(self, path: str, most_bytes: int) -> bytes:
        with self.open(path, 0) as part:
            return gather(part, path, most_bytes)

    @contextlib.contextmanager
    def open(self, path: str, start: int) -> Iterator[Part]:
        self.asked.append(safe_path(path))
        content = self.lies.get(path, self.files.get(path))
        if content is None:
            raise Missing("update-missing", f"no {path}", "")
        yield Part(start, iter([content[start:]]) if isinstance(content, bytes) else content)


class Device:
    """A device with its clock and folder, which was given the owner's first root."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.folder = folder
        self.owner = owner
        self.clock = Clock()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root.json").write_bytes(owner.files["metadata/1.root.json"])
        self.restart()

    def restart(self) -> None:
        """A new process: only what is on the disk is left."""
        self.trust = Trust(self.folder / "trust", self.clock, self.folder / "root.json")
        downloads = Downloads(self.owner, self.clock, bytes_per_second=1 << 40)
        self.repository = ModelRepository(self.trust, self.owner, downloads, self.folder)

    def refresh(self) -> None:
        self.restart()
        self.repository.refresh()

    def versions(self) -> dict[str, int]:
        """The versions that the disk says are trusted."""
        found = {}
        for role in ("root", *TOP):
            with contextlib.suppress(FileNotFoundError):
                found[role] = json.loads((self.folder / "trust" / f"{role}.json").read_bytes())["signed"]["version"]
        return found

    def state(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted((self.folder / "trust").rglob("*")) if p.is_file()}


def meta(version: int, raw: bytes) -> MetaFile:
    return MetaFile.from_data(version, raw, ["sha256"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def utc_now() -> datetime:
    return datetime.now(UTC)
