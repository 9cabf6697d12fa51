"""The daily signature. A timestamp that nobody signs anew stops the updates of every device after a week."""

import logging
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.errors import CloudError
from cloud.repository.ceremony import online_signers
from cloud.repository.folder import LIVES, SIGN_EVERY, RepositoryFolder
from wire.repository import SIGNED_AT

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3600.0
SNAPSHOT_AFTER = timedelta(days=7)
"""A snapshot is signed anew once so much of its life is gone."""


def resign(repository: RepositoryFolder, *, force: bool = False) -> bool:
    """Sign the timestamp anew when it is a day old, and the snapshot when it is a week old; True when it was done.

    Raises `Rejected` (``repository-missing``, ``keys-missing``) and `Broken` (``repository-bad``,
    ``repository-folder``).
    """
    with repository.locked():
        current, now = repository.read(), repository.now()
        signed_at = datetime.fromisoformat(str(current.timestamp.signed.unrecognized_fields.get(SIGNED_AT)))
        sound = current.is_signed(current.timestamp) and current.is_signed(current.snapshot)
        if sound and not force and now - signed_at < SIGN_EVERY:
            return False
        online = online_signers(repository)
        if not sound or current.snapshot.signed.expires - now < LIVES["snapshot"] - SNAPSHOT_AFTER:
            repository.write_snapshot(current, online)
        else:
            repository.write_timestamp(current, online)
    return True


class Resigner:
    """Signs when it is due, in a thread of its own, for as long as the server runs; says loudly when it cannot."""

    def __init__(self, repository: RepositoryFolder, look_every_s: float = LOOK_EVERY_S) -> None:
        self._repository = repository
        self._look_every_s = look_every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repository-signer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            self.turn()
            if self._stop.wait(self._look_every_s):
                return

    def turn(self) -> None:
        """Sign what is due and tell of what runs out. Without online keys somebody else signs; it is watched still."""
        if not self._repository.exists:
            return
        try:
            if online_signers(self._repository) and resign(self._repository):
                log.info("signed the repository's timestamp anew")
            for state in self._repository.states():
                if state.alarm:
                    log.error(
                        "the repository's %s metadata lasts %.1f days more, or is not signed as it should be; then no "
                        "device updates any more [repository-expires]; sign it anew: shelfwire-cloud fleet %s",
                        state.role, state.left_s / 86400,
                        "keys renew --keys FOLDER" if state.role in ("root", "targets") else "refresh",
                    )  # fmt: skip
        except CloudError as error:
            log.error("the repository cannot be signed: %s [%s]; %s", error, error.code, error.hint)


class RepositoryMetrics(Collector):
    """How long each role of the metadata lasts, at each scrape."""

    def __init__(self, repository: RepositoryFolder) -> None:
        self._repository = repository

    def describe(self) -> Iterable[Metric]:
        """Give nothing: registering must not read the folder."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the metadata; nothing is given where there is no repository."""
        if not self._repository.exists:
            return
        left = GaugeMetricFamily("shelfwire_repository_expires_seconds", "Until it must be signed.", labels=("role",))
        alarm = GaugeMetricFamily("shelfwire_repository_alarm", "1 when it runs out soon.", labels=("role",))
        try:
            for state in self._repository.states():
                left.add_metric((state.role,), state.left_s)
                alarm.add_metric((state.role,), float(state.alarm))
        except CloudError:
            alarm.add_metric(("unreadable",), 1.0)
        yield left
        yield alarm
