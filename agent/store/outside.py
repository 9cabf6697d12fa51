"""The store seen from outside, by whoever neither writes nor sends: opened to read, and who works on it now.

By the same SQLite library as the writers use, because a process that has two of them on one file is killed: POSIX
locks belong to the process, so the second library does not see the first one's, and closing a file drops them all
(https://sqlite.org/howtocorrupt.html, section 2.2).
"""

import contextlib
import fcntl
import pwd
from collections.abc import Iterator
from pathlib import Path

import apsw

from agent.errors import Broken
from agent.store.database import is_full

BUSY_TIMEOUT_MS = 5_000


def must_exist(folder: Path) -> Path:
    """Give the store's file. Raises `Broken` (``no-store``, ``store-permission``)."""
    path = folder / "outbox.sqlite"
    try:
        path.stat()
    except PermissionError:
        raise Broken("store-permission", f"this user may not look into {folder}", run_as(folder)) from None
    except OSError:
        cure = "start the agent once, or name its configuration"
        raise Broken("no-store", f"there is no store in {folder}", cure) from None
    return path


def run_as(path: Path) -> str:
    """Tell as which user a command must run to use `path`: its owner's."""
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):
        owner = "shelfwire"
    return f"run this as the agent's user: sudo -u {owner} shelfwire-agent ..."


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[apsw.Connection]:
    """Open the outbox in `folder` to read it; the daemons may run or be dead.

    Raises `Broken` (``no-store``, ``store-permission``, ``store-unreadable``, ``disk-full``), also for what SQLite
    says meanwhile.
    """
    path = must_exist(folder)
    try:
        with contextlib.closing(_open(path)) as db:
            yield db
    except (apsw.Error, OSError) as error:
        if is_full(folder):
            cure = "free disk space"
            raise Broken("disk-full", f"{path} cannot even be read: no space left on its disk", cure) from None
        cure = f"{run_as(folder)}; start the agent once after an update"
        raise Broken("store-unreadable", f"{path} cannot be read: {error}", cure) from None


def _open(path: Path) -> apsw.Connection:
    """Open to read, also for somebody who may read the folder and not write it (the group), with nobody at work.

    SQLite then lacks the files beside the database and may not make them. Without a log (-wal) nothing writes, and
    the file alone is all there is.
    """
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    try:
        db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        db.close()
        if Path(f"{path}-wal").exists():
            raise
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        db = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
    return db


def holder(folder: Path, role: str) -> int | None:
    """Give the process that holds a role's lock, or held it last; None when its note cannot be read."""
    try:
        return int((folder / f"{role}.lock").read_text())
    except (OSError, ValueError):
        return None


def is_at_work(folder: Path, role: str) -> bool:
    """Whether a running process holds a role's lock."""
    try:
        with (folder / f"{role}.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
