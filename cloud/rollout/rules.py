"""Who gets an update when, and what stops it: pure rules. Time and presence are passed in; nothing here knows a store.

A rollout has batches. Each names devices: a number or a part of those with a label or in a shop, in an order that
depends on nothing but the names of device and rollout. So 10 % are inside 25 %, and the plan that was printed is what
happens. A batch opens when the one before has soaked; devices that are offline hold it up no more than they count.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from cloud.errors import Rejected
from cloud.rollout.lifecycle import BAD, ENDED, Part, State

GRACE_S: Final = 120.0
"""A device ends an order at its deadline by itself; so long it may take until we hear of that."""
MOST_BATCHES: Final = 20
LIMITED: Final = ("failed", "rejected", "rolled-back", "silent")
_BATCH: Final = re.compile(r"(?:(label|store)=([^:=]{1,64}):)?(?:(\d{1,6})|(\d{1,3}(?:\.\d{1,3})?)%|(all))")
_LIMIT: Final = re.compile(r"(\d{1,6})|(\d{1,3}(?:\.\d{1,3})?)%")


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the fleet. `store` is "" where it is not known."""

    device: str
    store: str = ""
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Batch:
    """So many devices (`number`), or such a part of them (`percent`), of those with a label or in a shop."""

    number: int | None = None
    percent: float | None = None
    label: str | None = None
    store: str | None = None

    def __str__(self) -> str:
        """Give it as it is written in a command."""
        size = str(self.number) if self.number is not None else "all" if self.percent == 100 else f"{self.percent:g}%"
        where = f"label={self.label}:" if self.label else f"store={self.store}:" if self.store else ""
        return where + size

    def takes(self, member: Member) -> bool:
        """Whether a device may be in it."""
        return (self.label is None or self.label in member.labels) and self.store in (None, member.store)

    def size_of(self, pool: int) -> int:
        """How many of `pool` devices it wants; a part of some devices is at least one."""
        if self.number is not None:
            return min(self.number, pool)
        assert self.percent is not None
        return min(pool, math.ceil(pool * self.percent / 100 - 1e-9))


@dataclass(frozen=True, slots=True)
class Limit:
    """How many devices may end in one way before the rollout is aborted: a number, or a part of those that ended."""

    number: int | None = None
    percent: float | None = None

    def __str__(self) -> str:
        """Give it as it is written in a command."""
        return str(self.number) if self.number is not None else f"{self.percent:g}%"

    def passed(self, count: int, ended: int, opened: int, sample: int) -> bool:
        """Whether `count` devices are too many, of `ended` that have ended and `opened` whose batch is open.

        A part is judged once `sample` devices have ended, and before that only when the others could not mend it.
        """
        if self.number is not None:
            return count > self.number
        assert self.percent is not None
        of = ended if ended >= sample else opened
        return of > 0 and count * 100 > self.percent * of


def _limits() -> dict[str, Limit]:
    return {name: Limit(percent=10.0) for name in LIMITED}


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator may choose. Times in seconds; `at_once` is how many devices are under way in all shops."""

    batches: tuple[Batch, ...] = (Batch(number=1), Batch(percent=10.0), Batch(percent=50.0), Batch(percent=100.0))
    success_percent: float = 95.0
    min_sample: int = 5
    soak_s: float = 3600.0
    deadline_s: float = 86_400.0
    at_once: int = 50
    limits: Mapping[str, Limit] = field(default_factory=_limits)


@dataclass(frozen=True, slots=True)
class Planned:
    """A device's place: its batch, counted from 0, and its place in the order."""

    member: Member
    batch: int
    place: int


@dataclass(frozen=True, slots=True)
class Doing:
    """One device's part as it stands. `heard`: it has said something about this order. `online`: it is there now.

    `busy`: another rollout has an order under way on it.
    """

    device: str
    store: str
    batch: int
    place: int
    state: Part = "waiting"
    ordered_at: datetime | None = None
    heard: bool = False
    online: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rollout is. `batch` is the newest open one; `good_since` is when it began to soak."""

    state: State
    batch: int = 0
    good_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: devices to order, orders to take back, parts that are silent, and where the rollout is then.

    `reason` says in a sentence what it waits for, or why it stopped.
    """

    standing: Standing
    order: tuple[str, ...] = ()
    take_back: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    reason: str = ""
    code: Literal["", "abort-limit", "success-low"] = ""


# -- the plan ------------------------------------------------------------------------------------------------------


def rank(device: str, rollout: str) -> bytes:
    """Give a device's place in line, which depends on nothing but these two names."""
    return hashlib.sha256(f"{rollout}\0{device}".encode()).digest()


def plan(members: Collection[Member], batches: Sequence[Batch], rollout: str) -> tuple[Planned, ...]:
    """Give each device the first batch that it is in; devices in none stay as they are and are left out."""
    line = sorted(members, key=lambda member: rank(member.device, rollout))
    found: dict[str, int] = {}
    for number, batch in enumerate(batches):
        pool = [member for member in line if batch.takes(member)]
        for member in pool[: batch.size_of(len(pool))]:
            found.setdefault(member.device, number)
    chosen = sorted((member for member in line if member.device in found), key=lambda one: found[one.device])
    return tuple(Planned(member, found[member.device], place) for place, member in enumerate(chosen))


def parse_batch(text: str) -> Batch:
    """Read a batch: 3, 10%, all, label=canary:all, store=store-12:1. Raises `Rejected` (``bad-batch``)."""
    match = _BATCH.fullmatch(text.strip())
    number = int(match[3]) if match and match[3] else None
    percent = 100.0 if match and match[5] else float(match[4]) if match and match[4] else None
    if match is None or number == 0 or (percent is not None and not 0 < percent <= 100):
        raise Rejected(
            "bad-batch", f"{text!r} is no batch of devices",
            "a number or a part of them: 1, 10%, all; of some: label=canary:all, store=store-12:1",
        )  # fmt: skip
    label, store = (match[2], None) if match[1] == "label" else (None, match[2])
    return Batch(number, percent, label, store)


def parse_limit(text: str) -> Limit:
    """Read a limit: 2 or 5%. Raises `Rejected` (``bad-limit``)."""
    match = _LIMIT.fullmatch(text.strip())
    if match is None or (match[2] and float(match[2]) > 100):
        raise Rejected("bad-limit", f"{text!r} is no limit", "so many devices, or a part of those that ended: 2, 5%")
    return Limit(int(match[1])) if match[1] else Limit(percent=float(match[2]))


# -- what to do next -----------------------------------------------------------------------------------------------


def next_step(
    standing: Standing, parts: Sequence[Doing], rules: Rules, now: datetime, taken: Collection[str] = ()
) -> Step:
    """Say what follows. `taken` are shops in which another rollout has a device under way.

    Paused: nobody new is ordered, but what is under way is followed, and limits count.
    """
    if standing.state not in ("running", "paused", "catching-up"):
        return Step(standing)
    parts = sorted(parts, key=lambda part: part.place)
    silent = tuple(p.device for p in parts if _is_silent(p, rules, now))
    take_back = tuple(p.device for p in parts if _is_unheard(p, rules, now) and not p.online)
    parts = [_moved(p, silent, take_back) for p in parts]
    opened = [part for part in parts if part.batch <= standing.batch]
    passed = _passed_limit(opened, rules)
    if passed:
        return Step(Standing("aborted", standing.batch), (), take_back, silent, passed, "abort-limit")
    if standing.state == "paused":
        return Step(standing, (), take_back, silent, "paused; resume it to go on")
    return _go_on(standing, parts, rules, now, _Moved(take_back, silent, taken))


@dataclass(frozen=True, slots=True)
class _Moved:
    take_back: tuple[str, ...]
    silent: tuple[str, ...]
    taken: Collection[str]


def _go_on(standing: Standing, parts: list[Doing], rules: Rules, now: datetime, moved: _Moved) -> Step:
    """Open batches as far as they are through, then order who is next."""
    last = max((part.batch for part in parts), default=0)
    reason, code = "", ""
    while standing.state == "running":
        reason = _holds_up(parts, standing.batch, rules)
        if reason:
            standing = Standing("running", standing.batch)
            code = "success-low" if reason.startswith("success") else ""
            break
        good_since = standing.good_since or now
        left_s = rules.soak_s - (now - good_since).total_seconds()
        if left_s > 0:
            standing = Standing("running", standing.batch, good_since)
            until = good_since + timedelta(seconds=rules.soak_s)
            reason = f"batch {standing.batch + 1} soaks until {until:%Y-%m-%d %H:%M:%S} UTC"
            break
        standing = Standing("catching-up", last) if standing.batch >= last else Standing("running", standing.batch + 1)
    if code:
        return Step(Standing("paused", standing.batch), (), moved.take_back, moved.silent, reason, "success-low")
    if standing.state == "catching-up":
        waiting = sum(part.state in ("waiting", "ordered") for part in parts)
        if not waiting:
            return Step(Standing("finished", last), (), moved.take_back, moved.silent, "every device has ended")
        reason = f"{waiting} {'device' if waiting == 1 else 'devices'} still to come: offline, or under way"
    chosen = _choose([part for part in parts if part.batch <= standing.batch], rules, moved.taken)
    return Step(standing, chosen, moved.take_back, moved.silent, reason)


def _choose(opened: Sequence[Doing], rules: Rules, taken: Collection[str]) -> tuple[str, ...]:
    """Choose who is ordered now: online, one at a time in each shop, and no more than `at_once` in all."""
    under_way = [part for part in opened if part.state == "ordered"]
    shops = {_shop(part) for part in under_way} | set(taken)
    room = rules.at_once - len(under_way)
    chosen: list[str] = []
    for part in opened:
        if len(chosen) >= room:
            break
        if part.state == "waiting" and part.online and not part.busy and _shop(part) not in shops:
            shops.add(_shop(part))
            chosen.append(part.device)
    return tuple(chosen)


def _shop(part: Doing) -> str:
    """Name the shop whose budget a device needs; one without a shop stands for itself."""
    return part.store or f"\0{part.device}"


def shop_key(device: str, store: str) -> str:
    """Name the shop whose budget a device needs, as `next_step` takes it in `taken`."""
    return store or f"\0{device}"


def _holds_up(parts: Sequence[Doing], batch: int, rules: Rules) -> str:
    """Say why the batch is not through; "" when it is. Who is offline and has no order holds nothing up."""
    opened = [part for part in parts if part.batch <= batch]
    under_way = sum(part.state == "ordered" for part in opened)
    to_come = sum(part.state == "waiting" and part.online for part in opened)
    ended = [part for part in opened if part.state in ENDED]
    if under_way or to_come:
        return f"batch {batch + 1}: {len(ended)} ended, {under_way} under way, {to_come} to come"
    sample = min(rules.min_sample, len(opened))
    if len(ended) < sample:
        return f"batch {batch + 1}: {len(ended)} of the {sample} devices have ended that it must be judged by"
    done = sum(part.state == "done" for part in ended)
    if ended and done * 100 < rules.success_percent * len(ended):
        return f"success is {done} of {len(ended)}, below {rules.success_percent:g} %"
    return ""


def _passed_limit(opened: Sequence[Doing], rules: Rules) -> str:
    counts = Counter(part.state for part in opened)
    ended = sum(counts[state] for state in ENDED)
    sample = min(rules.min_sample, len(opened))
    for name in BAD:
        limit = rules.limits.get(name)
        if limit is not None and limit.passed(counts[name], ended, len(opened), sample):
            return f"{counts[name]} of {ended} devices that ended are {name}, above the limit of {limit}"
    return ""


def _moved(part: Doing, silent: Collection[str], take_back: Collection[str]) -> Doing:
    if part.device not in silent and part.device not in take_back:
        return part
    state: Part = "silent" if part.device in silent else "waiting"
    return Doing(part.device, part.store, part.batch, part.place, state, None, part.heard, part.online, part.busy)


def _late(part: Doing, rules: Rules, now: datetime) -> bool:
    if part.state != "ordered" or part.ordered_at is None:
        return False
    return now > part.ordered_at + timedelta(seconds=rules.deadline_s + GRACE_S)


def _is_silent(part: Doing, rules: Rules, now: datetime) -> bool:
    """Whether a device had its order and says no end. One that began and went away is silent: that may be our doing."""
    return _late(part, rules, now) and (part.heard or part.online)


def _is_unheard(part: Doing, rules: Rules, now: datetime) -> bool:
    """Whether an order can be taken back: its device went away before it said a word about it."""
    return _late(part, rules, now) and not part.heard
