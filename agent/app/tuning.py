"""Vision's choice of how its model runs: measured in the background when the device is calm, taken up between frames.

The thread "update" turns it, between its other work. What is measured runs in a process of its own, behind everything
else; nothing that becomes of that process changes what answers.
"""

import logging
import random
from collections.abc import Callable
from pathlib import Path

from agent.app.using import Using
from agent.bench import choosing
from agent.bench.choosing import Chosen
from agent.bench.held import Asking, Measuring
from agent.bench.surroundings import key_of
from agent.config import Config
from agent.core.backoff import Backoff
from agent.core.setups import Key
from agent.errors import Broken
from agent.host.processor import workers_for
from agent.ports import Clock
from agent.store import choice

log = logging.getLogger(__name__)

NICENESS = 15
LEAST_S, MOST_S = 2.0, 40.0
"""Time of all turns, at most as long as the calm before it: behind the cameras' work everything takes longer."""
MOST_LATE = 2
"""Frames that may come late between two turns while it is measured; more, and it is given up."""
AGAIN_BASE_S, AGAIN_CEILING_S = 600.0, 24 * 3600.0
"""How long after an attempt that came to nothing the next one is made, at first and at most."""


class Tuning:
    """Says with which setup a model should go on. For the thread "update".

    `late` counts frames that were displaced or placed elsewhere since the start: while it grows the device is not calm.
    """

    def __init__(self, config: Config, clock: Clock, late: Callable[[], int]) -> None:
        self.trouble = ""
        """Why nothing could be measured, with its code; empty when nothing is wrong."""
        self._config = config
        self._state_dir = config.device.state_dir
        self._after_ns = round(config.model.bench_after * 1e9)
        self._clock = clock
        self._late = late
        self._counted = late()
        self._born_ns = self._calm_ns = clock.now().boot_ns
        self._not_before_ns = 0
        rng = random.Random()  # noqa: S311 - spreads what a fleet does
        self._again = Backoff(AGAIN_BASE_S, AGAIN_CEILING_S, rng)
        self._measuring: Measuring | None = None
        self._key: Key | None = None
        self._seen: object = None

    def describe(self, using: Using) -> dict[str, object]:
        """Say how the model runs and why, for vision's report."""
        setup, why = using.classifier.setup, using.chosen
        return {
            "setup": str(setup),
            "reason": why.reason,
            "measured": why.measured,
            "missing": why.missing,
            "measuring": self._measuring is not None,
            "waited_s": round((self._clock.now().boot_ns - self._born_ns) / 1e9, 1),
            "trouble": self.trouble,
        }

    def turn(self, using: Using, *, free: bool) -> bool:
        """Look once; True when the model should be opened anew, because another setup was chosen for it.

        `free` is False while an update is under way: it is measured against the device as it was.
        """
        if not choosing.is_open(self._config.model.setup):
            return False
        newly_late = self._newly_late()
        if self._measuring is not None:
            self._go_on(using, wanted=free and newly_late <= MOST_LATE)
        elif self._is_due(using, free=free):
            self._begin(using)
        return free and self._has_changed(using)

    def chosen(self, using: Using) -> Chosen:
        """Give how the model should run by now."""
        return choosing.chosen(self._config, using.classifier.bundle)

    def _newly_late(self) -> int:
        """How many frames have come late since the last turn."""
        late = self._late()
        newly, self._counted = late - self._counted, late
        if newly:
            self._calm_ns = self._clock.now().boot_ns
        return newly

    def _is_due(self, using: Using, *, free: bool) -> bool:
        now_ns = self._clock.now().boot_ns
        calm = now_ns - self._calm_ns >= self._after_ns > 0
        if not (free and calm and now_ns >= self._not_before_ns):
            return False
        return bool(choosing.chosen(self._config, using.classifier.bundle).missing)

    def _begin(self, using: Using) -> None:
        bundle, asked = using.classifier.bundle, self._config.model.setup
        workers = workers_for(self._config)
        self._key = key_of(bundle, workers, asked)
        cache, memory_bytes = choosing.cache_of(self._state_dir), choosing.memory_bytes(self._config)
        seconds = max(LEAST_S, min(MOST_S, self._config.model.bench_after))
        asking = Asking(bundle.folder, asked, workers, seconds, cache, memory_bytes, NICENESS)
        try:
            self._measuring = Measuring(asking)
        except OSError as error:
            self._fail(Broken("bench-failed", f"no process could be started: {error.strerror}", ""))
            return
        log.info("measuring how %s runs best on this device, behind its other work", bundle.ref.name)

    def _go_on(self, using: Using, *, wanted: bool) -> None:
        assert self._measuring is not None
        assert self._key is not None
        if not wanted or self._key.bundle != using.classifier.bundle.ref.digest:
            self.pause()
            self._postpone()
            log.info("the measuring was given up: the device has more urgent work; it is tried again")
            return
        try:
            if self._measuring.hear(0.0):
                return
            figures, others = self._measuring.figures or [], self._measuring.others
            self.pause()
            chosen = choosing.choose(figures, others, self._key, self._clock.now().wall_ns)
            choice.write(self._state_dir, chosen)
        except Broken as error:
            self._fail(error)
            return
        self.trouble = ""
        self._again.reset()
        log.info("how the model runs best was measured: %s", chosen.reason)

    def _fail(self, error: Broken) -> None:
        self.pause()
        self._postpone()
        self.trouble = f"{error} [{error.code}]"
        log.error("how the model runs best could not be measured: %s; it goes on as it is", self.trouble)

    def _postpone(self) -> None:
        self._not_before_ns = self._clock.now().boot_ns + round(self._again.next() * 1e9)

    def _has_changed(self, using: Using) -> bool:
        """Whether another choice lies there than the one by which the model was opened, made by whomever."""
        seen = _stamp(self._state_dir / choice.NAME), using.classifier.bundle.ref.digest
        if seen == self._seen:
            return False
        self._seen = seen
        chosen = self.chosen(using)
        return chosen.measured and chosen != using.chosen

    def pause(self) -> None:
        """End what is being measured."""
        if self._measuring is not None:
            self._measuring.close()
            self._measuring = None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino
