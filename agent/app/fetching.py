"""Sync's side of model updates, put together: orders in, reports out, and the thread that fetches what was ordered."""

import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.app import Stop
from agent.app.clocks import now_of
from agent.app.lives import Lives
from agent.config import ORDERED, Config
from agent.core.lifecycle import What
from agent.core.updates import Entry
from agent.errors import Broken, ShelfwireError
from agent.host.clock import SystemClock, boot_id
from agent.link.repository import open_repository
from agent.settings import Offers, settle
from agent.store.journal import JOURNAL, NEWEST
from agent.store.models import Models
from agent.store.settings import SettingsFiles
from agent.update import Fetching
from models.bundle import ModelRef, read_manifest, resolve
from models.errors import BundleError
from wire.orders import Desired, Reported
from wire.records import ModelName

log = logging.getLogger(__name__)

TROUBLE_PAUSE_S = 30.0
STOP_S = 3.0
WHATS: tuple[What, ...] = ("model", "config")


class Ordering:
    """Orders and reports; `agent.update_ports.Orders` for the uplink. A thread that dies calls `on_crash`."""

    def __init__(
        self, config: Config, clock: SystemClock, rng: random.Random, running: Callable[[], Mapping[str, Any] | None],
        stop: Stop, lives: Lives,
    ) -> None:  # fmt: skip
        """`running` tells the model that vision reported last."""
        self._clock = clock
        self._on_crash = stop.crash
        self._ask_reload = stop.ask_reload
        self._settings = config.ordered
        self._files = SettingsFiles((config.device.state_dir / ORDERED).parent)
        self._running = running
        self._stop = threading.Event()
        self._models = Models(config.device.state_dir / "models", config.update.keep_free)
        self._fetching = Fetching(
            self._models,
            partial(_open, config, clock, self._stop),
            partial(now_of, clock, boot_id()),
            rng,
            config.update.window,
            configured_ref(config),
        )
        self._offers = Offers(self._models.journal, lives.try_settings, partial(now_of, clock, boot_id()))
        self._seen: object = None
        self._said: Reported | None = None
        self._thread = threading.Thread(target=self._work, name="updates", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, in the middle of a file too: what was fetched of it stays."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def heard(self, order: Desired) -> None:
        """See `Orders`."""
        self._fetching.heard(order)

    def reported(self) -> Reported | None:
        """See `Orders`; read anew when a file or the model that runs has changed."""
        folder = self._models.folder
        running = self._running()
        seen = (running, *(_changed(folder / name) for name in (JOURNAL, NEWEST, "current", "previous", "pinned")))
        if seen != self._seen:
            try:
                self._said = reported(self._models, running)
            except Broken as error:
                log.error("%s [%s]", error, error.code)
                return None
            self._seen = seen
        return self._said

    def _work(self) -> None:
        try:
            with contextlib.suppress(Broken):  # said by the first turn
                self._models.recover()
            self._fetching_life()
        except Exception:
            log.exception("the thread updates died")
            self._on_crash()

    def _fetching_life(self) -> None:
        trouble, wait_s = "", 0.0
        while not self._clock.wait(self._stop, wait_s):
            try:
                wait_s, trouble = self._fetching.turn(), ""
                self._offers.turn()
                self._follow_settings()
            except ShelfwireError as error:
                if str(error) != trouble:
                    log.error("updates wait: %s [%s]; cure: %s", error, error.code, error.hint)
                wait_s, trouble = TROUBLE_PAUSE_S, str(error)

    def _follow_settings(self) -> None:
        """Ask for a reload, once for each change, when other ordered settings are in force than at the start."""
        text = settle(self._models.journal, self._files)
        if text != self._settings:
            self._settings = text
            self._ask_reload()


def reported(models: Models, running: Mapping[str, Any] | None) -> Reported:
    """Say what runs and what became of orders, from the store and vision's last report. Raises `Broken`."""
    entries: list[Entry] = [entry for what in WHATS if (entry := models.journal.read(what)) is not None]
    updates = [update for entry in entries if (update := entry.as_update()) is not None]
    return Reported(
        model=ModelName.model_validate(dict(running)) if running else None,
        previous=_previous(models),
        pinned=models.journal.pinned,
        config_revision=models.journal.config_revision,
        updates=tuple(updates),
    )


def _previous(models: Models) -> ModelName | None:
    key = models.links().previous
    if key is None:
        return None
    try:
        manifest, digest = read_manifest(models.folder / "bundles" / key)
    except (BundleError, OSError):
        return None
    return ModelName(name=manifest.name, version=manifest.version, release=manifest.release, digest=digest)


def configured_ref(config: Config) -> ModelRef | None:
    """Name the bundle that answers when none has come by an update; None when it cannot be read."""
    with contextlib.suppress(BundleError, OSError):
        manifest, digest = read_manifest(resolve(config.model.bundle))
        return ModelRef(manifest.name, manifest.version, manifest.release, digest)
    return None


def _open(config: Config, clock: SystemClock, stop: threading.Event, gate: Callable[[int], None]) -> Any:
    return open_repository(config, clock, gate=gate, stop=stop, agent=version("shelfwire"))


def _changed(path: Path) -> object:
    """Tell whether a file or link was replaced since the last look."""
    try:
        told = os.lstat(path)
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino
