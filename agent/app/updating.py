"""Vision's side of model updates, put together: the model in use, its replacement between two frames, what is counted.

`Updating` is `agent.update_ports.House` for `agent.proving`. The thread "update" runs it; inference threads only tell
what they answered (`saw`), the main loop counts the seconds (`tick`).
"""

import contextlib
import ctypes
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent import settings
from agent.app import Stop
from agent.app.clocks import now_of
from agent.app.fitting import fits, terms_of
from agent.app.lives import Lives
from agent.app.tuning import Tuning
from agent.app.using import Using, models_of, open_model, settings_of, threshold_of
from agent.bench import choosing
from agent.config import Config
from agent.core.decide import UNKNOWN
from agent.core.pulse import OUTSIDE_CODES
from agent.core.trial import Tally, total
from agent.errors import Broken, ShelfwireError
from agent.host.clock import SystemClock, boot_id
from agent.host.process import rss_bytes
from agent.pipeline import Pipeline
from agent.ports import Frame, Picture
from agent.proof.bench import Bench, Trying
from agent.proving import Proving, give_up, wake
from agent.store.facts import FactReader
from agent.store.history import History
from agent.update import Now
from agent.update_ports import Answer as NewAnswer
from agent.update_ports import Opened
from models import Answer, Bundle, Classifier

log = logging.getLogger(__name__)

TURN_S = 1.0
SETTLE_S = 10.0
"""What a swap waits for every inference thread to take the new model: longer, and one hangs in the old."""
SAVE_EVERY_S = 300.0
SLICE_S = 10.0
SLICES = 6
"""The trial's last minute is kept in slices."""
STOP_S = 3.0
CONNECTED, NO_BROKER = "broker ok", ""
OUTSIDE = frozenset({NO_BROKER, *(f"broker {code}" for code in OUTSIDE_CODES)})
"""What is said of the link where something else than this device keeps it from its broker."""


class Updating:
    """The model in use and all that may replace it. Make it first: `using` is what vision begins with."""

    def __init__(
        self, config: Config, workers: int, clock: SystemClock, stop: Stop, lives: Lives,
        ills: Callable[[], Sequence[str]], late: Callable[[], int],
    ) -> None:  # fmt: skip
        """Put right what the last run left, and open the model that answers. Raises `Broken`, `Rejected`.

        `ills` lists what is wrong with the device as vision sees it, `late` counts frames that came to late.
        """
        self._config = config
        self._workers = workers
        self._clock = clock
        self._boot = boot_id()
        self._crash = stop.crash
        self._ills = ills
        self._terms = terms_of(config)
        self._store = models_of(config)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._history = History(self._store.folder)
        self._saved_s = time.monotonic()
        self._trial: Tally | None = None
        self._slices: deque[Tally] = deque(maxlen=SLICES)
        self._slice_s = 0.0
        self._counted = (0, 0)
        self._ticked_s = time.monotonic()
        self._every_s: float | None = None
        self._picked_s: dict[str, float] = {}
        self._picks: deque[tuple[Picture, str]] = deque(maxlen=1)
        self._picked = threading.Condition()
        self._pipeline: Pipeline | None = None
        self._shown: Callable[[Classifier], None] = lambda _: None
        self._facts: FactReader | None = None
        journal, files = self._store.journal, settings_of(config)
        if config.ordered_trouble:
            log.error("the ordered settings are left out, they do not fit any more: %s", config.ordered_trouble)
        wake(self._store, self._now().when)
        settings.begin(journal, files, self._now().when)
        self._keeping = settings.Keeping(
            journal, files, self._now, config.ordered, config.ordered_trouble,
            check=lives.try_settings, ills=self._all_ills, kept=lambda: lives.kept, reload=stop.ask_reload,
            trial_s=config.update.settings_trial,
        )  # fmt: skip
        self._late = late
        self._tuning: Tuning | None = None
        self._proving = Proving(self._store, self, self._terms, self._now, self._stop)
        try:
            self.using = self._first()
        except BaseException:
            self._say_goodbye()
            raise
        self._thread = threading.Thread(target=self._run, name="update", daemon=True)

    def _now(self) -> Now:
        return now_of(self._clock, self._boot)

    def _first(self) -> Using:
        """Open the model that answers; one that came by an update and cannot be opened gives way to the one before."""
        bundle = self._store.current()
        while True:
            try:
                return open_model(self._config, self._workers, bundle)
            except Broken as error:
                if bundle is None:
                    raise
                if give_up(self._store, self._now().when, error):
                    bundle = self._store.current()
                else:
                    log.error("%s [%s]: the configured model answers", error, error.code)
                    bundle = None

    # The life of this side: vision's main thread.

    def start(self, pipeline: Pipeline, shown: Callable[[Classifier], None]) -> None:
        """Begin. `shown` is told of another model, for whoever shows or serves it."""
        self._pipeline, self._shown = pipeline, shown
        self._tuning = Tuning(self._config, self._clock, self._late)
        self._thread.start()

    def stop(self) -> None:
        """End in good order; a trial under way goes on at the next start."""
        self._stop.set()
        with self._picked:
            self._picked.notify_all()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        if self._tuning is not None:
            self._tuning.pause()
        try:
            self._say_goodbye()
            self._save()
        except Broken as error:
            log.error("%s [%s]; the next start counts a crash", error, error.code)

    def _say_goodbye(self) -> None:
        self._proving.close()
        self._keeping.close()

    def _all_ills(self) -> list[str]:
        """List what is wrong for settings on trial: with them the broker's address may be what is wrong."""
        link = self._link()
        return [*self._ills(), *([] if link in (CONNECTED, NO_BROKER) else [link])]

    def close(self) -> None:
        """Let go of the model: nobody answers any more."""
        self.using.classifier.close()

    def _run(self) -> None:
        self._facts = FactReader(self._config.device.state_dir)
        trouble = ""
        try:
            while not self._clock.wait(self._stop, TURN_S):
                try:
                    self._proving.turn()
                    self._keeping.turn()
                    self._tune()
                    trouble = ""
                except Broken as error:
                    if str(error) != trouble:
                        log.error("updates wait: %s [%s]; cure: %s", error, error.code, error.hint)
                    trouble = str(error)
        except Exception:
            log.exception("the thread update died")
            self._crash()
        finally:
            self._facts.close()

    def _tune(self) -> None:
        """Have the model run as was measured to be best, once that is known. Raises `Broken`."""
        assert self._tuning is not None
        entry = self._store.journal.read("model")
        if not self._tuning.turn(self.using, free=entry is None or entry.owner != "vision"):
            return
        chosen = self._tuning.chosen(self.using)
        if chosen.setup == self.using.classifier.setup:
            self.using = replace(self.using, chosen=chosen)
        else:
            bundle = self.using.classifier.bundle if self.using.key is not None else None
            self.take_up(self.open(bundle))

    def describe_tuning(self) -> dict[str, object]:
        """Say how the model runs and why, for vision's report."""
        return self._tuning.describe(self.using) if self._tuning is not None else {}

    def tick(self, captured: int, failed: int) -> None:
        """Count time, captured frames and failures; the totals are this process's own. From the main loop."""
        now_s = time.monotonic()
        with self._lock:
            was_captured, was_failed = self._counted
            self._counted = (captured, failed)
            seconds, self._ticked_s = now_s - self._ticked_s, now_s
            for tally in self._counting():
                tally.seconds += seconds
                tally.captured += captured - was_captured
                tally.failed += failed - was_failed
        if now_s - self._saved_s > SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        with self._lock, contextlib.suppress(OSError):
            self._history.save()

    # What is answered: any inference thread.

    def saw(self, frame: Frame, answer: Answer, took_ms: float) -> None:
        """Count an answered frame, and pick its picture for the shadow when one is due. Never waits."""
        label = answer.top[0][0] if answer.score >= self.using.policy.threshold else None
        with self._lock:
            for tally in self._counting():
                tally.add(label, took_ms)
        every_s = self._every_s
        if every_s is None:
            return
        now_s = time.monotonic()
        with self._picked:
            if now_s - self._picked_s.get(frame.camera, -every_s) >= every_s and not self._picks:
                self._picked_s[frame.camera] = now_s
                self._picks.append((frame.picture, label or UNKNOWN))
                self._picked.notify()

    def _counting(self) -> tuple[Tally, ...]:
        """Give the tallies that count now: in a trial its own, else this hour's. Under the lock."""
        if self._trial is None:
            return (self._history.hour(self._clock.now().wall_ns),)
        now_s = time.monotonic()
        if not self._slices or now_s - self._slice_s >= SLICE_S:
            self._slices.append(Tally())
            self._slice_s = now_s
        return self._trial, self._slices[-1]

    # What page 4 sees and does: the thread "update".

    @property
    def key(self) -> str | None:
        """See `House`."""
        return self.using.key

    def fits(self, bundle: Bundle) -> None:
        """See `House`."""
        fits(self._config, bundle)

    def bench(self, bundle: Bundle) -> Bench:
        """See `House`."""
        if self._tuning is not None:
            self._tuning.pause()
        trying = Trying(
            bundle.folder,
            self.using.classifier.bundle.folder,
            choosing.chosen(self._config, bundle).setup,
            self._workers,
            self._config.device.state_dir / "compiled",
            bundle.manifest.limits.memory_bytes,
            self.using.classifier.setup,
        )
        return Bench(trying, self._terms, self._stop)

    def pick_every(self, seconds: float | None) -> None:
        """See `House`."""
        with self._picked:
            self._every_s = seconds
            self._picks.clear()

    def pick(self, timeout_s: float) -> tuple[Picture, str] | None:
        """See `House`."""
        with self._picked:
            self._picked.wait_for(lambda: self._picks or self._stop.is_set(), timeout_s)
            return self._picks.popleft() if self._picks else None

    def named(self, bundle: Bundle, answer: NewAnswer) -> str:
        """See `House`."""
        return answer.label if answer.score >= threshold_of(self._config, bundle) else UNKNOWN

    def open(self, bundle: Bundle | None, *, proven: bool = False) -> Using:
        """See `House`."""
        return open_model(self._config, self._workers, bundle, proven=proven)

    def take_up(self, opened: Opened) -> None:
        """See `House`. Frames in work are finished by the old model; it is let go when no thread has it any more."""
        assert isinstance(opened, Using)
        assert self._pipeline is not None
        workers = [opened.classifier.worker() for _ in range(self._workers)]
        old, self.using = self.using, opened
        self._pipeline.swap(opened.policy, workers)
        until_s = time.monotonic() + SETTLE_S
        while not self._pipeline.settled and time.monotonic() < until_s:
            if self._clock.wait(self._stop, 0.005):
                return  # the stop lets both go
        self._shown(opened.classifier)
        old.classifier.close()
        del old, workers
        _give_memory_back()
        log.info("the model %(name)s %(version)s answers", opened.policy.model)
        log.info("it runs as %s", opened.classifier.setup)

    def begin_trial(self) -> None:
        """See `House`."""
        with self._lock:
            self._trial = Tally()
            self._slices.clear()

    def end_trial(self, *, keep: bool) -> None:
        """See `House`."""
        with self._lock:
            done, self._trial = self._trial, None
            if keep and done is not None:
                self._history.hour(self._clock.now().wall_ns).merge(done)

    def tallies(self) -> tuple[Tally, Tally, Tally]:
        """See `House`."""
        with self._lock:
            whole = total([self._trial] if self._trial is not None else [])
            return self._history.total(), whole, total(self._slices)

    def connected(self) -> bool | None:
        """See `House`. Where the line or the broker is away nobody can say, and no model is to blame."""
        link = self._link()
        return None if link in OUTSIDE else link == CONNECTED

    def _link(self) -> str:
        if self._config.cloud.broker is None or self._facts is None:
            return NO_BROKER
        return self._facts.link_words()

    def said(self) -> dict[str, bytes]:
        """See `House`."""
        before, whole, recent = self.tallies()
        told = {"before": before.dump(), "trial": whole.dump(), "recent": recent.dump(), "rss_bytes": rss_bytes()}
        return {"tallies.json": json.dumps(told, indent=1).encode()}


def take_settings_back(config: Config, error: ShelfwireError) -> bool:
    """Go back from ordered settings on trial with which vision cannot start; False when there are none."""
    when = now_of(SystemClock(), boot_id()).when
    text = f"{error} [{error.code}]"
    return settings.go_back(models_of(config).journal, settings_of(config), "update-config", text, when)


def _give_memory_back() -> None:
    """Have the allocator return what the old model took, so that many updates take no more than one.

    No garbage collection: it would hold every thread up for a tenth of a second, and nothing of a model is a cycle.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
