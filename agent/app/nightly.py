"""The nightly process: it takes its lock, seals what is due, and ends. Vision and sync may run meanwhile."""

import logging
from collections.abc import Callable

from agent.config import Config
from agent.core.days import Now
from agent.core.shards import Owner
from agent.errors import Broken, Rejected, Retryable
from agent.host.clock import SystemClock, boot_id
from agent.nightly import Nightly, Report
from agent.store.batch import BatchFolder
from agent.store.database import BUSY_ERRORS, DISK_ERRORS, Lock, prepare_folder
from agent.store.shards import Shards
from agent.store.spool import Spool

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def read_now() -> Now:
    """Read the clocks that a run goes by."""
    clock = SystemClock()
    stamp = clock.now()
    return Now(stamp.wall_ns, stamp.boot_ns, clock.trust(), boot_id())


def run_nightly(
    config: Config,
    now: Now,
    *,
    day: str | None = None,
    today_too: bool = False,
    report: Report | None = None,
    progress: Progress = lambda _done, _all: None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Report:
    """Seal what is due. When it ends with an error, `report` tells what was sealed before.

    Raises `Retryable` (``already-running``, ``store-busy``, ``outbox-busy``) and `Broken` (``no-store``,
    ``disk-full``, ``batch-folder``, ``spool-folder``, ``store-io``).
    """
    folder = config.device.state_dir
    if not (folder / "outbox.sqlite").exists():
        raise Broken("no-store", f"there is no store in {folder}", "start the agent once, or name its configuration")
    prepare_folder(folder)
    lock = Lock(folder, "nightly")
    try:
        lock.take()
    except Rejected as error:
        raise Retryable(error.code, str(error), "wait until that one has ended: it seals the same frames") from None
    try:
        shards = Shards(folder, config.outbox.reserve)
        try:
            night = Nightly(
                Owner(config.device.id, config.device.store),
                shards,
                Spool(folder),
                BatchFolder(folder, on_step=on_step),
                shard_bytes=config.batch.shard,
                on_step=on_step,
            )
            _stand_in_for_sync(config, shards, now)
            told = report if report is not None else Report()
            return _with_room(
                shards, lambda: night.run(now, day=day, today_too=today_too, report=told, progress=progress)
            )
        finally:
            shards.close()
    finally:
        lock.release()


def _stand_in_for_sync(config: Config, shards: Shards, now: Now) -> None:
    """Hand what has expired to the night; sync does it when it runs, and else nobody would."""
    sync = Lock(config.device.state_dir, "sync")
    try:
        sync.take()
    except Rejected:
        return
    try:
        shards.defer_expired(now.boot_ns, now.boot_id)
    except (*BUSY_ERRORS, *DISK_ERRORS) as error:
        log.warning("what has expired stays where it is: %s", error)
    finally:
        sync.release()


def _with_room(shards: Shards, work: Callable[[], Report]) -> Report:
    """Do the work; on a full disk once more with the space that is held back for that."""
    for _ in range(2):
        try:
            return work()
        except BUSY_ERRORS as error:
            raise Retryable("store-busy", f"the store is in use: {error}", "run this again") from None
        except DISK_ERRORS as error:
            log.error("the store cannot be written: %s", error)
            if not shards.reserve.give_up():
                break
    raise Broken("disk-full", "the store cannot be written", "free disk space, then run this again; nothing was lost")
