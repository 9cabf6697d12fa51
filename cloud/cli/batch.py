"""Answer every frame of a day again, shard by shard, and report what came of it.

    shelfwire-cloud batch list                 which days there are, and what was made of them
    shelfwire-cloud batch run 2026-03-01       score it; a run that was stopped goes on where it was
    shelfwire-cloud batch report 2026-03-01    agreement, and the frames most worth a label

Exit code 1 says that shards failed; the others are done.
"""

import argparse
import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from os import environ
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from cloud.batch.cluster import Ray
from cloud.batch.engines import Engine, Local
from cloud.batch.report import Reports
from cloud.batch.rows import Nights
from cloud.batch.run import Batch, Chosen, Outcome
from cloud.batch.text import lines
from cloud.cli import common
from cloud.errors import Rejected
from cloud.store import Store
from models.errors import BundleError
from models.runtimes import cores

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `batch`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["run", "list", "report"])
    parser.add_argument("day", nargs="?", metavar="DATE", help="the day, as 2026-03-01 (run, report)")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="what scores (%(default)s)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes at once (as many as cores; a cluster's at $RAY_ADDRESS)"
    )
    parser.add_argument("--bundle", default="produce", metavar="B", help="model: name or folder (%(default)s)")
    parser.add_argument("--force", action="store_true", help="score again what was scored")
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the embedded one (%(default)s)"
    )
    parser.add_argument("--model", metavar="DIGEST", help="report this model's answers (the one that scored it last)")
    common.add_objects(parser)
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Do what `action` says."""
    common.start_logging(options, "batch")
    day = None if options.action == "list" else _day(options.day)
    if options.workers is not None and options.workers < 1:
        raise Rejected("bad-workers", "--workers is at least 1", "leave it out for as many as cores")
    store = Store.open(options.dsn, options.data)
    try:
        nights = Nights(store.pool, store.dsn)
        if day is None:
            return _list(nights, options)
        if options.action == "report":
            return _report(nights, day, options)
        return _run(nights, day, options)
    finally:
        store.close()


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise Rejected(
            "bad-day", f"{text!r} is no day" if text else "no day is named", "name it as 2026-03-01; see: batch list"
        ) from None


def _run(nights: Nights, day: date, options: argparse.Namespace) -> int:
    try:
        chosen = Chosen.of(options.bundle)
    except BundleError as error:
        raise Rejected(error.code, str(error), error.hint) from error
    batch = Batch(nights, common.objects_of(options), chosen, _engine(options), again=options.force)
    with _interrupted_by_sigterm(), _Bar(shown=sys.stderr.isatty() and not options.json) as bar:
        outcome = batch.run(day, bar)
    told = _told(day, options.engine, chosen, outcome)
    if options.json:
        print(json.dumps(told))
    else:
        _say(told)
    for failed in outcome.failed:
        common.say_error(failed.code, f"{failed.shard}: {failed.detail}", failed.hint)
    return 1 if outcome.failed else 0


def _engine(options: argparse.Namespace) -> Engine:
    if options.engine == "ray":
        return Ray(options.workers, environ.get("RAY_ADDRESS"))
    return Local(options.workers or cores())


def _told(day: date, engine: str, chosen: Chosen, outcome: Outcome) -> dict[str, Any]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    counted = asdict(outcome)
    cpu_s = counted.pop("scoring_cpu_s") + own.ru_utime + own.ru_stime
    took_s = outcome.took_s
    model = chosen.model
    return {
        "day": day.isoformat(),
        "engine": engine,
        "model": {"name": model.name, "version": model.version, "release": model.release, "digest": model.digest},
        **counted,
        "took_s": round(took_s, 3),
        "cpu_s": round(cpu_s, 3),
        "pictures_per_s": round(outcome.rows / took_s, 1) if took_s > 0 else 0.0,
    }


def _say(told: dict[str, Any]) -> None:
    scored = told["shards"] - told["skipped"] - len(told["failed"])
    if not told["shards"]:
        print(f"{told['day']}: no shards have come in, so there is nothing to score.")
        return
    print(f"{told['day']}: {scored} of {told['shards']} shards scored, {told['skipped']} were before.")
    if told["rows"]:
        shares = f", {told['agreed']} of {told['compared']} as the device said" if told["compared"] else ""
        print(f"  {told['rows']} frames, {told['answered']} answered, {told['unreadable']} unreadable{shares}")
        print(f"  {told['pictures_per_s']} pictures/s over {told['took_s']} s, {told['cpu_s']} s of processor time")


def _list(nights: Nights, options: argparse.Namespace) -> int:
    days = nights.days()
    scored = nights.scored([row.day for row in days])
    if options.json:
        told = [{**asdict(row), "scored": [asdict(one) for one in scored if one.day == row.day]} for row in days]
        print(json.dumps(told, default=lambda value: value.isoformat()))
        return 0
    if not days:
        print("No shards have come in yet.")
        return 0
    print(f"{'day':<12}{'shards':>8}{'frames':>10}{'devices':>9}  scored")
    for row in days:
        models = ", ".join(
            f"{one.model_name} {one.model_digest[:8]}: {one.frames}" for one in scored if one.day == row.day
        )
        print(f"{row.day!s:<12}{row.shards:>8}{row.frames:>10}{row.devices:>9}  {models or 'not yet'}")
    return 0


def _report(nights: Nights, day: date, options: argparse.Namespace) -> int:
    made = Reports(nights, common.objects_of(options)).report(day, options.model)
    if options.json:
        print(json.dumps(asdict(made), default=lambda value: value.isoformat()))
    else:
        print("\n".join(lines(made)))
    return 0


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, shards: int, rows: int) -> None:
        """So much is to do."""
        if self._shown and shards:
            self._bar = tqdm(total=rows, unit=" frames", desc=f"{shards} shards", smoothing=0.1)

    def advance(self, rows: int) -> None:
        """So many frames more are done."""
        if self._bar is not None:
            self._bar.update(rows)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: the workers end, and what is done stays done."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
