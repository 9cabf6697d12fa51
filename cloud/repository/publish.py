"""Bundles in and out of the repository. Nothing is written before every cheap gate was passed on this machine."""

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile

from cloud.errors import Rejected
from cloud.repository.ceremony import online_signers
from cloud.repository.folder import Current, Published, RepositoryFolder, enough, sync_folder, unwritable
from models.bundle import MANIFEST, Bundle, BundleFile, parse_manifest
from models.classifier import Classifier
from models.errors import BundleError, PictureError
from models.setup import Setup
from wire.repository import BLOBS, MOST_BLOB_BYTES, MOST_MANIFEST_BYTES, TARGETS, bundle_target

HIGHEST: Final = "x-shelfwire-highest-release"
"""A field of the targets: the highest release of each name that was ever published."""
MOST_BUNDLE_BYTES: Final = 8 << 30
PIECE_BYTES: Final = 1 << 20


def publish(repository: RepositoryFolder, folder: Path, signers: Mapping[str, Signer]) -> Published:
    """Publish the bundle in `folder`, signed by the targets key among `signers`.

    Raises `Rejected`: ``publish-link``, ``publish-size``, ``publish-golden``, ``publish-release`` (the counter must go
    up), ``keys-missing``, and the bundle's own codes (``bundle-digest``, ``bundle-path``, ``bundle-golden``...).
    """
    bundle = gates(folder)
    with repository.locked():
        current, online = repository.read(), online_signers(repository)
        enough_to_publish(current, signers, online)
        highest = _highest(current)
        last, name, release = highest.get(bundle.ref.name, 0), bundle.ref.name, bundle.ref.release
        if release <= last:
            raise Rejected(
                "publish-release", f"{name} was published as release {last}, so {release} would be a step back",
                f'set "release" to {last + 1} or more and pack the bundle again; also for old bytes',
            )  # fmt: skip
        for file in bundle.manifest.files:
            _store(repository, bundle, file)
        raw = (folder / MANIFEST).read_bytes()
        target = TargetFile.from_data(bundle_target(name, release), raw, ["sha256"])
        if target.hashes["sha256"] != bundle.ref.digest:
            raise Rejected("bundle-digest", f"{MANIFEST} was changed meanwhile", "publish it again")
        one = _entry(bundle, len(raw), repository)
        target.unrecognized_fields["custom"] = {
            "version": one.version, "size_bytes": one.size_bytes, "published_at": one.published_at,
        }  # fmt: skip
        repository.write(f"{TARGETS}/{target.get_prefixed_paths()[0]}", raw)
        current.targets.signed.targets[target.path] = target
        current.targets.signed.unrecognized_fields[HIGHEST] = {**highest, name: release}
        repository.write_targets(current, signers, online)
    return one


def unpublish(repository: RepositoryFolder, name: str, release: int, signers: Mapping[str, Signer]) -> int:
    """Take a bundle back: no device accepts it any more. Gives how many bytes of files nobody needed were deleted.

    Raises `Rejected` (``publish-unknown``, ``keys-missing``).
    """
    with repository.locked():
        current = repository.read()
        target = current.targets.signed.targets.pop(bundle_target(name, release), None)
        if target is None:
            raise Rejected(
                "publish-unknown", f"{name} release {release} is not published", "shelfwire-cloud fleet list"
            )
        gone = repository.folder / TARGETS / target.get_prefixed_paths()[0]
        files = _named_in(gone)
        repository.write_targets(current, signers, online_signers(repository))
        gone.unlink(missing_ok=True)
        left = {sha256 for path in (repository.folder / TARGETS).rglob("*.json") for sha256 in _named_in(path)}
        return sum(_remove(repository.folder / BLOBS / sha256) for sha256 in files - left)


def enough_to_publish(current: Current, signers: Mapping[str, Signer], online: Mapping[str, Signer]) -> None:
    """Look for all keys before anything is written. Raises `Rejected` (``keys-missing``)."""
    for role, having in (("targets", signers), ("snapshot", online), ("timestamp", online)):
        enough(role, current.root.signed, having)


def gates(folder: Path) -> Bundle:
    """Load a bundle and try it here, as far as that is cheap. Raises `Rejected`, as `publish` does."""
    _refuse_links(folder)
    try:
        bundle = Bundle.load(folder)
        _check_sizes(bundle)
        for precision in bundle.manifest.models:
            with Classifier.open(bundle, Setup.from_json({"precision": precision}), strict=True) as classifier:
                classifier.check_golden()
    except (BundleError, PictureError) as error:
        raise Rejected(error.code, str(error), error.hint) from None
    return bundle


def _refuse_links(folder: Path) -> None:
    for path in [folder, *sorted(folder.rglob("*"))]:
        kind = path.lstat().st_mode if path.is_symlink() or path.exists() else stat.S_IFREG
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            raise Rejected("publish-link", f"{path} is a link or no file", "put the files themselves into the bundle")


def _check_sizes(bundle: Bundle) -> None:
    if not bundle.manifest.golden.inputs:
        raise Rejected(
            "publish-golden", "the bundle has no golden inputs, so no device could tell whether it runs right there",
            "add pictures with the scores that they must get, and pack the bundle again",
        )  # fmt: skip
    total_bytes = sum(file.size_bytes for file in bundle.manifest.files)
    largest = max(file.size_bytes for file in bundle.manifest.files)
    manifest_bytes = (bundle.folder / MANIFEST).stat().st_size
    if total_bytes > MOST_BUNDLE_BYTES or largest > MOST_BLOB_BYTES or manifest_bytes > MOST_MANIFEST_BYTES:
        raise Rejected(
            "publish-size",
            f"the bundle has {total_bytes} bytes, its largest file {largest} and {MANIFEST} {manifest_bytes}",
            f"at most {MOST_BUNDLE_BYTES}, {MOST_BLOB_BYTES} and {MOST_MANIFEST_BYTES} bytes; make the model smaller",
        )


def _entry(bundle: Bundle, manifest_bytes: int, repository: RepositoryFolder) -> Published:
    size_bytes = manifest_bytes + sum(file.size_bytes for file in bundle.manifest.files)
    at = repository.now().isoformat(timespec="seconds").replace("+00:00", "Z")
    ref = bundle.ref
    return Published(ref.name, ref.release, ref.version, ref.digest, size_bytes, at)


def _store(repository: RepositoryFolder, bundle: Bundle, file: BundleFile) -> None:
    """Copy a file to where its digest says, unless it is there; what is copied is checked again on the way."""
    place = repository.folder / BLOBS / file.sha256
    if _is_there(place, file):
        return
    half = place.with_name(f".{secrets.token_hex(8)}.new")
    digest, size_bytes = hashlib.sha256(), 0
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with (bundle.folder / file.path).open("rb") as source, half.open("wb") as target:
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                size_bytes += len(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        if (digest.hexdigest(), size_bytes) != (file.sha256, file.size_bytes):
            raise Rejected("bundle-digest", f"{file.path} was changed meanwhile", "publish it again")
        half.chmod(0o644)
        half.replace(place)
        sync_folder(place.parent)
    except OSError as error:
        raise unwritable(place, error) from None
    finally:
        half.unlink(missing_ok=True)


def _is_there(place: Path, file: BundleFile) -> bool:
    if not place.is_file() or place.stat().st_size != file.size_bytes:
        return False
    with place.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def _highest(current: Current) -> dict[str, int]:
    return dict(current.targets.signed.unrecognized_fields.get(HIGHEST, {}))


def _named_in(path: Path) -> set[str]:
    with contextlib.suppress(OSError, BundleError):
        return {file.sha256 for file in parse_manifest(path.read_bytes()).files}
    return set()


def _remove(blob: Path) -> int:
    try:
        size_bytes = blob.stat().st_size
    except FileNotFoundError:
        return 0
    blob.unlink()
    return size_bytes
