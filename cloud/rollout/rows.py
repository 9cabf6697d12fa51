"""Rollouts in the store: begin, look, change, and the step of the conductor. Every method is one transaction."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg.rows import TupleRow, class_row, dict_row
from pydantic import TypeAdapter

from cloud.errors import Rejected
from cloud.rollout import audit
from cloud.rollout.lifecycle import OVER, SAID, Event, State, after
from cloud.rollout.rules import Member, Planned, Rules, plan
from cloud.store.sql import statements
from wire import bounds
from wire.orders import ConfigOrder, Desired, ModelOrder

if TYPE_CHECKING:
    from cloud.store import Pool

SQL = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("rollout.sql")).items()}

STALE_S = 45.0
"""A device that has said nothing for so long is not ordered: as the Live page counts it."""
WAIT_S = 5.0
STATEMENT_MS = 30_000

Connection = psycopg.Connection[TupleRow]
What = Literal["model", "config"]
Target = ModelOrder | ConfigOrder

_RULES = TypeAdapter(Rules)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as it stands. `counts` are its devices by the state of their part."""

    id: str
    what: What
    title: str
    target: dict[str, Any]
    rules: dict[str, Any]
    reverts: str | None
    state: State
    batch: int
    good_since: datetime | None
    reason: str
    made_by: str
    made_at: datetime
    changed_at: datetime
    counts: dict[str, int]

    @property
    def chosen(self) -> Rules:
        """The rules that its operator chose."""
        return read_rules(self.rules)


@dataclass(frozen=True, slots=True)
class PartRow:
    """One device's part, what its device said last, and whether it is there."""

    device: str
    store: str
    batch: int
    place: int
    state: str
    revision: int | None
    ordered_at: datetime | None
    ended_at: datetime | None
    update_state: str
    progress: float
    code: str
    text: str
    numbers: dict[str, float]
    former: dict[str, Any] | None
    reported: dict[str, Any] | None
    online: bool
    busy: bool
    shut_out: bool


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device of the fleet: its presence, what it says it runs, and what it should run."""

    device: str
    store: str
    state: str | None
    seen_at: datetime | None
    agent: str | None
    status: dict[str, Any] | None
    reported: dict[str, Any] | None
    reported_at: datetime | None
    revision: int | None
    desired: dict[str, Any] | None
    labels: list[str]


def read_rules(kept: Mapping[str, Any]) -> Rules:
    """Read rules as they are kept."""
    return _RULES.validate_python(kept)


def keep_rules(rules: Rules) -> str:
    """Write rules to be kept."""
    return _RULES.dump_json(rules).decode()


class Rollouts:
    """Rollouts through the store's pool. Thread safe.

    Methods raise `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    def members(self) -> list[Member]:
        """Give every device that may take part."""
        with self._connection() as connection:
            return [Member(d, s, frozenset(labels)) for d, s, labels in connection.execute(SQL["members"]).fetchall()]

    def label(self, device: str, add: Sequence[str], drop: Sequence[str], who: str, now: datetime) -> list[str]:
        """Give a device labels, or take them; gives those that it has then."""
        with self._connection() as connection:
            for name, labels in (("add_label", add), ("drop_label", drop)):
                for label in labels:
                    connection.execute(SQL[name], {"device": device, "label": label})
            audit.append(connection, now, who, "label", device, added=list(add), dropped=list(drop))
            rows = connection.execute("SELECT label FROM fleet_label WHERE device = %s ORDER BY label", (device,))
            return [label for (label,) in rows.fetchall()]

    def planned(self, rollout: str, rules: Rules, only: Sequence[str] | None = None) -> tuple[Planned, ...]:
        """Tell who would get it when. Raises `Rejected` (``nobody``) when no device is in any batch."""
        members = [m for m in self.members() if only is None or m.device in only]
        found = plan(members, rules.batches, rollout)
        if not found:
            raise Rejected(
                "nobody", f"no device of {len(members)} is in any of these batches",
                "see shelfwire-cloud fleet device list; give labels with: shelfwire-cloud fleet label DEVICE LABEL",
            )  # fmt: skip
        return found

    def begin(
        self, rollout: str, title: str, target: Target, rules: Rules, who: str, now: datetime,
        *, reverts: str | None = None, only: Sequence[str] | None = None,
    ) -> tuple[Planned, ...]:  # fmt: skip
        """Start a rollout as its plan says. Raises `Rejected` (``nobody``, ``rollout-exists``, ``rollout-in-the-way``).

        One that only waits for devices that are offline gives way; one that is at work does not.
        """
        found = self.planned(rollout, rules, only)
        what = "model" if isinstance(target, ModelOrder) else "config"
        with self._connection() as connection:
            audit.hold(connection)
            _make_way(connection, what, [one.member.device for one in found], rollout, who, now)
            values = {
                "id": rollout, "what": what, "title": title, "target": target.model_dump_json(), "who": who,
                "rules": keep_rules(rules), "reverts": reverts, "now": now,
            }  # fmt: skip
            try:
                connection.execute(SQL["add_rollout"], values)
            except psycopg.errors.UniqueViolation:
                raise Rejected(
                    "rollout-exists", f"there is a rollout {rollout} already", "give another name with --id"
                ) from None
            with connection.cursor() as cursor:
                cursor.executemany(SQL["add_part"], [
                    {"rollout": rollout, "device": one.member.device, "store": one.member.store, "batch": one.batch,
                     "place": one.place} for one in found
                ])  # fmt: skip
            audit.append(
                connection, now, who, "start", rollout, title=title, devices=len(found), reverts=reverts,
                target=target.model_dump() if what == "model" else None, rules=json.loads(keep_rules(rules)),
            )  # fmt: skip
        return found

    def all(self, limit: int = 50) -> list[Rollout]:
        """Give the newest rollouts."""
        with self._connection() as connection:
            return read(connection, None, limit)

    def one(self, rollout: str) -> Rollout:
        """Give one rollout. Raises `Rejected` (``rollout-unknown``)."""
        with self._connection() as connection:
            return read_one(connection, rollout)

    def parts(self, rollout: str, now: datetime) -> list[PartRow]:
        """Give the parts of a rollout in their order."""
        with self._connection() as connection:
            return read_parts(connection, rollout, now)

    def change(self, rollout: str, event: Event, reason: str, who: str, now: datetime) -> State:
        """Pause, resume or abort. Raises `Rejected` (``rollout-unknown``, ``rollout-state``).

        An abort takes back the orders of devices that are not in their trial yet: they get their former goal again.
        """
        with self._connection() as connection:
            one = read_one(connection, rollout, hold=True)
            into = after(one.state, event)
            if into is None:
                raise Rejected("rollout-state", f"{rollout} is {one.state}: it cannot {event}", _what_can(one.state))
            end(connection, one, into, reason, who, now)
            return into

    def accept(self, rollout: str, rules: Rules, who: str, now: datetime) -> None:
        """Change what a rollout is judged by. Raises `Rejected` (``rollout-unknown``)."""
        with self._connection() as connection:
            before = read_one(connection, rollout, hold=True)
            connection.execute(SQL["set_rules"], {"id": rollout, "rules": keep_rules(rules), "now": now})
            new = json.loads(keep_rules(rules))
            audit.append(connection, now, who, "rules", rollout, old=before.rules, new=new)

    def devices(self, device: str | None = None) -> list[DeviceRow]:
        """Give the devices of the fleet with what they report, or one."""
        with self._connection() as connection, connection.cursor(row_factory=class_row(DeviceRow)) as cursor:
            return cursor.execute(SQL["device"], {"device": device}).fetchall()

    def history(self, device: str, limit: int = 10) -> list[dict[str, Any]]:
        """Give the rollouts that a device takes part in, the newest first."""
        with self._connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(SQL["why"], {"device": device, "limit": limit}).fetchall()

    def steps(self, device: str, limit: int = 30) -> list[dict[str, Any]]:
        """Give the newest steps that a device has told."""
        with self._connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(SQL["steps"], {"device": device, "limit": limit}).fetchall()

    def audit_lines(self, limit: int, subject: str | None = None) -> list[audit.Line]:
        """Give the newest lines of the audit."""
        with self._connection() as connection:
            return audit.newest(connection, limit, subject)

    def verify_audit(self, known: str | None = None) -> audit.Verified:
        """Go through the audit; see `audit.verify`."""
        with self._connection() as connection:
            return audit.verify(connection, known)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
            yield connection


# -- inside a transaction ------------------------------------------------------------------------------------------


def read(connection: Connection, rollout: str | None, limit: int) -> list[Rollout]:
    """Read rollouts, or one, the newest first."""
    with connection.cursor(row_factory=class_row(Rollout)) as cursor:
        return cursor.execute(SQL["rollouts"], {"id": rollout, "limit": limit}).fetchall()


def read_one(connection: Connection, rollout: str, *, hold: bool = False) -> Rollout:
    """Read one rollout; `hold`: nobody else changes it until the transaction ends. Raises `Rejected`."""
    if hold:
        audit.hold(connection)
        connection.execute(SQL["rollout_for_change"], {"id": rollout})
    found = read(connection, rollout, 1)
    if not found:
        raise Rejected(
            "rollout-unknown", f"no rollout is called {rollout[:80]}", "see shelfwire-cloud fleet rollout list"
        )
    return found[0]


def read_parts(connection: Connection, rollout: str, now: datetime) -> list[PartRow]:
    """Read the parts of a rollout in their order."""
    with connection.cursor(row_factory=class_row(PartRow)) as cursor:
        values = {"rollout": rollout, "now": now, "stale_s": STALE_S}
        return cursor.execute(SQL["parts"], values).fetchall()


def write_part(connection: Connection, rollout: str, part: PartRow) -> None:
    """Write a part as it stands now."""
    connection.execute(SQL["set_part"], {
        "rollout": rollout, "device": part.device, "state": part.state, "revision": part.revision,
        "ordered_at": part.ordered_at, "ended_at": part.ended_at, "update_state": part.update_state,
        "progress": part.progress, "code": part.code, "text": part.text, "numbers": json.dumps(part.numbers),
        "former": None if part.former is None else json.dumps(part.former),
    })  # fmt: skip


def order(connection: Connection, one: Rollout, part: PartRow, now: datetime, deadline_at: datetime | None) -> PartRow:
    """Give a device its order: the goal that it has, with this rollout's part of it exchanged.

    What it has refused or gone back from is not repeated with it: it would try that again.
    """
    before = _goal(connection, part.device)
    told = (part.reported or {}).get("updates", ())
    refused = {update["what"] for update in told if update["state"] in SAID and update["state"] != "committed"}
    kept = {name: before[name] for name in ("model", "config") if before.get(name) and name not in refused}
    goal = {**kept, one.what: one.target}
    revision = give(connection, part.device, goal, now, one.id, deadline_at)
    runs = (part.reported or {}).get("model")
    former = {"model": runs, **kept} if one.what == "model" and runs and runs["release"] >= 1 else kept
    return replace(
        part, state="ordered", revision=revision, ordered_at=now, ended_at=None, update_state="", progress=0.0, code="",
        text="", numbers={}, former=former,
    )  # fmt: skip


def take_back(connection: Connection, part: PartRow, now: datetime) -> None:
    """Give a device the goal that it had before this rollout's order, as a newer order.

    One that never had an order gets the model that it ran then: what it runs now may be the new one, on trial.
    """
    give(connection, part.device, part.former or {}, now, "", None)


def give(
    connection: Connection, device: str, goal: Mapping[str, Any], now: datetime, rollout: str,
    deadline_at: datetime | None,
) -> int:  # fmt: skip
    """Set a device's goal; gives its revision, which is higher than all before."""
    body = {
        **goal, "ordered_at": now.isoformat(), "rollout": rollout,
        "deadline_at": None if deadline_at is None else deadline_at.isoformat(),
    }  # fmt: skip
    row = connection.execute(SQL["order"], {"device": device, "body": json.dumps(body)}).fetchone()
    assert row is not None
    return int(row[0])


def end(connection: Connection, one: Rollout, into: State, reason: str, who: str, now: datetime) -> None:
    """Bring a rollout into another state on purpose, and its devices with it."""
    devices: list[str] = []
    if into == "aborted":
        for part in read_parts(connection, one.id, now):
            # A device ends a trial before it looks at a newer order: it keeps the model only if it does well with it.
            if part.state == "ordered" and part.update_state != "trial":
                take_back(connection, part, now)
                write_part(connection, one.id, replace(part, state="dropped", ended_at=now))
                devices.append(part.device)
    if into in OVER:
        connection.execute(SQL["drop_parts"], {"rollout": one.id, "now": now})
    connection.execute(SQL["set_state"], {
        "id": one.id, "state": into, "batch": one.batch, "good_since": None, "reason": reason, "now": now,
    })  # fmt: skip
    audit.append(connection, now, who, into, one.id, old=one.state, reason=reason, devices=devices)


def desired_of(revision: int, body: Mapping[str, Any]) -> Desired:
    """Make the message of a kept goal."""
    return Desired.model_validate_json(json.dumps({**body, "revision": revision}))


def _goal(connection: Connection, device: str) -> dict[str, Any]:
    row = connection.execute(SQL["desired"], {"device": device}).fetchone()
    return {} if row is None else row[1]


def _make_way(connection: Connection, what: str, devices: Sequence[str], rollout: str, who: str, now: datetime) -> None:
    """See that no other rollout of the kind is at work on these devices."""
    rows = connection.execute(SQL["in_the_way"], {"what": what, "devices": list(devices)}).fetchall()
    for other, state in rows:
        if state != "catching-up":
            raise Rejected(
                "rollout-in-the-way", f"{other} is {state} and has devices of this one",
                f"wait for it, or end it: shelfwire-cloud fleet rollout abort {other}",
            )  # fmt: skip
    for other, _ in rows:
        one = read_one(connection, other, hold=True)
        end(connection, one, "replaced", f"{rollout} has taken over", who, now)


def _what_can(state: State) -> str:
    return "it is over; start another" if state in OVER else f"it is {state}: pause, resume or abort may fit"


def check_id(rollout: str) -> str:
    """Check the name of a rollout. Raises `Rejected` (``bad-id``)."""
    if not re.fullmatch(bounds.NAME, rollout):
        raise Rejected("bad-id", f"{rollout[:80]!r} is no name for a rollout", "letters, digits, dot, dash, underscore")
    return rollout
