"""Look into the outbox and mend it by hand: what waits, what was set aside and why. Vision and sync may run meanwhile.

Nothing here deletes a record. Exit code 1 when `check` finds something wrong, or a record could not be changed.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Literal

from agent.cli import outbox_text
from agent.cli.common import add_config, add_json, load_config
from agent.config import Device, state_dir_of
from agent.errors import Rejected
from agent.host.clock import SystemClock, boot_id
from agent.link.doorbell import ring
from agent.ports import Lane
from agent.store import invariants
from agent.store.browse import Filter, find, newest, page
from agent.store.export import export
from agent.store.mending import Done, Mender
from agent.store.outside import is_at_work

PAGE_ROWS = 20
MOST_ROWS = 10_000
LANES = [lane.name.lower() for lane in Lane]
TROUBLE = 1
"""Exit code: something is wrong, or was not done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: one parser for each thing to do."""
    verbs = parser.add_subparsers(dest="verb", metavar="DO", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        add_config(sub)
        add_json(sub)
        return sub

    listing = verb("list", "what waits, lane by lane, and what was set aside, with the reason")
    _add_filter(listing)
    listing.add_argument(
        "--limit", type=int, default=PAGE_ROWS, metavar="N", help="records shown (default: %(default)s)"
    )
    listing.add_argument(
        "--after", type=int, default=0, metavar="SEQ", help="only records after this one: the next page"
    )

    show = verb("show", "one record: what it says, and why it has not left")
    show.add_argument("seq", type=int, metavar="SEQ", help="its number, as `list` gives it")

    retry = verb("retry", "send dead letters to the cloud again")
    retry.add_argument("seqs", nargs="*", metavar="SEQ", help="numbers, or spans as 12-40")
    retry.add_argument("--all", action="store_true", help="all dead letters")
    retry.add_argument("--lane", choices=LANES, help="with --all: only of this lane")
    retry.add_argument("--error", metavar="CODE", help="with --all: only those set aside for this")

    bury = verb("bury", "set waiting records aside for good; they stay on this device and can be retried")
    bury.add_argument("seqs", nargs="+", metavar="SEQ", help="numbers, or spans as 12-40")
    bury.add_argument("--reason", required=True, metavar="TEXT", help="why; it is kept with the record")
    bury.add_argument("--yes", action="store_true", help="alerts too")

    out = verb("export", "a readable copy in a new file, for your own tools")
    out.add_argument("file", type=Path, metavar="FILE", help="a new file: NAME.db (SQLite), NAME.jsonl or NAME.csv")
    _add_filter(out)

    look = verb("check", "whether the file is sound, the books balance, and every picture is there")
    look.add_argument("--quick", action="store_true", help="do not read every page of the file")
    parser.epilog = "Every verb takes --json and -c FILE; see `shelfwire-agent outbox VERB --help`."


def _add_filter(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--waiting", action="store_true", help="only what waits")
    which.add_argument("--dead", action="store_true", help="only what was set aside")
    parser.add_argument("--lane", choices=LANES, help="only this lane")
    parser.add_argument("--kind", choices=["result", "alert", "frame"], help="only this kind of record")
    parser.add_argument("--camera", metavar="NAME", help="only of this camera")
    parser.add_argument("--error", metavar="CODE", help="only what was refused for this")


def run(options: argparse.Namespace) -> int:
    """Do what the verb says; gives the exit code."""
    device = _device(options)
    verbs = {"list": _list, "show": _show, "retry": _retry, "bury": _bury, "export": _export, "check": _check}
    return verbs[options.verb](options, device)


def _device(options: argparse.Namespace) -> Device:
    """Tell where the outbox is, also from a configuration with mistakes elsewhere in it."""
    try:
        return load_config(options).device
    except Rejected as error:
        if error.code != "config":
            raise
        state_dir = state_dir_of(options.config)
        print(f"note: {options.config} has mistakes, see `shelfwire-agent config check`; going on with {state_dir}",
              file=sys.stderr)  # fmt: skip
        return Device(id="device", state_dir=state_dir)


def _filter(options: argparse.Namespace, after: int = 0) -> Filter:
    state: Literal["waiting", "dead"] | None = "dead" if options.dead else "waiting" if options.waiting else None
    lane = Lane[options.lane.upper()] if options.lane else None
    return Filter(state, lane, options.kind, options.camera, options.error, after)


def _list(options: argparse.Namespace, device: Device) -> int:
    if not 1 <= options.limit <= MOST_ROWS:
        raise Rejected("limit-bad", "so many records cannot be shown", f"give --limit 1 to {MOST_ROWS}, or use export")
    found = page(device.state_dir, _filter(options, options.after), options.limit)
    now, boot = SystemClock().now(), boot_id()
    if options.json:
        lanes = {
            s.lane.name.lower(): {"waiting": s.waiting, "bytes": s.waiting_bytes, "dead": s.dead} for s in found.lanes
        }
        records = [record.told() for record in found.records]
        more = found.matching > len(records)
        shown = {"lanes": lanes, "errors": dict(found.errors), "matching": found.matching, "records": records}
        print(json.dumps({**shown, "next_after": records[-1]["seq"] if more else None}, indent=2))
    else:
        print(outbox_text.listing(found, now, boot))
    return 0


def _show(options: argparse.Namespace, device: Device) -> int:
    found = find(device.state_dir, options.seq)
    if found is None:
        given = newest(device.state_dir)
        gone = 0 < options.seq <= given
        why = "it was delivered, or thinned out" if gone else f"numbers so far go up to {given}"
        raise Rejected("no-record", f"there is no record {options.seq}: {why}", "see shelfwire-agent outbox list")
    record, said = found
    if options.json:
        print(json.dumps({**record.told(), "agent": record.agent_version, "body": said}, indent=2))
    else:
        print(outbox_text.one(record, said, SystemClock().now(), boot_id()))
    return 0


def _retry(options: argparse.Namespace, device: Device) -> int:
    if options.all == bool(options.seqs):
        raise Rejected("which-records", "it is not said which records", "name their numbers, or give --all")
    if not options.all and (options.lane or options.error):
        raise Rejected("which-records", "--lane and --error choose among all dead letters", "add --all, or leave them")
    mender = Mender(device.state_dir)
    try:
        lane = Lane[options.lane.upper()] if options.lane else None
        seqs = mender.dead(lane, options.error) if options.all else read_spans(options.seqs)
        done = mender.retry(seqs)
    finally:
        mender.close()
    ring(device.runtime_dir)
    if done.changed and not is_at_work(device.state_dir, "sync"):
        print("note: sync does not run: they are sent when it does", file=sys.stderr)
    return _tell(done, options, "sent back to the line")


def _bury(options: argparse.Namespace, device: Device) -> int:
    mender = Mender(device.state_dir)
    try:
        done = mender.bury(read_spans(options.seqs), options.reason, alerts=options.yes)
    finally:
        mender.close()
    return _tell(done, options, "set aside")


def _tell(done: Done, options: argparse.Namespace, what: str) -> int:
    if options.json:
        refused = [{"seq": seq, "reason": reason} for seq, reason in done.refused.items()]
        print(json.dumps({"changed": done.changed, "refused": refused}, indent=2))
    else:
        print(outbox_text.done(done, what))
    return TROUBLE if done.refused else 0


def read_spans(words: list[str]) -> list[int]:
    """Read numbers and spans of numbers, each once, in their order. Raises `Rejected` (``which-records``)."""
    seqs: dict[int, None] = {}
    for word in words:
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not match or last < first or len(seqs) + last - first >= MOST_ROWS:
            raise Rejected("which-records", f'"{word}" names no records',
                           f"write a number, or a span as 12-40; at most {MOST_ROWS} records at once")  # fmt: skip
        seqs.update(dict.fromkeys(range(first, last + 1)))
    return list(seqs)


def _export(options: argparse.Namespace, device: Device) -> int:
    n = export(device.state_dir, options.file, _filter(options))
    if options.json:
        print(json.dumps({"file": str(options.file), "records": n}))
    else:
        print(f"{n:,} records in {options.file}; pictures are not in it")
    return 0


def _check(options: argparse.Namespace, device: Device) -> int:
    found = invariants.check(device.state_dir, thorough=not options.quick)
    flaws = [flaw for _, some in found for flaw in some]
    if options.json:
        checks = [
            {"name": name, "ok": not some, "flaws": [
                {"code": f.code, "invariant": f.rule, "message": f.text, "hint": f.cure} for f in some
            ]} for name, some in found
        ]  # fmt: skip
        print(json.dumps({"ok": not flaws, "checks": checks}, indent=2))
    else:
        print(outbox_text.checked(found))
    return TROUBLE if flaws else 0
