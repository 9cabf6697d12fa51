"""The certificate's renewal in sync: after two thirds of its life, by the present certificate, with a new key."""

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from agent import identity
from agent.config import IDENTITY, Config
from agent.core.backoff import Backoff
from agent.errors import Rejected, Retryable, ShelfwireError
from agent.link import enrolment as calls
from agent.link.https import Https
from agent.ports import Clock

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3600.0
TRY_BASE_S = 30.0
TRY_CEILING_S = 6 * 3600.0
STOP_S = 3.0


class Renewal:
    """Renews this device's identity on a thread of its own, and calls `on_renewed` when a new one is in force.

    Made only where the configuration uses the enrolled identity. A thread that dies calls `on_crash`.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        rng: random.Random,
        *,
        on_renewed: Callable[[], None],
        on_crash: Callable[[], None],
    ) -> None:
        self._state_dir = config.device.state_dir
        self._api = config.cloud.api
        self._clock = clock
        self._jitter = rng.random()
        self._backoff = Backoff(TRY_BASE_S, TRY_CEILING_S, rng)
        self._on_renewed = on_renewed
        self._on_crash = on_crash
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="renewal", daemon=True)
        self._until: datetime | None = None
        self.trouble = ""
        """Why the last try failed, with its code; empty when it did not."""

    @staticmethod
    def is_for(config: Config) -> bool:
        """Whether this device connects by the identity that it was enrolled with."""
        own = config.cloud.own
        return own is not None and own[0] == config.device.state_dir / IDENTITY / identity.CERTIFICATE

    def left_s(self) -> float | None:
        """How long the certificate counts yet, as of the last look; None before that."""
        return None if self._until is None else (self._until - self._now()).total_seconds()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a call that is under way is not waited for long."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now().wall_ns / 1e9, UTC)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._clock.wait(self._stop, self.turn())
        except Exception:
            log.exception("the renewal died")
            self._on_crash()

    def turn(self) -> float:
        """Look whether it is time, and renew if so; gives the seconds until the next look."""
        try:
            own = identity.read(self._state_dir)
            if own is None:
                return LOOK_EVERY_S
            self._until = own.not_after
            if self._now() < own.renew_at(self._jitter):
                self.trouble = ""
                return LOOK_EVERY_S
            self._renew(own)
        except ShelfwireError as error:
            self.trouble = f"{error} [{error.code}]"
            log.warning("the certificate could not be renewed: %s [%s]; %s", error, error.code, error.hint)
            return self._backoff.at_ceiling() if isinstance(error, Rejected) else self._backoff.next()
        return LOOK_EVERY_S

    def _renew(self, own: identity.Own) -> None:
        """Have a new key certified, see that the API takes it, and only then let it replace the present one."""
        if self._api is None:
            raise Rejected("no-api", "the certificate is renewed at the cloud's API, and none is configured",
                           "set api in the [cloud] section, or leave it to the enrolment")  # fmt: skip
        request = identity.make_request()
        told = calls.renew(self._https(self._state_dir / IDENTITY), request.csr)
        if told.device != own.device:
            raise Rejected(
                "bad-certificate", f"the cloud takes {own.device} for {told.device}", "enrol this device anew"
            )
        identity.install(self._state_dir, told, request.key, lambda folder: self._prove(folder, own))
        renewed = identity.read(self._state_dir)
        assert renewed is not None
        self._until, self.trouble = renewed.not_after, ""
        self._backoff.reset()
        log.info("the certificate is renewed, until %s", renewed.not_after.date())
        self._on_renewed()

    def _prove(self, folder: Path, former: identity.Own) -> None:
        """See that the API takes the new certificate, and that nobody has enrolled this device anew meanwhile."""
        calls.known(self._https(folder))
        if identity.read(self._state_dir) != former:
            raise Retryable("identity-changed", "this device was enrolled anew meanwhile", "nothing is to be done")

    def _https(self, folder: Path) -> Https:
        assert self._api is not None
        own = (folder / identity.CERTIFICATE, folder / identity.KEY)
        return Https(self._api, folder / identity.CA, version("shelfwire"), own=own)
