"""The writing side of the store: one transaction per batch, in which the rows, their counters and the notice agree."""

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from cloud.errors import CloudError, Retryable
from cloud.store import explain
from cloud.store.rows import ALERT_COLUMNS, RESULT_COLUMNS, Entry, Quarantined, Row
from cloud.store.sql import statements
from cloud.store.verdicts import OUTBOUND

log = logging.getLogger(__name__)

SQL = {name: text.encode() for name, text in statements(Path(__file__).with_name("write.sql")).items()}

QUARANTINE_ROWS = 10_000
"""Most quarantine rows kept of one device."""

STEPS_KEPT = 1_000
"""Most steps of updates kept of one device."""

STATEMENT_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 5

Key = tuple[str, int]
"""(run, seq) inside a device."""


class Poison(Exception):
    """The database will never take something in this batch."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch: per entry, the keys refused because another content has them; and counts in all."""

    conflicts: tuple[frozenset[Key], ...]
    new: int
    duplicates: int


class Writer:
    """Commits batches over one connection of its own, which it opens when needed. For one thread."""

    def __init__(self, dsn: str, revive: Callable[[], None] = lambda: None) -> None:
        self._dsn = dsn
        self._revive = revive
        self._connection: psycopg.Connection[TupleRow] | None = None

    def commit(self, entries: Sequence[Entry]) -> Committed:
        """Commit all entries in one transaction, alerts before results.

        Raises `Retryable` or another `CloudError` when the database is away (nothing was committed, or it was and
        nobody heard: commit the same again), and `Poison` when it refuses a value in one of the entries.
        """
        try:
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                return _Transaction(cursor, entries).run()
        except (psycopg.DataError, psycopg.IntegrityError, ValueError, OverflowError) as error:
            self._drop_if_broken()
            raise Poison(" ".join(str(error).split())[:256]) from error
        except psycopg.OperationalError as error:
            self.close()
            raise explain(error) from error
        except psycopg.InterfaceError as error:
            self.close()
            raise Retryable("store-away", f"the connection to the database is gone: {error}") from error

    def close(self) -> None:
        """Close the connection; the next commit opens another."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _drop_if_broken(self) -> None:
        if self._connection is not None and self._connection.broken:
            self.close()

    def _connected(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError:
                self._try_revive()
                self._connection = self._connect()
        return self._connection

    def _try_revive(self) -> None:
        try:
            self._revive()
        except CloudError as error:
            log.warning("the database cannot be started: %s", error)

    def _connect(self) -> psycopg.Connection[TupleRow]:
        connection = psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="shelfwire-ingest",
            tcp_user_timeout=30_000,
        )  # fmt: skip
        try:
            connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
            connection.execute(SQL["make_incoming_result"])
            connection.execute(SQL["make_incoming_alert"])
        except psycopg.Error:
            connection.close()
            raise
        return connection


class _Transaction:
    """One batch on its way through the open transaction."""

    def __init__(self, cursor: psycopg.Cursor[TupleRow], entries: Sequence[Entry]) -> None:
        self._cursor = cursor
        self._entries = entries
        self._tally: Counter[tuple[str, str]] = Counter()
        self._news: dict[str, set[str]] = {}
        self._conflicts: list[set[Key]] = [set() for _ in entries]
        self._quarantined: list[tuple[Entry, Quarantined]] = [(e, q) for e in entries for q in e.quarantined]

    def run(self) -> Committed:
        """Write everything and count it."""
        self._insert("alert", [(i, row) for i, e in enumerate(self._entries) for row in e.alerts])
        self._insert("result", [(i, row) for i, e in enumerate(self._entries) for row in e.results])
        self._write_receipts()
        self._write_presence()
        self._write_reports()
        self._write_pictures()
        self._write_quarantine()
        for entry in self._entries:
            self._tally[entry.device, "received"] += len(entry.results) + len(entry.alerts) + entry.refused
            self._tally[entry.device, "refused"] += entry.refused
        self._write_tally()
        for device, news in sorted(self._news.items()):
            self._cursor.execute(SQL["notify"], (json.dumps({"device": device, "what": sorted(news)}),))
        new = sum(n for (_, name), n in self._tally.items() if name == "committed")
        duplicates = sum(n for (_, name), n in self._tally.items() if name == "duplicates")
        return Committed(tuple(frozenset(keys) for keys in self._conflicts), new, duplicates)

    def _insert(self, table: str, items: list[tuple[int, Row]]) -> None:
        """Copy rows in, keep the new ones, and tell the others apart: a copy is counted, a forgery quarantined."""
        if not items:
            return
        self._copy(table, items)
        fresh: dict[str, int] = dict(self._cursor.execute(SQL[f"insert_{table}s"]).fetchall())
        conflicting: list[int] = []
        if sum(fresh.values()) < len(items):
            conflicting = [n for (n,) in self._cursor.execute(SQL[f"conflicting_{table}s"]).fetchall()]
            for n in conflicting:
                self._refuse(table, *items[n])
        if table == "result":
            if conflicting:
                self._cursor.execute(SQL["forget_conflicting_results"], (conflicting,))
            self._cursor.execute(SQL["upsert_answers"])
        came = Counter(self._entries[i].device for i, _ in items)
        refused = Counter(self._entries[items[n][0]].device for n in conflicting)
        for device, n in came.items():
            self._tally[device, "committed"] += fresh.get(device, 0)
            self._tally[device, "duplicates"] += n - fresh.get(device, 0) - refused[device]
            self._news.setdefault(device, set()).add("alerts" if table == "alert" else "answers")

    def _copy(self, table: str, items: list[tuple[int, Row]]) -> None:
        columns = ALERT_COLUMNS if table == "alert" else RESULT_COLUMNS
        names = ", ".join(name for name, _ in columns)
        with self._cursor.copy(f"COPY incoming_{table} (n, {names}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.set_types(["int4", *(kind for _, kind in columns)])
            for n, (_, row) in enumerate(items):
                copy.write_row((n, *row))

    def _refuse(self, table: str, index: int, row: Row) -> None:
        entry = self._entries[index]
        run, seq = str(row[1]), int(str(row[2]))
        self._conflicts[index].add((run, seq))
        self._tally[entry.device, "conflicts"] += 1
        self._tally[entry.device, "refused"] += 1
        columns = ALERT_COLUMNS if table == "alert" else RESULT_COLUMNS
        shown = {name: str(value) for (name, kind), value in zip(columns, row, strict=True) if kind != "bytea"}
        detail = f"another {table} with this key is stored already; the first was kept"
        topic = f"shelfwire/v1/{entry.device}/{table}s"
        payload = json.dumps(shown).encode()
        self._quarantined.append((entry, Quarantined(topic, run, seq, "key-conflict", detail, payload)))

    def _write_receipts(self) -> None:
        """End the way of the verdicts that devices have, and set aside those that they will never take."""
        for entry in sorted(self._entries, key=lambda e: e.device):
            if (said := entry.receipt) is None:
                continue
            spans = [(span.run, span.first, span.last) for span in said.committed]
            declined = [(refusal.run, refusal.seq, refusal.code) for refusal in said.refused]
            for statement, rows, name in (
                ("deliver", spans, "verdicts-delivered"), ("decline", declined, "verdicts-refused"),
            ):  # fmt: skip
                if rows:
                    self._cursor.execute(SQL[statement], (*map(list, zip(*rows, strict=True)), entry.device))
                    self._tally[entry.device, name] += self._cursor.rowcount

    def _write_presence(self) -> None:
        seen: dict[str, datetime] = {}
        for entry in self._entries:
            if entry.device and (entry.results or entry.alerts):
                seen[entry.device] = max(entry.received_at, seen.get(entry.device, entry.received_at))
        if seen:
            self._cursor.execute(SQL["touch_devices"], (list(seen), list(seen.values())))
        # A stable sort: the statuses of one device stay in the order in which they came.
        for entry in sorted(self._entries, key=lambda e: e.device):
            if (presence := entry.presence) is None:
                continue
            if presence.state == "online":
                self._cursor.execute(SQL["hurry"], {"device": entry.device, "session": presence.session})
                if self._cursor.rowcount:
                    self._news.setdefault(entry.device, set()).add(OUTBOUND)
            self._cursor.execute(SQL["set_presence"], {
                "device": entry.device, "store": presence.store, "session": presence.session, "state": presence.state,
                "agent": presence.agent, "status": presence.status, "received_at": entry.received_at,
                "seen_at": min(presence.sent_at, entry.received_at) if presence.retained else entry.received_at,
                "live": presence.state == "online" and not presence.retained,
            })  # fmt: skip
            self._news.setdefault(entry.device, set()).add("status")

    def _write_reports(self) -> None:
        """Keep what devices say last, and each step that they tell, once, however many ingesters hear it."""
        for entry in sorted(self._entries, key=lambda e: e.device):
            if (report := entry.report) is None:
                continue
            values = {"device": entry.device, "received_at": entry.received_at}
            self._cursor.execute(SQL["set_reported"], {**values, "body": report.body, "highest": report.highest})
            if self._cursor.rowcount:
                self._news.setdefault(entry.device, set()).add("reported")
            for update in report.said.updates:
                self._cursor.execute(SQL["add_step"], {
                    **values, "what": update.what, "revision": update.revision, "state": update.state,
                    "code": update.code or "", "attempt": min(update.attempt, 2**31 - 1), "rollout": update.rollout,
                    "text": update.text, "numbers": json.dumps(update.numbers),
                })  # fmt: skip
                if self._cursor.rowcount:
                    self._cursor.execute(SQL["thin_steps"], {"device": entry.device, "most": STEPS_KEPT})

    def _write_pictures(self) -> None:
        shots = [(e, e.shot) for e in self._entries if e.shot is not None]
        for entry, shot in sorted(shots, key=lambda pair: (pair[0].device, pair[1].camera)):
            self._cursor.execute(SQL["upsert_picture"], {
                "device": entry.device, "camera": shot.camera, "frame": shot.frame, "captured_at": shot.captured_at,
                "received_at": entry.received_at, "width": shot.width, "height": shot.height, "jpeg": shot.jpeg,
            })  # fmt: skip
            if self._cursor.rowcount:
                self._news.setdefault(entry.device, set()).add("pictures")

    def _write_quarantine(self) -> None:
        if not self._quarantined:
            return
        self._cursor.executemany(
            SQL["insert_quarantine"],
            [(e.received_at, q.topic, e.device, q.run, q.seq, q.code, q.detail, q.payload)
             for e, q in self._quarantined],
        )  # fmt: skip
        for device, n in sorted(Counter(e.device for e, _ in self._quarantined).items()):
            self._tally[device, "quarantined"] += n
            self._cursor.execute(SQL["thin_quarantine"], {"device": device, "limit": QUARANTINE_ROWS})
            self._tally[device, "thinned"] += self._cursor.rowcount

    def _write_tally(self) -> None:
        counted = [(device, name, n) for (device, name), n in self._tally.items() if n]
        if counted:
            self._cursor.execute(SQL["add_tallies"], tuple(list(column) for column in zip(*counted, strict=True)))
