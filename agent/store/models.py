"""The device's models: a folder of bundles by content, and two links that say which one answers.

    models/blobs/SHA256            files, verified; shared between bundles by hard links
    models/bundles/KEY/            a whole bundle; `ok` is written last, and without it the folder is nothing
    models/current, previous       links to bundles/KEY, replaced by rename
    models/journal.json            what is under way (`agent.store.journal`); written before a link is touched
    models/failed-*/               what was known of models that failed, the newest few

The journal decides which bundle `current` must name; `recover` makes it so at every start. A `current` that is not
whole any more gives way to `previous`, and without either the configured bundle answers.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from agent.core import lifecycle
from agent.core.updates import Entry, Links
from agent.durable import sync_folder, write_file
from agent.errors import Rejected, Retryable
from agent.store.journal import Journal, broken
from models.bundle import MANIFEST, Bundle, BundleFile, Manifest, inside, parse_manifest
from models.errors import BundleError

log = logging.getLogger(__name__)

Link = Literal["current", "previous"]
OK: Final = "ok"
KEY: Final = re.compile(r"[0-9a-f]{16}")
FAILED_KEPT: Final = 3
"""Folders with diagnostics that are kept."""
FAILED_BYTES: Final = 1 << 20
"""What one of them may take."""
BUNDLE_CODES: Final = {
    "bundle-path": "update-path",
    "bundle-digest": "update-digest",
    "bundle-file-missing": "update-digest",
    "bundle-runtime": "update-incompatible",
    "bundle-golden": "update-golden",
    "model-load": "update-compile",
    "bundle-label-count": "update-compile",
    "bundle-input": "update-compile",
    "model-output": "update-golden",
    "model-device": "update-compile",
    "model-run": "update-compile",
}
"""What the bundle's own errors are as ends of an update; others are ``update-bundle``."""


def refused(error: BundleError) -> Rejected:
    """Say what is wrong with an ordered bundle as the end of its update."""
    return Rejected(BUNDLE_CODES.get(error.code, "update-bundle"), f"{error} [{error.code}]", error.hint)


def key_of(digest: str) -> str:
    """Give the name of a bundle's folder."""
    return digest[:16]


class Models:
    """The store in `folder`. Changes are made by whoever holds the journal's lock; see each method."""

    def __init__(self, folder: Path, keep_free_bytes: int = 0) -> None:
        self.folder = folder
        self._keep_free_bytes = keep_free_bytes
        self.journal = Journal(folder)
        self._bundles = folder / "bundles"
        self._blobs = folder / "blobs"

    # What is there.

    def links(self) -> Links:
        """Tell which bundles the links name, whole or not."""
        return Links(current=self._named("current"), previous=self._named("previous"))

    def _named(self, link: Link) -> str | None:
        try:
            target = Path((self.folder / link).readlink())
        except OSError:
            return None
        return target.name if target.parent.name == "bundles" and KEY.fullmatch(target.name) else None

    def bundle(self, key: str | None) -> Bundle | None:
        """Load a bundle and check every file of it; None when it is not there, not finished or not whole."""
        if key is None or not KEY.fullmatch(key):
            return None
        folder = self._bundles / key
        try:
            if (folder / OK).read_bytes().decode("ascii", "replace").strip()[:16] != key:
                return None
            bundle = Bundle.load(folder)
        except (OSError, BundleError):
            return None
        return bundle if key_of(bundle.ref.digest) == key else None

    def current(self) -> Bundle | None:
        """Give the bundle that answers by the links; None when the configured one does."""
        return self.bundle(self._named("current"))

    def held(self) -> list[str]:
        """List the folders of bundles, finished or not."""
        with contextlib.suppress(OSError):
            return sorted(p.name for p in self._bundles.iterdir() if KEY.fullmatch(p.name))
        return []

    # Bringing one in: sync, under the lock.

    def blob(self, sha256: str) -> Path:
        """Give the place of a file by its content."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        return self._blobs / sha256

    def missing(self, manifest: Manifest) -> list[BundleFile]:
        """List the files that are not here yet, each content once."""
        wanted = {file.sha256: file for file in manifest.files}
        return [file for sha256, file in wanted.items() if not self._has(file, self.blob(sha256))]

    def _has(self, file: BundleFile, path: Path) -> bool:
        return path.is_file() and not path.is_symlink() and path.stat().st_size == file.size_bytes

    def need_room(self, size_bytes: int) -> None:
        """Check that the disk has room for so much more. Raises `Retryable` (``update-space``)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self.folder)
        free_bytes = max(0, disk.f_bavail * disk.f_frsize - self._keep_free_bytes)
        if free_bytes < size_bytes:
            text = f"the model needs {size_bytes / 1e6:.1f} MB, and {free_bytes / 1e6:.1f} MB are free for it"
            raise Retryable("update-space", text, "free disk space; the device tries again by itself")

    def check_names(self, manifest: Manifest) -> None:
        """Refuse names that could lie outside the bundle or on top of our own files. Raises ``update-path``."""
        for file in manifest.files:
            first = Path(file.path).parts[:1]
            if first in ((OK,), (MANIFEST,)):
                hint = "call the file something else and pack the bundle again"
                raise Rejected("update-path", f"{file.path!r} is a name that a bundle's file may not have", hint)
            try:
                inside(self._bundles / "none", file.path)
            except BundleError as error:
                raise refused(error) from None

    def read_manifest(self, raw: bytes) -> Manifest:
        """Read `bundle.json` as it came. Raises `Rejected` with an update's code."""
        try:
            return parse_manifest(raw)
        except BundleError as error:
            raise refused(error) from None

    def assemble(self, raw: bytes) -> Bundle:
        """Make a bundle's folder of its `bundle.json` and the blobs, check every byte, and mark it as whole.

        Raises `Rejected` when a file is not what `bundle.json` says (that blob is removed), `Broken` for the disk.
        """
        key = key_of(hashlib.sha256(raw).hexdigest())
        whole = self.bundle(key)
        if whole is not None:
            return whole
        manifest = self.read_manifest(raw)
        self.check_names(manifest)
        folder = self._bundles / key
        try:
            self._fill(folder, raw, manifest)
            bundle = Bundle.load(folder)
            write_file(folder / OK, bundle.ref.digest.encode())
        except BundleError as error:
            self._drop_bad(manifest)
            shutil.rmtree(folder, ignore_errors=True)
            raise refused(error) from None
        except OSError as error:
            raise broken(folder, error) from None
        return bundle

    def _fill(self, folder: Path, raw: bytes, manifest: Manifest) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in manifest.files:
            place = folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(self.blob(file.sha256), place)
        write_file(folder / MANIFEST, raw)
        for inner in {(folder / file.path).parent for file in manifest.files} | {folder, self._bundles, self.folder}:
            sync_folder(inner)

    def _drop_bad(self, manifest: Manifest) -> None:
        """Remove blobs that are not their name: they are fetched again the next time."""
        for sha256 in {file.sha256 for file in manifest.files}:
            path = self.blob(sha256)
            if path.is_file() and _sha256(path) != sha256:
                path.unlink(missing_ok=True)

    # Which one answers: under the lock, after the journal was written.

    def point(self, links: Links) -> None:
        """Make the links name these bundles, `previous` first. Raises `Broken`."""
        try:
            for link, key in (("previous", links.previous), ("current", links.current)):
                self._point(self.folder / link, key)
            sync_folder(self.folder)
        except OSError as error:
            raise broken(self.folder, error) from None

    def _point(self, link: Path, key: str | None) -> None:
        if key is None:
            link.unlink(missing_ok=True)
            return
        half = link.with_name(f".{link.name}.half")
        half.unlink(missing_ok=True)
        half.symlink_to(Path("bundles") / key)
        half.replace(link)

    def wanted(self, entry: Entry | None) -> Links:
        """Tell what the links must name by the journal; as they are when it does not say."""
        if entry is None or entry.bundle is None:
            return self.links()
        if entry.state in lifecycle.NEW_ANSWERS:
            return Links(current=entry.bundle, previous=entry.former.current)
        return entry.former

    def recover(self) -> Bundle | None:
        """Put right what a kill or a power cut has left, and give the bundle that answers; None: the configured one.

        Takes the lock. Called at every start of vision and sync.
        """
        with self.journal.turn():
            links = self.wanted(self.journal.read("model"))
            for key in (links.current, links.previous):
                bundle = self.bundle(key)
                if bundle is not None:
                    before = links.previous if key == links.current and self.bundle(links.previous) else None
                    self._settle(Links(current=key, previous=before))
                    return bundle
                if key is not None:
                    log.error("the model %s in %s is not whole any more: the one before answers", key, self._bundles)
            self._settle(Links())
            return None

    def _settle(self, links: Links) -> None:
        if links != self.links() or (self.folder / "current").is_symlink() != (links.current is not None):
            self.point(links)

    # Tidying up.

    def sweep(self) -> None:
        """Remove bundles and blobs that nothing needs. Takes the lock; sync calls it when nothing is under way."""
        with self.journal.turn(), contextlib.suppress(OSError):
            entry = self.journal.read("model")
            links = self.links()
            keep = {links.current, links.previous}
            if entry is not None and not entry.over:
                keep |= {entry.bundle, entry.former.current, entry.former.previous}
            for key in self.held():
                if key not in keep:
                    # The mark goes first: a folder that is half removed must not look whole.
                    (self._bundles / key / OK).unlink(missing_ok=True)
                    shutil.rmtree(self._bundles / key, ignore_errors=True)
            if entry is None or entry.over:
                self._sweep_blobs({key for key in keep if key})

    def _sweep_blobs(self, keys: Iterable[str]) -> None:
        needed = set()
        for key in keys:
            bundle = self.bundle(key)
            needed |= {file.sha256 for file in bundle.manifest.files} if bundle is not None else set()
        for path in self._blobs.iterdir() if self._blobs.is_dir() else ():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def keep_failed(self, entry: Entry, said: dict[str, bytes]) -> Path | None:
        """Save what is known of a model that failed, before it goes; the newest few are kept."""
        folder = self.folder / f"failed-{entry.revision}-{entry.bundle or 'none'}"
        try:
            for name, content in {"journal.json": entry.model_dump_json(indent=1).encode(), **said}.items():
                write_file(folder / name, content[-FAILED_BYTES // 4 :])
            kept = sorted(self.folder.glob("failed-*"), key=lambda p: p.stat().st_mtime_ns)
            for old in kept[:-FAILED_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            log.warning("what is known of the failed model cannot be kept: %s", error)
            return None
        return folder


def _link_or_copy(blob: Path, place: Path) -> None:
    try:
        os.link(blob, place)
        return
    except FileNotFoundError:
        raise BundleError("bundle-file-missing", f"{place.name} was not fetched", "order it again") from None
    except OSError:
        shutil.copyfile(blob, place)  # a file system without hard links
    with place.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
