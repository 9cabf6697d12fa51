"""A technician in the agent's group reads the state, with the daemons at work or dead."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from agent.store.database import Lock
from agent.store.inspect import look
from agent.store.writer import Limits, Writer

STRANGER = 65534


def look_from_the_group(state: Path) -> int:
    """Look in a child process that may not write there; gives 0 when vision runs, 1 when not, 9 when it cannot look.

    Root's child becomes another user, of the folder's group alone; anybody else's finds a folder that it may not write.
    """
    child = os.fork()
    if child == 0:
        code = 9
        try:
            if os.geteuid() == 0:
                group = state.stat().st_gid
                os.setgroups([])
                os.setresgid(group, group, group)
                os.setresuid(STRANGER, STRANGER, STRANGER)
            else:
                state.chmod(0o550)
            code = 0 if look(state).vision_runs else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    state.chmod(0o750)
    return code


@pytest.fixture
def state(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder as the service manager makes it: the group may read and not write."""
    for folder in tmp_path.parents:
        if folder.owner() == tmp_path.owner() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
        if folder.name.startswith("bt-") or folder.name.startswith("pytest-"):
            break
    tmp_path.chmod(0o711)
    folder = tmp_path / "state"
    folder.mkdir(mode=0o750)
    return folder


def test_the_group_reads_the_state_while_vision_works_and_after_its_end(state: Path) -> None:
    umask = os.umask(0o027)  # the units'
    try:
        writer = at_work(state)
        assert look_from_the_group(state) == 0, "vision is at work"
        writer.close()
        assert not (state / "outbox.sqlite-wal").exists()
        assert look_from_the_group(state) == 1, "vision has ended"
        if (child := os.fork()) == 0:
            at_work(state)
            os._exit(0)
        os.waitpid(child, 0)
        assert (state / "outbox.sqlite-wal").exists()
        assert look_from_the_group(state) == 1, "vision was killed"
    finally:
        os.umask(umask)
    assert (state / "spool").stat().st_mode & 0o077 == 0, "pictures are the agent's alone"


def at_work(state: Path) -> Writer:
    writer = Writer(state, Limits(), 0)
    writer.start_run("boot", 0, "0")
    writer.put([], {"frames:captured": 1})
    return writer


def test_who_looks_whether_somebody_works_here_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """A start that is refused ends the service for good, and a look takes the lock for a moment."""
    (tmp_path / "vision.lock").touch()
    with (tmp_path / "vision.lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        lock = Lock(tmp_path, "vision")
        lock.take()
    lock.release()
