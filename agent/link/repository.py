"""The repository of models as the device uses it: refresh, a verified manifest, verified files."""

import re
import threading
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Config
from agent.core.days import in_window
from agent.errors import Rejected, Retryable
from agent.link.download import Downloads, Gate
from agent.link.mirror import FolderMirror, Mirror
from agent.link.mirror_http import HttpMirror
from agent.ports import Clock
from wire.envelope import utc
from wire.orders import ModelOrder
from wire.repository import BLOBS, MOST_BLOB_BYTES, MOST_MANIFEST_BYTES, TARGETS, bundle_target

MODELS, TRUST = "models", "trust"
INCOMING = "incoming.json"

if TYPE_CHECKING:
    from agent.link.trust import Accepted, Trust


class ModelRepository:
    """See `agent.ports.Repository`. `folder` takes the manifest that was fetched last."""

    def __init__(self, trust: "Trust", mirror: Mirror, downloads: Downloads, folder: Path) -> None:
        self._trust = trust
        self._mirror = mirror
        self._downloads = downloads
        self._folder = folder

    @property
    def accepted(self) -> "Accepted | None":
        """What the last refresh has accepted; None before the first."""
        return self._trust.accepted

    def refresh(self) -> None:
        """Bring the metadata up to date. Raises what `Trust.refresh` raises."""
        self._trust.refresh(self._mirror)

    def manifest(self, order: ModelOrder) -> bytes:
        """Give the verified ``bundle.json`` of an order.

        Raises `Rejected`: ``update-unlisted`` (the repository does not offer it), ``update-differs`` (it is another
        one than the order means), and what `refresh` and `Downloads.fetch` raise.
        """
        path = bundle_target(order.name, order.release)
        found = self._trust.find(path, self._mirror)
        if found is None:
            raise Rejected(
                "update-unlisted", f"the repository does not offer {order.name} release {order.release}",
                "it was withdrawn, or the mirror lags behind: shelfwire-cloud fleet list shows what there is",
            )  # fmt: skip
        told = found.file.custom if isinstance(found.file.custom, dict) else {}
        promised = (found.file.hashes.get("sha256"), told.get("version"))
        if promised != (order.digest, order.version):
            raise Rejected(
                "update-differs",
                f"the order means {order.name} {order.version} ({order.digest[:12]}), but the repository has another "
                f"release {order.release}: {told.get('version')} ({str(promised[0])[:12]})",
                "order what was published; a changed bundle needs a release of its own",
            )
        if found.file.length > MOST_MANIFEST_BYTES:
            raise Rejected("update-size", f"{path} has over {MOST_MANIFEST_BYTES} bytes", "pack the bundle again")
        into = self._folder / INCOMING
        self._downloads.fetch(f"{TARGETS}/{found.place}", {"sha256": order.digest}, found.file.length, into)
        return into.read_bytes()

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> None:
        """Have the file `into` with this content. Raises what `Downloads.fetch` raises."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not 0 < size_bytes <= MOST_BLOB_BYTES:
            raise Rejected(
                "update-size", f"a file of {size_bytes} bytes named {sha256[:64]!r} is not fetched", "pack it again"
            )
        self._downloads.fetch(f"{BLOBS}/{sha256}", {"sha256": sha256}, size_bytes, into)


def open_repository(
    config: Config,
    clock: Clock,
    *,
    folder: Path | None = None,
    gate: Gate = lambda _: None,
    stop: threading.Event | None = None,
    agent: str = "",
) -> ModelRepository:
    """Open the configured repository, or the one in `folder` (a stick), over the trust that this device has.

    `gate` is asked before each piece of a download and raises to end it; [update] window is kept besides, but for a
    stick: somebody stands there. Raises `Rejected` (``update-off``) when none is configured.
    """
    from agent.link.trust import Trust  # python-tuf takes megabytes, and most of the time nothing is ordered

    update, place = config.update, config.device.state_dir / MODELS
    mirror = FolderMirror(folder) if folder is not None else configured_mirror(config, agent)
    if folder is None:
        gate = within(update.window, clock, gate)
    downloads = Downloads(
        mirror, clock, bytes_per_second=update.bytes_per_second if folder is None else 1 << 40,
        keep_free_bytes=update.keep_free, gate=gate, stop=stop,
    )  # fmt: skip
    return ModelRepository(Trust(place / TRUST, clock, config.root_of_trust), mirror, downloads, place)


def within(window: tuple[time, time] | None, clock: Clock, gate: Gate) -> Gate:
    """A gate that also keeps a download within a span of the shop's local time (``update-window``)."""
    if window is None:
        return gate

    def check(done_bytes: int) -> None:
        if not in_window(window, utc(clock.now().wall_ns).astimezone().time()):
            span = "-".join(f"{moment:%H:%M}" for moment in window)
            raise Retryable(
                "update-window", f"models are fetched between {span} only, {done_bytes} bytes are here",
                "it goes on by itself then; [update] window says when",
            )  # fmt: skip
        gate(done_bytes)

    return check


def configured_mirror(config: Config, agent: str = "") -> Mirror:
    """The mirror of the configuration. Raises `Rejected` (``update-off``)."""
    where = config.repository
    if where is None:
        raise Rejected(
            "update-off", "this device knows no repository of models",
            "set [update] repository, or [cloud] api; or update from a folder: model update --from DIR",
        )  # fmt: skip
    if where.startswith("/"):
        return FolderMirror(Path(where))
    return HttpMirror(where, config.cloud.ca_file, own=config.cloud.own, agent=agent)
