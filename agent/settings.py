"""Settings that the cloud orders, on page 4's short way: checked, laid under the device's own file, kept if well.

    sync    desired -> offered -> [check: are they valid here?] -> verified
    vision  verified -> [check all, as at a reload] -> trial: a reload in place -> [well for long enough?]
            -> committed, or the former settings come back by a reload

`Offers` is sync's half, `Keeping` vision's. Every process compares what it runs with what the journal wants, and asks
for a reload when they differ: so each finds its way after a kill.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.core import lifecycle
from agent.core.days import in_window
from agent.core.updates import Entry, When
from agent.errors import Broken, Rejected, ShelfwireError
from agent.proving import MOST_CRASHES
from agent.update import Now, hours, moved, take_up
from agent.update_ports import Journal

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Settings go back when the device was not well for this many times the trial."""


class Files(Protocol):
    """Where ordered settings lie; see `agent.store.settings`."""

    def in_force(self) -> str:
        """Give what lies under the device's own configuration."""
        ...

    def former(self) -> str:
        """Give what lay there before."""
        ...

    def put(self, text: str) -> None:
        """Put settings in force."""
        ...

    def keep_former(self, text: str) -> None:
        """Keep what was in force."""
        ...


def wanted(entry: Entry | None, files: Files) -> str:
    """Tell which ordered settings must be in force by the journal."""
    if entry is None or entry.config is None:
        return files.in_force()
    if entry.state in lifecycle.NEW_ANSWERS:
        return entry.config.text
    return files.former() if entry.state == "rolled-back" else files.in_force()


def settle(journal: Journal, files: Files) -> str:
    """Have in force what the journal wants, and give it."""
    with journal.turn():
        text = wanted(journal.read("config"), files)
        if files.in_force() != text:
            files.put(text)
    return text


class Offers:
    """Sync's half: takes orders up, and refuses what is not valid on this device."""

    def __init__(self, journal: Journal, check: Callable[[str], object], now: Callable[[], Now]) -> None:
        """`check` raises `Rejected` for settings that do not fit under the device's own file."""
        self._journal = journal
        self._check = check
        self._now = now

    def turn(self) -> None:
        """Look once."""
        newest = self._journal.newest()
        if newest is not None:
            take_up(self._journal, newest, "config", self._now().when)
        entry = self._journal.read("config")
        if entry is None or entry.over or entry.owner != "sync" or entry.config is None:
            return
        try:
            self._check(entry.config.text)
        except (Rejected, Broken) as error:
            end(self._journal, entry, "update-config", error, self._now().when)
            return
        moved(self._journal, entry, lambda e: e.step("verify", self._now().when))


def end(journal: Journal, entry: Entry, code: str, error: ShelfwireError, when: When) -> None:
    """End an order of settings that never were in force."""
    text = f"{error} [{error.code}]"
    log.error("settings of order %d are refused: %s", entry.revision, text)
    moved(journal, entry, lambda e: e.end(code, text, when))


def begin(journal: Journal, files: Files, when: When) -> None:
    """Count a trial that was left without a goodbye, at every start of vision; with the second the former come back."""
    with journal.turn():
        entry = journal.read("config")
        if entry is None or entry.state != "trial":
            return
        crashes = entry.crashes + entry.open
        tried = entry.model_copy(update={"crashes": crashes, "open": True})
        if crashes >= MOST_CRASHES:
            tried = tried.end("update-crashed", f"vision ended {crashes} times with them without a goodbye", when)
        journal.write(tried)
        files.put(wanted(tried, files))


def go_back(journal: Journal, files: Files, code: str, text: str, when: When) -> bool:
    """Put the former settings in force again; False when there is no trial."""
    with journal.turn():
        entry = journal.read("config")
        if entry is None or entry.state != "trial":
            return False
        log.error("settings of order %d are rolled back: %s [%s]", entry.revision, text, code)
        back = entry.end(code, text, when)
        journal.write(back)
        files.put(wanted(back, files))
    return True


class Keeping:
    """Vision's half. `running` are the ordered settings that this life began with, `trouble` why they were left out.

    `check` raises for settings that vision could not run with; `ills` lists what is wrong now; `kept` says why a reload
    kept the old configuration, or that the new life did not come about; `reload` asks for one.
    """

    def __init__(
        self,
        journal: Journal,
        files: Files,
        now: Callable[[], Now],
        running: str,
        trouble: str,
        *,
        check: Callable[[str], object],
        ills: Callable[[], Sequence[str]],
        kept: Callable[[], str],
        reload: Callable[[], None],
        trial_s: float,
    ) -> None:
        self._journal = journal
        self._files = files
        self._now = now
        self._running = running
        self._trouble = trouble
        self._check = check
        self._ills = ills
        self._kept = kept
        self._reload = reload
        self._trial_s = trial_s
        self._well: When | None = None
        self._asked: str | None = None
        self._kept_before = ""

    def turn(self) -> None:
        """Look once."""
        entry = self._journal.read("config")
        text = settle(self._journal, self._files)
        if text != self._running:
            self._take_up(text)
        elif entry is not None and entry.state == "trial" and self._trouble:
            go_back(self._journal, self._files, "update-config", self._trouble, self._now().when)
        elif entry is not None and entry.state == "trial":
            self._try_on(entry)
        elif entry is not None and entry.state == "verified":
            self._let_in(entry)

    def close(self) -> None:
        """Say goodbye: no crash is counted."""
        with self._journal.turn():
            entry = self._journal.read("config")
            if entry is not None and entry.state == "trial":
                self._journal.write(entry.model_copy(update={"open": False}))

    def _take_up(self, text: str) -> None:
        """Ask for a reload, once for each change; settings that it did not take, or not in time, go."""
        entry = self._journal.read("config")
        tried = entry is not None and entry.state == "trial"
        kept, when = self._kept(), self._now().when
        if tried and kept and kept != self._kept_before:
            go_back(self._journal, self._files, "update-config", kept, when)
        elif self._asked != text:
            self._asked, self._kept_before = text, kept
            self._reload()
        elif tried and entry is not None and entry.since.age_s(when) > PATIENCE * self._trial_s:
            go_back(self._journal, self._files, "update-config", kept or "they were not taken up", when)

    def _let_in(self, entry: Entry) -> None:
        window = hours(entry.apply_window)
        if entry.config is None or (window is not None and not in_window(window, self._now().local)):
            return
        newest = self._journal.newest()
        if newest is not None and newest.revision > entry.revision and newest.config not in (None, entry.config):
            moved(self._journal, entry, lambda e: e.end("update-superseded", "a newer order came", self._now().when))
            return
        try:
            self._check(entry.config.text)
        except (Rejected, Broken) as error:
            end(self._journal, entry, "update-config", error, self._now().when)
            return
        self._files.keep_former(self._running)
        log.info("settings of order %d are taken up, on trial for %.0f s", entry.revision, self._trial_s)
        numbers = {"ills_before": float(len(self._ills()))}
        moved(self._journal, entry, lambda e: e.step("activate", self._now().when, numbers=numbers))

    def _try_on(self, entry: Entry) -> None:
        """Keep them when the device was well for the whole trial without a break."""
        when, ills = self._now().when, self._ills()
        if len(ills) > entry.numbers.get("ills_before", 0.0):
            self._well = None
            if entry.since.age_s(when) > PATIENCE * self._trial_s:
                go_back(self._journal, self._files, "update-unhealthy", "; ".join(ills), when)
            return
        self._well = self._well or when
        if self._well.age_s(when) >= self._trial_s:
            with self._journal.turn():
                now = self._journal.read("config")
                if now is not None and (now.revision, now.state) == (entry.revision, "trial"):
                    kept = now.step("commit", when, open=False, progress=1.0)
                    self._journal.write(kept, raise_floor=True)
            log.info("settings of order %d are kept", entry.revision)
