"""The SQLite file that vision and sync share: opening, locking, full disks, and what to do with a broken file."""

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from agent.errors import Broken, Rejected, Retryable

log = logging.getLogger(__name__)

APPLICATION_ID = 0x53684C66  # "ShLf"
SCHEMAS = ("schema.sql", "schema-2.sql", "schema-3.sql")
"""What brings a file from each version to the next, from version 0, the empty file."""
VERSION = len(SCHEMAS)
BUSY_TIMEOUT_MS = 10_000

DISK_ERRORS = (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)
"""What SQLite raises when the disk, not the program, is at fault."""

BUSY_ERRORS = (apsw.BusyError, apsw.LockedError)
"""What SQLite raises when another process, perhaps one that was halted, held the lock for the whole of our patience."""

FIXED_SQLITE = (3, 51, 3)
"""Older ones may corrupt a WAL database that two processes write (3.7.0 to 3.51.2)."""

QUICK_CHECK_BYTES = 1 << 30
"""Files up to here are checked at every start: 0.2 s per 130 MB."""

LEAST_FREE_BYTES = 1 << 20
"""With less free space than this an I/O error means a full disk."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PROBE_BYTES = 64 << 10
"""What SQLite needs to open the store at all: the shared memory of its log, and a page or two."""

PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;           -- NORMAL lost half of the acknowledged rows in power cuts
PRAGMA foreign_keys = ON;
PRAGMA journal_size_limit = 4194304;
PRAGMA wal_autocheckpoint = 1000;
PRAGMA secure_delete = FAST;
"""


class Lock:
    """A lock on one role in a state folder, held as long as this object lives and the process runs."""

    def __init__(self, folder: Path, role: str) -> None:
        self._path = folder / f"{role}.lock"
        self._role = role
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock.

        Raises `Rejected` (``already-running``) naming the process that holds it, `Broken` as `prepare_folder` does.
        """
        try:
            # The group may look who works here (`outside.is_at_work`), where it may enter the folder at all.
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _disk_trouble(self._path.parent, error) from None
        if not _flock_soon(file):
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise Rejected(
                "already-running",
                f"{self._role} already runs on {self._path.parent} (process {holder})",
                "stop that one first, or give this agent a state_dir of its own",
            ) from None
        with contextlib.suppress(OSError):  # the lock holds without its note; a full disk takes none
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _flock_soon(file: int) -> bool:
    """Lock a file, in a moment if need be: whoever looks whether somebody works here holds the lock while it looks."""
    for pause_s in (0.05, 0.1, 0.2, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if pause_s is None:
                return False
            time.sleep(pause_s)
        else:
            break
    return True


def prepare_folder(folder: Path) -> None:
    """Make the state folder, for this user only. Raises `Broken` with the cure.

    On a disk that is full already the reserve is given up: whoever starts there may be who empties it.
    """
    try:
        try:
            _probe(folder)
        except OSError as error:
            if error.errno not in NO_SPACE or not Reserve(folder).give_up():
                raise
            _probe(folder)
    except OSError as error:
        raise _disk_trouble(folder, error) from None


def _probe(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    probe = folder / ".writable"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    finally:
        # Another process may start at this moment, with the same probe.
        probe.unlink(missing_ok=True)


def is_full(folder: Path) -> bool:
    """Whether there is so little space that an I/O error means a full disk."""
    return _free_bytes(folder) < LEAST_FREE_BYTES


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _disk_trouble(folder: Path, error: OSError) -> Broken:
    if error.errno in NO_SPACE:
        return Broken("disk-full", f"no space left for the store in {folder}", "free disk space; nothing was lost")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Broken("store-permission", f"{folder} cannot be written: {error.strerror}",
                      "give the folder to this user, or name another state_dir")  # fmt: skip
    return Broken("store-folder", f"{folder} cannot be used: {error}", "check the disk, or name another state_dir")


class Reserve:
    """A file of zeros beside the database: given up on a full disk, because a DELETE needs space too."""

    def __init__(self, folder: Path, size_bytes: int = 0) -> None:
        self._path = folder / "reserve"
        self._size_bytes = size_bytes

    def build(self) -> bool:
        """Make the file when it is missing and there is twice its room. True when it stands."""
        try:
            if self._path.exists() and self._path.stat().st_size == self._size_bytes:
                return True
            if _free_bytes(self._path.parent) < 2 * self._size_bytes:
                return False
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, self._size_bytes)
            finally:
                os.close(file)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True

    def give_up(self) -> bool:
        """Free the space. True when there was some."""
        try:
            size_bytes = self._path.stat().st_size
            self._path.unlink()
        except FileNotFoundError:
            return False
        log.warning("the disk is full: gave up the reserve of %d MiB so that sent rows can go", size_bytes >> 20)
        return True


def open_database(folder: Path, *, check: bool = True, replace: bool = True) -> apsw.Connection:
    """Open the outbox database in `folder`, made or migrated as needed; for one thread at a time.

    Without `check` the file is not looked through for damage: for a second connection, or a short visit.

    A damaged file is moved aside, never deleted, and a new one is started; without `replace` it is left where it is,
    for a visitor beside daemons that work on it, who is told so by `Broken` (``store-damaged``).
    Raises `Broken`: ``disk-full``, ``store-permission``, ``store-folder``, ``store-newer``, ``sqlite-old``.
    Raises `Retryable` (``store-busy``) when another process keeps the write lock.
    """
    if tuple(int(p) for p in apsw.sqlite_lib_version().split(".")[:3]) < FIXED_SQLITE:
        raise Broken("sqlite-old", f"SQLite {apsw.sqlite_lib_version()} may corrupt a shared file",
                     "pip install --upgrade apsw")  # fmt: skip
    prepare_folder(folder)
    with _alone(folder):
        return _open_or_replace(folder, check=check, replace=replace)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time open the store: only one makes it or moves it aside, the others find it done.

    SQLite's own patience does not cover the change to WAL mode.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _open_or_replace(folder: Path, *, check: bool, replace: bool) -> apsw.Connection:
    path = folder / "outbox.sqlite"
    try:
        return _open(path, check=check)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        if not replace:
            raise Broken("store-damaged", f"{path} is damaged: {error}",
                         "restart vision: it moves the damaged file aside, and starts a new one") from None  # fmt: skip
        moved = _move_aside(path)
        log.error("the outbox is damaged (%s): moved to %s, starting a new one", error, moved)
        return _open(path, check=check)
    except BUSY_ERRORS:
        raise Retryable("store-busy", f"another process holds the store in {folder} and does not let go",
                        "it is tried again; see whether vision, sync or nightly was halted") from None  # fmt: skip
    except DISK_ERRORS as error:
        # SQLite calls a full disk an I/O error when it is its shared memory file that cannot grow.
        if isinstance(error, apsw.FullError) or is_full(folder):
            raise Broken("disk-full", f"no space left for the store in {folder}", "free disk space") from None
        raise Broken(
            "store-io", f"the store in {folder} fails: {error}", "check the disk and the folder's rights"
        ) from None


def _open(path: Path, *, check: bool) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    try:
        # Without effect once the file has tables or is in WAL mode, so it comes first.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(PRAGMAS)
        _check_application(connection, path)
        _migrate(connection, path)
        if check and path.stat().st_size <= QUICK_CHECK_BYTES:
            _quick_check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_application(connection: apsw.Connection, path: Path) -> None:
    found = one(connection, "PRAGMA application_id")
    tables = one(connection, "SELECT count(*) FROM sqlite_schema")
    if tables and found != APPLICATION_ID:
        raise Rejected("store-foreign", f"{path} is no outbox of ours", "name another state_dir")


def _migrate(connection: apsw.Connection, path: Path) -> None:
    with transaction(connection):
        version = one(connection, "PRAGMA user_version")
        if version > VERSION:
            raise Broken("store-newer", f"{path} was written by a newer agent (version {version})",
                         "install that agent again, or name another state_dir")  # fmt: skip
        for name in SCHEMAS[version:]:
            connection.execute(resources.files("agent.store").joinpath(name).read_text())
        if version < VERSION:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};")


def _quick_check(connection: apsw.Connection) -> None:
    answer = one(connection, "PRAGMA quick_check(1)")
    if answer != "ok":
        raise apsw.CorruptError(str(answer))


def _move_aside(path: Path) -> Path:
    target = path.parent / f"damaged-{time.time_ns()}"
    target.mkdir()
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(target / f"{path.name}{suffix}")
    return target


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Run the body as one transaction, taking the write lock at once so that it never fails half-way for a lock."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(apsw.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def one(connection: apsw.Connection, sql: str, *values: str | int) -> Any:
    """Give the first value of a query's first row; the query must have one."""
    found = connection.execute(sql, values).fetchone()
    if found is None:
        raise apsw.Error(f"no row from: {sql}")
    return found[0]


def count(connection: apsw.Connection, name: str, n: int) -> None:
    """Add to a counter, inside the caller's transaction."""
    if n:
        connection.execute(
            "INSERT INTO counter(name, n) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n", (name, n)
        )


def tally(connection: apsw.Connection, lane: int, rows: int, size_bytes: int) -> None:
    """Keep the lane's rows and bytes, inside the caller's transaction: counting them afresh takes too long."""
    count(connection, f"rows:{lane}", rows)
    count(connection, f"bytes:{lane}", size_bytes)


def set_fact(connection: apsw.Connection, name: str, value: str) -> None:
    """Keep a small fact, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO fact(name, value) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
