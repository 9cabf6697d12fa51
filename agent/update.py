"""Page 4: a new model's way into this device, and out of it again. Read it from top to bottom.

    sync    desired -> [heard] -> offered -> [turn: may it? fetch -> verify -> assemble] -> verified
    vision  verified -> [prove: fits? compile -> golden -> memory -> speed -> shadow] -> [activate] -> trial
            trial -> [try_on: as well as in my 24 hours before?] -> committed, or back to the model before

Here is sync's half, `agent.proving` is vision's. Both keep the journal (`agent.store.journal`), each in its own states
(`agent.core.lifecycle`), and write it before they act. Whatever ends one of them, `agent.proving.wake` at the next
start finds a model that was verified and was not found bad.
"""

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import time

from agent.core.backoff import Backoff
from agent.core.days import in_window
from agent.core.lifecycle import What
from agent.core.updates import Entry, When, begin
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.update_ports import Journal, Repository, Store
from models.bundle import Manifest, ModelRef
from wire.orders import Desired, ModelOrder

log = logging.getLogger(__name__)

RETRY_BASE_S = 10.0
RETRY_CEILING_S = 3600.0
MISSING_TRIES = 5
"""How often a file that the repository does not have is asked for; then only a new order helps."""

MOST_HEARD = 16
"""Orders that wait to be looked at, the newest."""

IDLE_S = 2.0
TURN_S = 1.0


@dataclass(frozen=True, slots=True)
class Now:
    """The time, as both halves ask for it: both clocks, the shop's local time, whether the wall clock is sure."""

    when: When
    local: time
    sure: bool


class Fetching:
    """Sync's half. `turn` runs on a thread of its own; `heard` may come from another.

    `open_repository` gives the repository; what it is given is called before each piece of a file and raises to stop.
    Models are fetched in `window`; `configured` is the bundle that answers when none has come by an update.
    """

    def __init__(
        self,
        store: Store,
        open_repository: Callable[[Callable[[int], None]], Repository],
        now: Callable[[], Now],
        rng: random.Random,
        window: tuple[time, time] | None = None,
        configured: ModelRef | None = None,
    ) -> None:
        self._store = store
        self._journal = store.journal
        self._open = open_repository
        self._now = now
        self._window = window
        self._configured = configured
        self._backoff = Backoff(RETRY_BASE_S, RETRY_CEILING_S, rng)
        self._swept: int | None = None
        self._heard: deque[Desired] = deque(maxlen=MOST_HEARD)

    def heard(self, order: Desired) -> None:
        """Take an order that came in; `turn` looks at it. Never waits."""
        self._heard.append(order)

    def _listen(self) -> None:
        """Keep the newest order that came in; an old or doubled one changes nothing."""
        while self._heard:
            order = self._heard[0]
            if self._journal.keep_newest(order):
                log.info("order %d: %s", order.revision, _words(order))
            self._heard.popleft()

    def turn(self) -> float:
        """Do what can be done for the newest order; gives the seconds until it is worth looking again."""
        self._listen()
        newest = self._journal.newest()
        if newest is not None:
            take_up(self._journal, newest, "model", self._now().when)
        entry = self._journal.read("model")
        if entry is None or entry.over:
            self._tidy(entry)
            return IDLE_S
        if entry.owner != "sync":
            return IDLE_S
        if entry.model is None:
            return IDLE_S
        if self._is_late(entry):
            self._end(entry, Rejected("update-deadline", "it could not be fetched within its time", ""))
        elif (why := self._why_not_now(entry)) is not None:
            self._wait(entry, *why)
        elif not self._is_settled(entry, entry.model):
            self._fetch(entry)
        return TURN_S

    def _is_late(self, entry: Entry) -> bool:
        now = self._now()
        over = entry.deadline_wall_ns is not None and now.sure and now.when.wall_ns > entry.deadline_wall_ns
        return over or entry.expired(now.when)

    def _why_not_now(self, entry: Entry) -> tuple[str, str] | None:
        """Say why it must wait, as (code, sentence); None when it need not."""
        now = self._now()
        if self._journal.pinned:
            return "update-pinned", "a technician holds the model as it is"
        for window in (hours(entry.download_window), self._window):
            if window is not None and not in_window(window, now.local):
                return "update-window", f"models are fetched from {window[0]:%H:%M} to {window[1]:%H:%M}"
        if entry.retry is not None and entry.retry.age_s(now.when) < entry.retry_s:
            return entry.code or "update-net", entry.text
        return None

    def _wait(self, entry: Entry, code: str, text: str) -> None:
        if (entry.state, entry.code, entry.text) != ("deferred", code, text):
            self._move(entry, lambda e: e.step("defer", self._now().when, code=code, text=text))

    def _is_settled(self, entry: Entry, model: ModelOrder) -> bool:
        """End an order for what runs already, or for what is older than what this device has kept."""
        running = running_of(self._store, self._configured)
        if running is not None and running.digest == model.digest and entry.state != "downloading":
            self._move(entry, lambda e: e.step("confirm", self._now().when, text="it runs already", progress=1.0))
            return True
        try:
            check_age(self._store, model, running)
        except Rejected as error:
            self._end(entry, error)
            return True
        return False

    def _fetch(self, entry: Entry) -> None:
        """Bring the bundle here and check it; what goes wrong says itself whether trying again helps."""
        assert entry.model is not None
        begun = entry
        if entry.state != "downloading":
            attempt = entry.attempt + 1
            begun = self._move(entry, lambda e: e.step("fetch", self._now().when, attempt=attempt)) or entry
        try:
            self._bring(begun, entry.model)
        except Superseded:
            log.info("update %d: a newer order came", entry.revision)
        except Retryable as error:
            self._try_later(begun, error)
        except (Rejected, Broken) as error:
            self._end(begun, error)

    def _bring(self, entry: Entry, order: ModelOrder) -> None:
        repository = self._open(lambda _: self._go_on(entry))
        repository.refresh()
        raw = fetch_bundle(self._store, repository, order, lambda part: self._progress(entry, part))
        with self._journal.turn():
            bundle = self._store.assemble(raw)
            now = self._journal.read("model")
            if now is None or now.revision != entry.revision or now.state != "downloading":
                raise Superseded
            done = {"bundle": bundle.ref.digest[:16], "former": self._store.links(), "progress": 1.0, "retry": None}
            self._journal.write(now.step("verify", self._now().when, **done))
        self._backoff.reset()
        log.info("update %d: %s %s is here, whole and verified", entry.revision, order.name, order.version)

    def _progress(self, entry: Entry, part: float) -> None:
        self._move(entry, lambda e: e.model_copy(update={"progress": part}))

    def _go_on(self, entry: Entry) -> None:
        """Stop a download for a newer order, for a technician, and at the end of the hours. Raises."""
        self._listen()
        newest = self._journal.newest()
        if newest is not None and newest.revision > entry.revision and newest.model not in (None, entry.model):
            raise Superseded
        why = self._why_not_now(entry.model_copy(update={"retry": None}))
        if why is not None:
            raise Retryable(*why)

    def _try_later(self, entry: Entry, error: Retryable) -> None:
        missing = error.code == "update-missing" and entry.attempt >= MISSING_TRIES
        if missing:
            self._end(entry, Rejected("update-unlisted", f"{error}; it was asked for {entry.attempt} times", ""))
            return
        now, wait_s = self._now().when, self._backoff.next()
        waits = {"retry": now, "retry_s": 0.0 if error.code in ("update-window", "update-pinned") else wait_s}
        log.warning("update %d: %s [%s]; again in %.0f s", entry.revision, error, error.code, waits["retry_s"])
        self._move(entry, lambda e: e.step("defer", now, code=error.code, text=str(error), **waits))

    def _end(self, entry: Entry, error: ShelfwireError) -> None:
        log.error("update %d ends: %s [%s]", entry.revision, error, error.code)
        self._move(entry, lambda e: e.end(error.code, str(error), self._now().when))

    def _move(self, entry: Entry, change: Callable[[Entry], Entry]) -> Entry | None:
        """Move an update on if it is still where it was seen; None when it is not."""
        return moved(self._journal, entry, change)

    def _tidy(self, entry: Entry | None) -> None:
        """Remove what nothing needs, once after each update."""
        revision = entry.revision if entry is not None else 0
        if self._swept != revision:
            self._swept = revision
            self._store.sweep()


class Superseded(Exception):
    """A newer order has come: what is under way for the old one is of no use any more."""


def moved(journal: Journal, entry: Entry, change: Callable[[Entry], Entry]) -> Entry | None:
    """Change an update under the lock if it is still at the revision and state that were seen; None when it is not."""
    with journal.turn():
        now = journal.read(entry.what)
        if now is None or (now.revision, now.state) != (entry.revision, entry.state):
            return None
        new = change(now)
        if new != now:
            journal.write(new)
        return new


def running_of(store: Store, configured: ModelRef | None) -> ModelRef | None:
    """Name the model that answers by the links; the configured one when there is none."""
    bundle = store.bundle(store.links().current)
    return bundle.ref if bundle is not None else configured


def check_age(store: Store, model: ModelOrder, running: ModelRef | None) -> None:
    """Refuse what is older than what this device has kept. Raises `Rejected` (``update-rollback``).

    The very bundle that was kept last may come again: going back by hand lowers nothing.
    """
    same = running is not None and running.name == model.name
    floor = max(store.journal.floor(model.name), running.release if running is not None and same else 0)
    known = store.bundle(model.digest[:16])
    again = known is not None and known.ref.digest == model.digest and model.release == floor
    if model.release <= floor and not again:
        text = f"release {model.release} is ordered, and this device has had release {floor}"
        raise Rejected("update-rollback", text, "publish the old files as a new, higher release")


def fetch_bundle(store: Store, repository: Repository, order: ModelOrder, progress: Callable[[float], None]) -> bytes:
    """Bring the files of an order into the store; gives its `bundle.json`. Raises what `Repository` raises."""
    raw = repository.manifest(order)
    manifest = store.read_manifest(raw)
    _check_manifest(manifest, order)
    missing = store.missing(manifest)
    whole = sum(file.size_bytes for file in manifest.files) or 1
    left = sum(file.size_bytes for file in missing)
    store.need_room(left)
    for file in missing:
        progress(1 - left / whole)
        repository.fetch(file.sha256, file.size_bytes, store.blob(file.sha256))
        left -= file.size_bytes
    return raw


def bring_by_hand(
    store: Store, repository: Repository, order: ModelOrder, configured: ModelRef | None, when: When
) -> Entry:
    """Take a model from a technician's folder: verified as any other, then vision's to try. Raises `Rejected` and more.

    It counts as the answer to the newest order that was heard: only a newer one replaces it.
    """
    journal = store.journal
    if journal.pinned:
        raise Rejected("update-pinned", "a technician holds the model as it is", "shelfwire-agent model unpin")
    running = running_of(store, configured)
    if running is not None and running.digest == order.digest:
        raise Rejected("update-running", f"{order.name} {order.version} runs already", "nothing needs to be done")
    check_age(store, order, running)
    raw = fetch_bundle(store, repository, order, lambda _: None)
    with journal.turn():
        before, newest = journal.read("model"), journal.newest()
        if before is not None and before.state == "trial":
            hint = "wait for its end, or go back: shelfwire-agent model rollback"
            raise Rejected("update-busy", "a model is on trial now", hint)
        bundle = store.assemble(raw)
        entry = Entry(what="model", revision=newest.revision if newest is not None else 0, model=order, since=when)
        done = {"bundle": bundle.ref.digest[:16], "former": store.links(), "progress": 1.0}
        entry = entry.step("fetch", when, attempt=1).step("verify", when, **done)
        journal.write(entry)
    return entry


def take_up(journal: Journal, newest: Desired, what: What, when: When) -> None:
    """Begin with a newer order. What vision is at is vision's to end (`agent.proving`), and is ended soon."""
    goal = newest.model if what == "model" else newest.config
    if goal is None:
        return
    with journal.turn():
        entry = journal.read(what)
        if entry is not None and entry.revision >= newest.revision:
            return
        # An order that brings a model repeats the settings: those that are in force are not tried again.
        settled = entry is not None and entry.state == "committed" and what == "config" and goal == entry.config
        if entry is None or (entry.over and not settled):
            journal.write(begin(newest, what, when))
        elif goal in (entry.model, entry.config):  # the same again, perhaps with other hours: what was done counts
            again = begin(newest, what, when)
            kept = ("revision", "rollout", "download_window", "apply_window", "deadline_wall_ns")
            journal.write(entry.model_copy(update={name: getattr(again, name) for name in kept}))
        elif entry.owner == "sync":
            log.info("update %d: order %d takes its place", entry.revision, newest.revision)
            journal.write(begin(newest, what, when))


def _check_manifest(manifest: Manifest, order: ModelOrder) -> None:
    if (manifest.name, manifest.version, manifest.release) == (order.name, order.version, order.release):
        return
    what = f"{manifest.name} {manifest.version}, release {manifest.release}"
    raise Rejected("update-differs", f"{what}, came for {order.name} {order.version}, release {order.release}", "")


def hours(text: str | None) -> tuple[time, time] | None:
    """Read the hours of an order, as ``22:00-06:00``; None for any time."""
    if text is None:
        return None
    first, last = text.split("-")
    return time.fromisoformat(first), time.fromisoformat(last)


def _words(order: Desired) -> str:
    model = f"{order.model.name} {order.model.version}" if order.model is not None else ""
    return ", ".join(part for part in (model, "settings" if order.config is not None else "") if part) or "nothing new"
