"""Takes the night's files in: announced, sent to a signed address, judged, and only then received.

"Received" is the receipt after which a device deletes its pictures, so it is said after the commit, and only of a file
that was read to its end.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from cloud.errors import Rejected, Retryable
from cloud.objects import NoSuchObject, Objects, SignedPut, fetch
from cloud.shards.form import BadShard, Declared
from cloud.store.sql import statements

if TYPE_CHECKING:
    from cloud.store import Pool

log = logging.getLogger(__name__)

EXPIRES_S: Final = 3600
SLOWEST_BYTES_PER_S: Final = 20_000
"""A signed address lasts an hour, or as long as a line of this speed takes for the whole file."""

JUDGES: Final = 2
"""Shards judged at once in one process; others wait their turn."""
JUDGE_WAIT_S: Final = 30.0
JUDGE_S: Final = 120.0
"""Longest look at one shard."""

LATEST_DAY: Final = timedelta(days=2)
"""A day this far ahead is over nowhere on earth: the device's clock is wrong."""

_SQL = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("intake.sql")).items()}


@dataclass(frozen=True, slots=True)
class Received:
    """The store has it: its device may let go of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """It may be sent to this address."""

    put: SignedPut


class NotThere(Rejected):
    """The file was not sent yet (``shard-missing``)."""


class Intake:
    """Takes shards into the store and the place for objects. Serves any number of threads."""

    def __init__(self, pool: "Pool", objects: Objects, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._pool = pool
        self.objects = objects
        self._now = now
        self._judges = threading.BoundedSemaphore(JUDGES)

    def announce(self, declared: Declared) -> Received | Expected:
        """Say whether a shard is there already, or where to send it.

        A file that was sent while nobody could say so is judged now. Raises `Rejected` (``shard-day``,
        ``shard-differs``), `Retryable` (``shard-busy``) and what `Objects` raises.
        """
        self._check_day(declared)
        values = {**declared.model_dump(), "name": declared.key, "day": declared.date}
        with self._pool.connection() as connection:
            row = connection.execute(_SQL["expect"], values).fetchone()
        if row is None:
            raise Rejected(
                "shard-differs", f"another file has the name {declared.key}", "number the parts of a day once each"
            )
        if row[0] == "received":
            return Received()
        if self.objects.size(declared.key) == declared.bytes:
            try:
                self._settle(declared)
                return Received()
            except BadShard as bad:
                log.warning("what lay under %s was no good: %s", declared.key, bad)
        expires_s = max(EXPIRES_S, declared.bytes // SLOWEST_BYTES_PER_S)
        put = self.objects.sign_put(declared.key, size=declared.bytes, sha256=declared.sha256, expires_s=expires_s)
        return Expected(put)

    def finish(self, sha256: str, device: str) -> None:
        """Judge a shard that was sent; back from here, it is received.

        Raises `NotThere` (``shard-missing``), `BadShard` (``shard-bad``), `Rejected` (``shard-unknown``),
        `Retryable` (``shard-busy``) and what `Objects` raises.
        """
        with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_SQL["find"], {"sha256": sha256, "device": device}).fetchone()
        if row is None:
            raise Rejected("shard-unknown", "nobody has announced this shard", "announce it first: POST /v1/shards")
        if row["state"] == "received":
            return
        declared = Declared.model_validate({**row, "day": row["day"].isoformat()})
        size = self.objects.size(declared.key)
        if size is None:
            if row["state"] == "bad":
                raise BadShard(row["detail"])
            raise NotThere("shard-missing", "the file is not there", "announce it again and send it to the address")
        if size != declared.bytes:
            self._refuse(declared, f"{size} bytes came, not the {declared.bytes} that were declared")
        self._settle(declared)

    def _settle(self, declared: Declared) -> None:
        """Judge the file that lies there, and commit that it is received. Raises `BadShard`, `Retryable`."""
        if not self._judges.acquire(timeout=JUDGE_WAIT_S):
            raise Retryable("shard-busy", "other shards are being looked at", "try again in a minute")
        try:
            with tempfile.TemporaryDirectory(prefix="shelfwire-shard-") as folder:
                path = Path(folder) / "shard.parquet"
                digest = fetch(self.objects, declared.key, path)
                if digest != declared.sha256:
                    self._refuse(declared, "the file has another digest than was declared")
                if wrong := ask_judge(path, declared):
                    self._refuse(declared, wrong)
        except NoSuchObject:
            raise NotThere("shard-missing", "the file is gone again", "announce it again and send it") from None
        finally:
            self._judges.release()
        told = json.dumps({"device": declared.device, "what": ["shards"]})
        with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(_SQL["receive"], {"name": declared.key})
            cursor.execute(_SQL["tell"], {"told": told})
        log.info("received %s: %d frames", declared.key, declared.rows)

    def _refuse(self, declared: Declared, detail: str) -> None:
        """Set the object aside, write down why, and raise `BadShard`."""
        log.warning("%s is bad and set aside: %s", declared.key, detail)
        self.objects.move(declared.key, f"bad/{declared.key}")
        with self._pool.connection() as connection:
            connection.execute(_SQL["refuse"], {"name": declared.key, "detail": detail})
        raise BadShard(detail)

    def _check_day(self, declared: Declared) -> None:
        cure = "correct the device's clock, then seal again"
        try:
            day = declared.date
        except ValueError:
            raise Rejected("shard-day", f"no calendar has the day {declared.day}", cure) from None
        if day > (self._now() + LATEST_DAY).date():
            raise Rejected("shard-day", f"the day {declared.day} has not been yet", cure)


def ask_judge(path: Path, declared: Declared) -> str:
    """Have a file judged in a limited process; gives what is wrong with it, or nothing.

    Raises `Retryable` (``shard-busy``) when that process was stopped from outside or took too long.
    """
    command = [sys.executable, "-m", "cloud.shards.judge", str(path)]
    given = declared.model_dump_json()
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=JUDGE_S, check=False)
    except subprocess.TimeoutExpired:
        raise Retryable("shard-busy", f"the look at the shard took over {JUDGE_S:.0f} s", "try again later") from None
    if done.returncode in (-9, -15):
        raise Retryable("shard-busy", "the look at the shard was stopped", "try again; is the memory full?")
    if done.returncode != 0:
        log.warning("the judge of %s ended with %d: %s", declared.key, done.returncode, done.stderr[-500:])
        return "looking at the file took more memory than any shard needs, or crashed the reader"
    said: Mapping[str, Any] = json.loads(done.stdout)
    return str(said.get("bad", ""))
