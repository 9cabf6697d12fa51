"""Seal the pictures that wait for the night into files, one day after another; sync uploads them in its window.

Sealed is every frame whose local day is over. Vision and sync may run meanwhile. Run it once a night, from a timer; to
run it again does no harm. Exit code 0 also when nothing waits.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from agent.app.nightly import read_now, run_nightly
from agent.cli.common import add_config, add_json, load_config, start_logging, table
from agent.config import Config
from agent.core.backlog import Backlog
from agent.core.days import read_day
from agent.core.records import moment
from agent.errors import Rejected
from agent.night_ports import Shard
from agent.nightly import Report
from agent.store.outside import is_at_work
from agent.store.shards import listing, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument("--now", action="store_true", help="today so far too; and upload at once, not in the window")
    parser.add_argument("--date", metavar="DAY", help="only this day, as 2026-01-31")
    parser.add_argument("--list", action="store_true", help="seal nothing; show the files that wait for the cloud")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Seal, or list; gives the exit code."""
    config = load_config(options)
    start_logging(options, "nightly")
    folder = config.device.state_dir
    if options.list:
        shards, waiting = listing(folder), summary(folder)
        if options.json:
            print(json.dumps(_list_json(shards, waiting), indent=2))
        else:
            print("\n".join([*_list_lines(shards, waiting), *_waiting_lines(waiting, config)]))
        return 0
    now = read_now()
    day = _day(options.date, now.today, today_too=options.now)
    began_s = time.monotonic()
    report = Report()
    try:
        with _bar() as progress:
            run_nightly(config, now, day=day, today_too=options.now, report=report, progress=progress)
    except BaseException:
        if report.sealed and not options.json:
            lines = [*_sealed_lines(report), "stopped before the end; what was sealed stays sealed"]
            print("\n".join(lines), flush=True)
        raise
    took_s = time.monotonic() - began_s
    waiting = summary(folder)
    if options.json:
        print(json.dumps({"clock": now.clock, **_report_json(report, waiting, took_s)}, indent=2))
    else:
        lines = _sealed_lines(report) or [_nothing(report, day)]
        if report.lost:
            lines.append(f"{report.lost:,} pictures were missing or damaged in the spool: set aside as dead letters")
        if now.clock == "unsure":
            lines.append("no time server sets this device's clock: days may be wrong")
        print("\n".join([*lines, *_waiting_lines(waiting, config)]))
    return 0


def _day(text: str | None, today: str, *, today_too: bool) -> str | None:
    """Read `--date`. Raises `Rejected`: ``day-bad``, ``day-open``."""
    if text is None:
        return None
    try:
        day = read_day(text)
    except ValueError as error:
        raise Rejected("day-bad", str(error), "write the day as 2026-01-31") from None
    if day > today:
        raise Rejected("day-open", f"{day} is still to come", "name a day that is over")
    if day == today and not today_too:
        raise Rejected("day-open", f"{day} is not over", "add --now to seal what there is of it so far")
    return day


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show progress on a terminal, and on nothing else."""
    with tqdm(unit=" frames", desc="sealing", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {
        "shard": shard.number,
        "day": shard.day,
        "part": shard.part,
        "rows": shard.rows,
        "bytes": shard.file.size_bytes,
        "file": shard.file.name,
        "sha256": shard.file.sha256,
        "sealed_at": moment(shard.sealed_ns),
    }


def _report_json(report: Report, waiting: Backlog, took_s: float) -> dict[str, Any]:
    return {
        "sealed": [_shard_json(shard) for shard in report.sealed],
        "rows": report.rows,
        "lost": report.lost,
        "later": report.later,
        "took_s": round(took_s, 3),
        "waiting": {"shards": waiting.files, "rows": waiting.rows, "bytes": waiting.bytes},
    }


def _list_json(shards: list[Shard], waiting: Backlog) -> dict[str, Any]:
    return {
        "shards": [{**_shard_json(s), "refusals": s.refusals, "error": s.error} for s in shards],
        "unsealed": {"frames": waiting.unsealed, "bytes": waiting.unsealed_bytes},
        "in_the_window": waiting.in_the_window,
    }


def _sealed_lines(report: Report) -> list[str]:
    days: defaultdict[str, list[Shard]] = defaultdict(list)
    for shard in report.sealed:
        days[shard.day].append(shard)
    return [
        f"{day}: sealed {sum(shard.rows for shard in shards):,} pictures in"
        f" {_files(len(shards), sum(shard.file.size_bytes for shard in shards))}"
        for day, shards in sorted(days.items())
    ]


def _nothing(report: Report, day: str | None) -> str:
    if day is not None:
        return f"nothing to seal: no unsealed picture is of {day}"
    if report.later:
        return f"nothing to seal yet: {report.later:,} pictures wait for the end of their day (--now: seal today's)"
    return "nothing to seal: no unsealed picture waits for the night"


def _files(n: int, size_bytes: int) -> str:
    return f"{n:,} file{'' if n == 1 else 's'} ({size_bytes / 1e6:,.1f} MB)"


def _waiting_lines(waiting: Backlog, config: Config) -> list[str]:
    """Say what becomes of the sealed files, and what may keep them here."""
    if not waiting.files:
        return []
    files = _files(waiting.files, waiting.bytes) + (" waits" if waiting.files == 1 else " wait")
    if not config.frames_may_leave:
        return [f'{files}, and NONE LEAVES: needs [cloud] api and [privacy] pictures = "frames"']
    first, last = config.batch.window
    in_window = f"uploaded between {first:%H:%M} and {last:%H:%M} (--now: at once)"
    if not waiting.in_the_window:
        fate = "uploaded now"
    elif waiting.in_the_window == waiting.files:
        fate = in_window
    else:
        fate = f"{waiting.files - waiting.in_the_window:,} uploaded now, {waiting.in_the_window:,} {in_window}"
    if not is_at_work(config.device.state_dir, "sync"):
        fate += "; but sync, which does it, is NOT RUNNING"
    return [f"{files} for the cloud: {fate}"]


def _list_lines(shards: list[Shard], waiting: Backlog) -> list[str]:
    lines = []
    if shards:
        rows = [("day", "part", "pictures", "MB", "sealed", "trouble")]
        rows += [
            (s.day, str(s.part), f"{s.rows:,}", f"{s.file.size_bytes / 1e6:.1f}", moment(s.sealed_ns)[:16] + "Z",
             _code(s.error) + (f", refused {_times(s.refusals)}" if s.refusals else ""))
            for s in shards
        ]  # fmt: skip
        lines.append(table(rows))
        lines += dict.fromkeys(s.error for s in shards if s.error)  # what they have in common is said once
    else:
        lines.append("no sealed file waits for the cloud")
    if waiting.unsealed:
        lines.append(f"{waiting.unsealed:,} pictures wait to be sealed ({waiting.unsealed_bytes / 1e6:,.1f} MB)")
    else:
        lines.append("no picture waits to be sealed")
    return lines


def _code(error: str) -> str:
    """Give the code at the end of what kept a file here."""
    return error.rpartition("[")[2].rstrip("]")


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
