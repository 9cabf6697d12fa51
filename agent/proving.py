"""Page 4, vision's half: from a bundle that lies here to a model that is kept, or is not. Begin with `agent.update`.

verified -> [prove: fits? compile -> golden -> memory -> speed -> shadow] -> [activate] -> trial
trial -> [try_on: as well as in my 24 hours before?] -> committed, or back to the model before
"""

import logging
import threading
from collections.abc import Callable, Mapping

from agent.core import lifecycle, trial
from agent.core.days import in_window
from agent.core.gates import Disagreement, Terms
from agent.core.updates import Entry, Links, When
from agent.errors import Broken, Rejected, ShelfwireError
from agent.update import Now, Superseded, hours, moved
from agent.update_ports import Bench, House, Store
from models.bundle import Bundle
from wire import orders

log = logging.getLogger(__name__)

MOST_CRASHES = 2
"""Ends of vision without a goodbye after which a model that is tried, or on trial, is given up."""

TRIED = ("verified", "compiled", "golden", "shadow")
"""States in which a model is tried, or waits for it."""

PICK_S = 0.5
"""How long the shadow waits for a picture before it looks at the stop and at newer orders."""


def wake(store: Store, when: When) -> None:
    """Put right what the process before has left, before any model is opened: at every start of vision.

    What was tried in a child is tried again from its first gate. A trial that was left without a goodbye counts as a
    crash, and with the second the model before comes back.
    """
    with store.journal.turn():
        entry = store.journal.read("model")
        if entry is not None and entry.state in TRIED:
            store.journal.write(_tried_again(entry, when))
        elif entry is not None and entry.state == "trial":
            crashes = entry.crashes + entry.open
            tried = entry.model_copy(update={"crashes": crashes, "open": True})
            if crashes >= MOST_CRASHES:
                store.keep_failed(tried, {})
                text = f"the device's vision ended {crashes} times in its trial without a goodbye"
                tried = tried.end("update-crashed", text, when, numbers={"crashes": float(crashes)})
                log.error("update %d is rolled back: %s", entry.revision, text)
            store.journal.write(tried)
    store.recover()


def _tried_again(entry: Entry, when: When) -> Entry:
    """Have it tried again from its first gate, unless the process that tried it has died over it too often."""
    crashes = entry.crashes + entry.open
    again = entry.model_copy(update={"crashes": crashes, "open": False})
    if crashes >= MOST_CRASHES:
        text = f"the device's vision ended {crashes} times without a goodbye while it was tried"
        return again.end("update-crashed", text, when, numbers={**entry.numbers, "crashes": float(crashes)})
    return again if entry.state == "verified" else again.step("restart", when)


def give_up(store: Store, when: When, error: ShelfwireError) -> bool:
    """Go back from a model that cannot be opened at a start; False when it is not one that came by an update."""
    with store.journal.turn():
        entry = store.journal.read("model")
        if entry is None or entry.state not in lifecycle.NEW_ANSWERS or entry.bundle != store.links().current:
            return False
        store.keep_failed(entry, {})
        ended = entry.end(error.code if error.code in lifecycle.CODES else "update-compile", str(error), when)
        store.journal.write(ended)
        store.point(store.wanted(ended))
    log.error("update %d is rolled back: %s [%s]", entry.revision, error, error.code)
    store.recover()
    return True


def go_back_by_hand(store: Store, when: When) -> Links:
    """Have the model before answer again, because a technician wants it; gives what the links name then.

    Vision follows within a second, or at its next start. Raises `Rejected` (``update-none-before``).
    """
    with store.journal.turn():
        entry, links = store.journal.read("model"), store.links()
        if links.current is None:
            text, hint = "the configured model answers already", "give another in [model] bundle of the configuration"
            raise Rejected("update-none-before", text, hint)
        back: Entry | None = None
        if entry is not None and entry.state in lifecycle.NEW_ANSWERS and entry.bundle == links.current:
            back = entry.end("update-withdrawn", "a technician went back to the model before", when)
        else:
            before = Links(current=links.previous)
            back = entry.model_copy(update={"former": before}) if entry is not None else None
        if back is not None:
            store.journal.write(back)
        store.point(
            store.wanted(back) if back is not None and back.bundle is not None else Links(current=links.previous)
        )
    store.recover()
    return store.links()


class Proving:
    """Vision's half, on a thread of its own: tries what sync has brought, and watches over what it lets in."""

    def __init__(self, store: Store, house: House, terms: Terms, now: Callable[[], Now], stop: threading.Event) -> None:
        self._store = store
        self._journal = store.journal
        self._house = house
        self._terms = terms
        self._now = now
        self._stop = stop
        self._trying: int | None = None
        self._trouble = ""

    def turn(self) -> None:
        """Look once: what `current` names must answer, and what is vision's to do is done."""
        self._follow()
        entry = self._journal.read("model")
        if entry is None or entry.owner != "vision":
            return
        if entry.state == "trial":
            self._try_on(entry)
        elif self._superseded(entry):
            self._end(entry, "update-superseded", "a newer order has taken its place")
        elif self._is_late(entry):
            self._end(entry, "update-deadline", "it was not tried within its time")
        elif entry.state != "verified":  # what broke off in between begins anew
            moved(self._journal, entry, lambda e: e.step("restart", self._now().when))
        elif self._may_apply(entry):
            self._prove(entry)

    def close(self) -> None:
        """Say goodbye: a trial that is under way goes on at the next start, and no crash is counted."""
        with self._journal.turn():
            entry = self._journal.read("model")
            if entry is not None and entry.open:
                self._journal.write(entry.model_copy(update={"open": False}))

    def _follow(self) -> None:
        """Have the model answer that `current` names: a technician may have gone back by hand."""
        key = self._store.links().current
        if key == self._house.key:
            return
        bundle = self._store.bundle(key)
        if bundle is None and key is not None:
            self._store.recover()
            return
        try:
            self._house.take_up(self._house.open(bundle))
            self._trouble = ""
        except (Rejected, Broken) as error:
            if str(error) != self._trouble:
                log.error("the model that was chosen cannot answer: %s [%s]; the one before goes on", error, error.code)
            self._trouble = str(error)

    def _superseded(self, entry: Entry) -> bool:
        newest = self._journal.newest()
        if newest is None or newest.revision <= entry.revision:
            return False
        return newest.model is not None and newest.model != entry.model

    def _is_late(self, entry: Entry) -> bool:
        now = self._now()
        over = entry.deadline_wall_ns is not None and now.sure and now.when.wall_ns > entry.deadline_wall_ns
        return over or entry.expired(now.when)

    def _may_apply(self, entry: Entry) -> bool:
        window = hours(entry.apply_window)
        return window is None or in_window(window, self._now().local)

    def _prove(self, entry: Entry) -> None:
        """Try it: every gate, then beside the running model on live pictures; and let it in when it passed all."""
        bundle = self._store.bundle(entry.bundle)
        if bundle is None:
            self._end(entry, "update-digest", "its files are not whole any more")
            return
        bench: Bench | None = None
        moved(self._journal, entry, lambda e: e.model_copy(update={"open": True}))
        try:
            self._house.fits(bundle)
            bench = self._house.bench(bundle)
            bench.compiled()
            entry = self._step(entry, "compile", bench)
            bench.golden()
            bench.fast()
            entry = self._step(entry, "match", bench)
            entry = self._step(entry, "watch", bench)
            entry = self._shadow(entry, bundle, bench)
            bench.close()
            self._activate(entry, bundle)
        except Superseded:
            pass  # the next turn ends it
        except (Rejected, Broken) as error:
            self._refuse(entry, error)
        finally:
            self._house.pick_every(None)
            if bench is not None:
                bench.close()

    def _step(self, entry: Entry, event: lifecycle.Event, bench: Bench) -> Entry:
        numbers = dict(bench.numbers)
        new = moved(self._journal, entry, lambda e: e.step(event, self._now().when, numbers=numbers))
        if new is None or self._superseded(new) or self._stop.is_set():
            raise Superseded
        return new

    def _shadow(self, entry: Entry, bundle: Bundle, bench: Bench) -> Entry:
        """Ask both models about picked live pictures until it is clear whether they agree. Raises `Rejected`."""
        terms = self._terms
        test = Disagreement(terms.disagreement, terms.shadow_frames)
        slowest: list[float] = []
        self._house.pick_every(terms.shadow_every_s)
        while (verdict := test.verdict()) == "open":
            if self._stop.is_set() or self._superseded(entry):
                raise Superseded
            if entry.expired(self._now().when, terms.shadow_limit_s):
                verdict = test.final()
                break
            picked = self._house.pick(PICK_S)
            if picked is None:
                continue
            picture, running = picked
            answer = bench.ask(picture)
            if answer is None:
                raise Superseded
            slowest = sorted([*slowest, answer.took_ms])[-max(2, test.frames // 20) :]
            test.add(running, self._house.named(bundle, answer))
            if test.frames % 10 == 0:
                entry = self._note(entry, test, bench, slowest)
        entry = self._note(entry, test, bench, slowest)
        if verdict == "open":
            raise Rejected("update-no-frames", f"only {test.frames} pictures came in its time, {test.least} are needed",
                           "")  # fmt: skip
        if verdict == "differs":
            text = f"it names {test.differ} of {test.frames} live pictures otherwise than the running model"
            raise Rejected("update-disagrees", text, "")
        return entry

    def _note(self, entry: Entry, test: Disagreement, bench: Bench, slowest: list[float]) -> Entry:
        """Keep how the shadow goes."""
        numbers = {
            **bench.numbers,
            "shadow_frames": float(test.frames),
            "shadow_differ": float(test.differ),
            "limit_disagreement": test.limit,
            "shadow_p95_ms": round(slowest[0], 2) if slowest else 0.0,
        }
        worst = tuple(orders.Disagreement(label=label, frames=n, differ=differ) for label, n, differ in test.worst(20))
        part = min(1.0, test.frames / test.least)
        changes = {"numbers": numbers, "disagreements": worst, "progress": part}
        new = moved(self._journal, entry, lambda e: e.model_copy(update=changes))
        if new is None:
            raise Superseded
        return new

    def _activate(self, entry: Entry, bundle: Bundle) -> None:
        """Let it answer: it is opened beside the running one, the journal says so, then the links, then the frames."""
        opened = self._house.open(bundle, proven=True)
        connected = bool(self._house.connected())
        with self._journal.turn():
            now = self._journal.read("model")
            if now is None or (now.revision, now.state) != (entry.revision, "shadow") or self._superseded(now):
                raise Superseded
            begun = now.step("activate", self._now().when, former=self._store.links(), open=True, crashes=0,
                             connected=connected, numbers=now.numbers, progress=0.0)  # fmt: skip
            self._journal.write(begun)
            self._store.point(self._store.wanted(begun))
        self._house.take_up(opened)
        self._begin_trial(begun)

    def _begin_trial(self, entry: Entry) -> None:
        self._trying = entry.revision
        self._house.begin_trial()
        log.info("update %d: %s answers now, on trial for %.0f s", entry.revision, self._name(entry),
                 self._terms.trial_s)  # fmt: skip

    def _name(self, entry: Entry) -> str:
        return f"{entry.model.name} {entry.model.version}" if entry.model is not None else "the model"

    def _try_on(self, entry: Entry) -> None:
        """Compare this device with itself before: worse is back at once, well to the end is kept."""
        if self._trying != entry.revision:
            self._begin_trial(entry)
        before, whole, recent = self._house.tallies()
        worse = trial.complaints(before, whole, self._terms) or trial.complaints(before, recent, self._terms)
        numbers = {**trial.summary(before, whole), "crashes": float(entry.crashes)}
        if worse:
            figures = {**numbers, **{k: round(v, 4) for one in worse for k, v in one.numbers.items()}}
            self._go_back(entry, "update-unhealthy", "; ".join(one.text for one in worse), figures)
            return
        now = self._now().when
        lost = entry.connected and self._house.connected() is False
        enough = entry.since.age_s(now) >= self._terms.trial_s and whole.answered >= self._terms.trial_frames
        if enough and not lost:
            self._commit(entry, numbers)
        elif entry.expired(now, self._terms.trial_limit_s):
            why = (
                "the device was connected to its broker before and is not any more"
                if lost
                else f"only {whole.answered} frames were answered, {self._terms.trial_frames} are needed"
            )
            self._go_back(entry, "update-unhealthy" if lost else "update-no-frames", why, numbers)

    def _commit(self, entry: Entry, numbers: dict[str, float]) -> None:
        with self._journal.turn():
            now = self._journal.read("model")
            if now is None or (now.revision, now.state) != (entry.revision, "trial"):
                return
            kept = now.step("commit", self._now().when, numbers=numbers, open=False, progress=1.0)
            self._journal.write(kept, raise_floor=True)
        self._trying = None
        self._house.end_trial(keep=True)
        log.info("update %d: %s is kept", entry.revision, self._name(entry))

    def _go_back(self, entry: Entry, code: str, text: str, numbers: dict[str, float]) -> None:
        """Have the model before answer again: what is known of this one is saved first."""
        log.error("update %d is rolled back: %s [%s]", entry.revision, text, code)
        self._store.keep_failed(entry.model_copy(update={"numbers": numbers}), self._house.said())
        with self._journal.turn():
            now = self._journal.read("model")
            if now is None or (now.revision, now.state) != (entry.revision, "trial"):
                return
            ended = now.end(code, text, self._now().when, numbers=numbers)
            self._journal.write(ended)
            self._store.point(self._store.wanted(ended))
        self._trying = None
        self._house.end_trial(keep=False)
        self._follow()

    def _refuse(self, entry: Entry, error: ShelfwireError) -> None:
        numbers: dict[str, float] = getattr(error, "numbers", {})
        self._store.keep_failed(entry.model_copy(update={"numbers": {**entry.numbers, **numbers}}), self._house.said())
        self._end(entry, error.code, str(error), numbers)

    def _end(self, entry: Entry, code: str, text: str, numbers: Mapping[str, float] | None = None) -> None:
        """End an update before it has answered anything; what was measured until then stays with it."""
        log.error("update %d ends before it answered anything: %s [%s]", entry.revision, text, code)
        more = numbers or {}
        moved(self._journal, entry, lambda e: e.end(code, text, self._now().when, numbers={**e.numbers, **more}))
