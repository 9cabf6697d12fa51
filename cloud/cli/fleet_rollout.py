"""The parts of `shelfwire-cloud fleet` that are about rollouts: plan, rollout, config, label, why, audit."""

import argparse
import getpass
import json
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg_pool import PoolTimeout

from cloud.cli import common
from cloud.errors import Rejected, Retryable
from cloud.repository.folder import Published, RepositoryFolder
from cloud.rollout import words
from cloud.rollout.lifecycle import ENDED, OVER
from cloud.rollout.rows import Rollout, Rollouts, Target, check_id
from cloud.rollout.rules import LIMITED, MOST_BATCHES, Rules, parse_batch, parse_limit
from cloud.store import Store, explain
from wire import bounds
from wire.orders import ConfigOrder, ModelOrder

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")
LOOK_EVERY_S: Final = 1.0
SHOWN: Final = 12
REVERTED: Final = ("done", "silent", "failed", "ordered")
"""Parts whose devices may have kept what a rollout brought."""
BAR: Final = 20
"""Characters of a progress bar."""
_UNITS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

Said = tuple[dict[str, Any], str]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command works with."""

    rollouts: Rollouts
    models: RepositoryFolder
    who: str
    now: datetime


def add_parts(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parts to the command `fleet`."""
    one = _part(parts.add_parser("plan", help="who would get a model when; nothing moves"), _plan)
    _add_rules(_add_model(one))
    rollout = parts.add_parser("rollout", help="start, list, watch, pause, resume, abort, revert")
    _add_rollout(rollout.add_subparsers(dest="action", metavar="ACTION", required=True))
    config = parts.add_parser("config", help="give devices settings: they lie below the device's own file")
    one = _part(
        config.add_subparsers(dest="action", metavar="ACTION", required=True).add_parser("set", help="order settings"),
        _config,
    )
    one.add_argument("file", type=Path, metavar="FILE", help="settings as TOML")
    _add_rules(one)
    one = _part(parts.add_parser("label", help="give a device labels, by which batches pick"), _label)
    one.add_argument("device", metavar="DEVICE")
    one.add_argument("labels", nargs="+", metavar="LABEL")
    one.add_argument("--remove", action="store_true", help="take them off")
    one = _part(parts.add_parser("why", help="why a device has what it has, in a sentence"), _why)
    one.add_argument("device", metavar="DEVICE")
    one = _part(parts.add_parser("audit", help="what was done by whom"), _audit)
    one.add_argument("subject", nargs="?", metavar="ROLLOUT|DEVICE", help="of this alone")
    one.add_argument("--last", type=int, default=30, metavar="N", help="so many lines (%(default)s)")
    one.add_argument("--verify", action="store_true", help="go through the whole chain of hashes")
    one.add_argument("--known", metavar="HASH", help="a hash noted earlier, which must still be in it")


def _add_rollout(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _add_rules(_add_model(_part(actions.add_parser("start", help="start what `plan` shows"), _start)))
    _part(actions.add_parser("list", help="list rollouts, the newest first"), _list)
    for name, act, text in (
        ("show", _show, "show one with its devices"),
        ("watch", _watch, "follow it until it ends"),
        ("pause", _change, "order nobody new"),
        ("resume", _change, "go on"),
        ("abort", _change, "stop it; who is not on trial yet keeps what it has"),
        ("revert", _revert, "roll out the bytes before it, published as a higher release"),
    ):
        one = _part(actions.add_parser(name, help=text), act)
        one.add_argument("rollout", metavar="ROLLOUT")
        if name in ("pause", "abort"):
            one.add_argument("--reason", default="", help="for the others who look")
        if name == "resume":
            one.add_argument("--success", type=float, metavar="PERCENT", help="be content with this from now on")
        if name == "revert":
            one.add_argument("--release", type=int, help="the higher release with the old bytes (the newest published)")


def _add_model(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", help="the bundle's name: shelfwire-cloud fleet list")
    parser.add_argument("--release", type=int, help="its release (the newest)")
    return parser


def _add_rules(parser: argparse.ArgumentParser) -> None:
    rules = Rules()
    parser.add_argument("--id", metavar="ROLLOUT", help="name of the rollout (made of the bundle's)")
    parser.add_argument(
        "--batch", action="append", metavar="BATCH",
        help="devices in all up to here, one --batch after the other: 1, 10%%, all, label=canary:all, store=S:1 "
        "(1, 10%%, 50%%, all)",
    )  # fmt: skip
    parser.add_argument("--success", type=float, default=rules.success_percent, metavar="PERCENT",
                        help="of those that ended, before the next batch (%(default)s)")  # fmt: skip
    parser.add_argument("--min-sample", type=int, default=rules.min_sample, metavar="N",
                        help="devices that must have ended to judge by (%(default)s)")  # fmt: skip
    parser.add_argument("--soak", default="1h", metavar="TIME", help="wait after a good batch (%(default)s)")
    parser.add_argument("--deadline", default="24h", metavar="TIME",
                        help="a device that is not done by then has failed (%(default)s)")  # fmt: skip
    parser.add_argument("--at-once", type=int, default=rules.at_once, metavar="N",
                        help="devices under way in all; one in a shop at a time (%(default)s)")  # fmt: skip
    for name in LIMITED:
        parser.add_argument(f"--max-{name}", default=str(rules.limits[name]), metavar="LIMIT",
                            help=f"abort above so many {name} devices: 2 or 5%% (10%%)")  # fmt: skip


def _part(parser: argparse.ArgumentParser, act: Callable[[Desk, argparse.Namespace], Said]) -> argparse.ArgumentParser:
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
        help="the cloud's folder: embedded PostgreSQL and repository (%(default)s)",
    )  # fmt: skip
    common.add_json(parser)
    common.add_logging(parser)
    parser.set_defaults(desk=act)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what was asked; 1 when the audit does not hold, or a watched rollout was aborted."""
    common.start_logging(options, "fleet")
    store = Store.open(options.dsn, options.data)
    try:
        models = RepositoryFolder.of_cloud(options.data)
        desk = Desk(Rollouts(store.pool), models, getpass.getuser(), datetime.now(UTC))
        said, text = options.desk(desk, options)
    except psycopg.OperationalError as error:
        raise explain(error) from error
    except PoolTimeout as error:
        text = f"the database does not answer: {error}"
        raise Retryable("store-away", text, "start it, or correct --dsn; nothing was changed") from error
    finally:
        store.close()
    print(json.dumps(said, default=_plain, indent=2) if options.json else text)
    return 1 if said.get("bad") else 0


def _plain(value: object) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


# -- plan and start ------------------------------------------------------------------------------------------------


def rules_of(options: argparse.Namespace) -> Rules:
    """Read the rules. Raises `Rejected` (``bad-batch``, ``bad-limit``, ``bad-time``, ``bad-rule``)."""
    batches = tuple(parse_batch(text) for text in options.batch or ("1", "10%", "50%", "all"))
    if not 0 <= options.success <= 100 or options.min_sample < 1 or options.at_once < 1 or len(batches) > MOST_BATCHES:
        raise Rejected(
            "bad-rule", "one of the rules is out of its range",
            f"--success 0 to 100, --min-sample and --at-once at least 1, at most {MOST_BATCHES} batches",
        )  # fmt: skip
    return Rules(
        batches=batches,
        success_percent=options.success,
        min_sample=options.min_sample,
        soak_s=seconds(options.soak),
        deadline_s=seconds(options.deadline),
        at_once=options.at_once,
        limits={name: parse_limit(vars(options)[f"max_{name.replace('-', '_')}"]) for name in LIMITED},
    )


def seconds(text: str) -> float:
    """Read a length of time: 90s, 30min, 4h, 2d. Raises `Rejected` (``bad-time``)."""
    match = re.fullmatch(r"(\d{1,6})\s*(s|min|h|d)", text.strip())
    if match is None:
        raise Rejected("bad-time", f"{text!r} is no length of time", "for example 90s, 30min, 4h or 2d")
    return float(int(match[1]) * _UNITS[match[2]])


def _bundle(desk: Desk, name: str, release: int | None) -> Published:
    found = [one for one in desk.models.published() if one.name == name and release in (None, one.release)]
    if not found:
        wanted = name if release is None else f"{name} release {release}"
        raise Rejected("bundle-unpublished", f"{wanted} is not published", "see shelfwire-cloud fleet list")
    return max(found, key=lambda one: one.release)


def _order(bundle: Published) -> ModelOrder:
    return ModelOrder(name=bundle.name, version=bundle.version, release=bundle.release, digest=bundle.digest)


def _plan(desk: Desk, options: argparse.Namespace) -> Said:
    bundle, rules = _bundle(desk, options.name, options.release), rules_of(options)
    name = check_id(options.id or f"{bundle.name}-{bundle.release}")
    planned = desk.rollouts.planned(name, rules)
    return _say_plan(desk, name, f"{bundle.name} {bundle.version}, release {bundle.release}", rules, planned)


def _say_plan(desk: Desk, name: str, title: str, rules: Rules, planned: Sequence[Any]) -> Said:
    online = {row.device for row in desk.rollouts.devices() if row.state == "online"}
    stages = words.stages(planned, rules)
    said = {
        "rollout": name, "title": title, "devices": len(planned), "takes_s": words.TAKES_S,
        "batches": [
            {"batch": str(rules.batches[s.number]), "begins_s": s.begins_s, "ends_s": s.ends_s,
             "devices": [{"device": one.member.device, "store": one.member.store, "online": one.member.device in online}
                         for one in s.devices]}
            for s in stages
        ],
    }  # fmt: skip
    lines = [f"{name}: {title} for {_devices(len(planned))}; nothing has moved yet.", ""]
    for stage in stages:
        away = sum(one.member.device not in online for one in stage.devices)
        lines.append(
            f"batch {stage.number + 1} ({rules.batches[stage.number]}), {_devices(len(stage.devices))}"
            f"{f', {away} offline now' if away else ''}: from {words.clock(desk.now, stage.begins_s)} UTC"
        )
        shown = [f"{one.member.device} ({one.member.store or 'no shop'})" for one in stage.devices[:SHOWN]]
        more = len(stage.devices) - len(shown)
        lines.append(f"    {', '.join(shown)}{f' and {more} more (--json has all)' if more else ''}")
    lines += ["", _rules_text(rules)]
    return said, "\n".join(lines)


def _devices(n: int) -> str:
    return f"{n} device{'' if n == 1 else 's'}"


def _rules_text(rules: Rules) -> str:
    limits = ", ".join(f"{name} {limit}" for name, limit in rules.limits.items())
    return (
        f"A batch opens {words.span(rules.soak_s)} after {rules.success_percent:g} % of those before it are done.\n"
        f"One device of a shop is under way at a time, {rules.at_once} in all. Who is not done "
        f"{words.span(rules.deadline_s)} after its order is silent.\nAborted above: {limits}.\n"
        f"Times are the earliest, with {words.span(words.TAKES_S)} for a device."
    )


def _start(desk: Desk, options: argparse.Namespace) -> Said:
    bundle, rules = _bundle(desk, options.name, options.release), rules_of(options)
    name = check_id(options.id or f"{bundle.name}-{bundle.release}")
    return _begin(desk, name, f"{bundle.name} {bundle.version}, release {bundle.release}", _order(bundle), rules)


def _begin(desk: Desk, name: str, title: str, target: Target, rules: Rules, **more: Any) -> Said:
    planned = desk.rollouts.begin(name, title, target, rules, desk.who, desk.now, **more)
    text = (
        f"{name} has started: {title} for {_devices(len(planned))}.\n"
        f"The conductor of `shelfwire-cloud serve --broker` moves it on. Follow it with:\n\n"
        f"    shelfwire-cloud fleet rollout watch {name}"
    )
    return {"rollout": name, "title": title, "devices": len(planned), "state": "running"}, text


def _config(desk: Desk, options: argparse.Namespace) -> Said:
    try:
        text = options.file.read_text("utf-8")
        tomllib.loads(text)
    except OSError as error:
        raise Rejected("config-file", f"{options.file} cannot be read: {error.strerror}", "correct FILE") from None
    except ValueError as error:
        raise Rejected("config-toml", f"{options.file} is no TOML: {error}", "correct the line that it names") from None
    if len(text) > bounds.CONFIG_CHARACTERS:
        raise Rejected("config-large", f"{len(text)} characters", f"at most {bounds.CONFIG_CHARACTERS}")
    name = check_id(options.id or f"config-{desk.now:%Y%m%d-%H%M%S}")
    return _begin(desk, name, f"settings of {options.file.name}", ConfigOrder(text=text), rules_of(options))


# -- the life of a rollout -----------------------------------------------------------------------------------------


def _list(desk: Desk, _: argparse.Namespace) -> Said:
    found = desk.rollouts.all()
    if not found:
        return {"rollouts": []}, "no rollout yet: shelfwire-cloud fleet plan NAME"
    cells = [("rollout", "what", "state", "batch", "done", "bad", "to come", "started")]
    cells += [
        (one.id, one.title, one.state, f"{one.batch + 1}/{len(one.chosen.batches)}", str(one.counts.get("done", 0)),
         str(_bad(one)), str(one.counts.get("waiting", 0) + one.counts.get("ordered", 0)),
         f"{one.made_at.astimezone(UTC):%Y-%m-%d %H:%M}")
        for one in found
    ]  # fmt: skip
    return {"rollouts": [asdict(one) for one in found]}, _table(cells)


def _bad(one: Rollout) -> int:
    return sum(one.counts.get(name, 0) for name in LIMITED)


def _show(desk: Desk, options: argparse.Namespace) -> Said:
    one, parts = desk.rollouts.one(options.rollout), desk.rollouts.parts(options.rollout, desk.now)
    said = {**asdict(one), "parts": [_part_said(part) for part in parts]}
    cells = [("device", "shop", "batch", "state", "at", "said")]
    cells += [
        (p.device, p.store, str(p.batch + 1), p.state, p.update_state, f"{p.text}{f' [{p.code}]' if p.code else ''}")
        for p in parts
    ]  # fmt: skip
    return said, f"{_line(one)}\n{one.reason}\n\n{_table(cells)}"


def _part_said(part: Any) -> dict[str, Any]:
    return {k: v for k, v in asdict(part).items() if k not in ("reported", "former")}


def _line(one: Rollout) -> str:
    total = sum(one.counts.values())
    ended = sum(one.counts.get(name, 0) for name in ENDED)
    counts = ", ".join(f"{n} {state}" for state, n in sorted(one.counts.items()))
    return (
        f"{one.id}: {one.state}, batch {one.batch + 1} of {len(one.chosen.batches)}, {ended} of {total} ended: {counts}"
    )


def _watch(desk: Desk, options: argparse.Namespace) -> Said:
    """Show every change until it is over, or until a signal; the last line is what `run` prints."""
    stop, show = common.Stop(), _Progress(quiet=options.json)
    stop.listen()
    while True:
        one = desk.rollouts.one(options.rollout)
        line = _line(one) + (f"; {one.reason}" if one.reason else "")
        if one.state in OVER or one.state == "catching-up" or stop.event.wait(LOOK_EVERY_S):
            said = {
                "rollout": one.id, "state": one.state, "reason": one.reason, "counts": one.counts,
                "bad": one.state == "aborted",
            }  # fmt: skip
            tell = f"\nTo go back: shelfwire-cloud fleet rollout revert {one.id}" if one.state == "aborted" else ""
            show.end()
            return said, line + tell
        total = sum(one.counts.values())
        show.say(line, sum(one.counts.get(name, 0) for name in ENDED) / max(1, total))


class _Progress:
    """One line with a bar that moves on a terminal; elsewhere a line at each change, or with `quiet` none."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stdout.isatty()
        self._last = ""

    def say(self, line: str, part: float) -> None:
        """Show a line; `part` of the whole is done."""
        if self._quiet or line == self._last:
            return
        self._last = line
        if not self._terminal:
            print(line, flush=True)
            return
        full = round(BAR * part)
        width = shutil.get_terminal_size().columns
        text = f"[{'#' * full}{'.' * (BAR - full)}] {line}"
        print(f"\r\033[K{text[: width - 1]}", end="", flush=True)

    def end(self) -> None:
        """Leave the line to what follows."""
        if self._terminal and not self._quiet and self._last:
            print("\r\033[K", end="", flush=True)


def _change(desk: Desk, options: argparse.Namespace) -> Said:
    event = options.action
    if event == "resume" and options.success is not None:
        one = desk.rollouts.one(options.rollout)
        desk.rollouts.accept(
            one.id, replace(one.chosen, success_percent=options.success), desk.who, desk.now
        )  # fmt: skip
    reason = getattr(options, "reason", "") or f"by {desk.who}"
    state = desk.rollouts.change(options.rollout, event, "" if event == "resume" else reason, desk.who, desk.now)
    text = f"{options.rollout} is {state}."
    if state == "aborted":
        text += (
            " Devices that were not on trial yet keep what they have; those on trial end it.\n"
            "Devices that are done keep the new model; to take it back: "
            f"shelfwire-cloud fleet rollout revert {options.rollout}"
        )
    return {"rollout": options.rollout, "state": state}, text


def _revert(desk: Desk, options: argparse.Namespace) -> Said:
    """Roll out to all that got it what they had before: which must be published with a higher release."""
    one = desk.rollouts.one(options.rollout)
    if one.state not in OVER:
        raise Rejected(
            "rollout-state", f"{one.id} is {one.state}", f"shelfwire-cloud fleet rollout abort {one.id} first"
        )
    if one.what != "model":
        raise Rejected(
            "revert-config", "settings go back by ordering the old ones", "shelfwire-cloud fleet config set OLD_FILE"
        )
    parts = [part for part in desk.rollouts.parts(one.id, desk.now) if part.state in REVERTED]
    if not parts:
        raise Rejected("revert-nobody", f"no device has kept what {one.id} brought", "there is nothing to revert")
    bundle = _higher(desk, one, options.release, _former(parts))
    name = check_id(f"{one.id}-revert-{bundle.release}")
    rules = replace(one.chosen, batches=(parse_batch("all"),), soak_s=0.0)
    title = f"{bundle.name} {bundle.version}, release {bundle.release}"
    return _begin(desk, name, title, _order(bundle), rules, reverts=one.id, only=[part.device for part in parts])


def _former(parts: Sequence[Any]) -> str:
    names: Counter[str] = Counter()
    for part in parts:
        had = (part.former or {}).get("model") or (part.reported or {}).get("previous")
        names[words.model_text(had)] += 1
    return names.most_common(1)[0][0]


def _higher(desk: Desk, one: Rollout, release: int | None, former: str) -> Published:
    """Find the bundle to go back to. Raises `Rejected` (``revert-bundle``) with the way to make it."""
    mine = one.target["release"]
    found = [
        b for b in desk.models.published()
        if b.name == one.target["name"] and b.release > mine and release in (None, b.release)
    ]  # fmt: skip
    if not found:
        raise Rejected(
            "revert-bundle",
            f"devices never go to a lower release than {mine}, and no higher one of {one.target['name']} is published",
            f"take the bundle that they had ({former}), set \"release\" to {mine + 1} in its bundle.json, "
            f"shelfwire-cloud fleet publish it, and revert again (docs/operator.md)",
        )  # fmt: skip
    return max(found, key=lambda b: b.release)


# -- looking -------------------------------------------------------------------------------------------------------


def _label(desk: Desk, options: argparse.Namespace) -> Said:
    for label in options.labels:
        if not re.fullmatch(bounds.NAME, label):
            raise Rejected("bad-label", f"{label[:80]!r} is no label", "letters, digits, dot, dash and underscore")
    _device(desk, options.device)
    add, drop = ([], options.labels) if options.remove else (options.labels, [])
    left = desk.rollouts.label(options.device, add, drop, desk.who, desk.now)
    return {"device": options.device, "labels": left}, f"{options.device}: {', '.join(left) or 'no labels'}"


def _device(desk: Desk, name: str) -> Any:
    found = desk.rollouts.devices(name)
    if not found:
        raise Rejected(
            "device-unknown", f"no device is called {name[:80]}", "see shelfwire-cloud fleet device list"
        )  # fmt: skip
    return found[0]


def _why(desk: Desk, options: argparse.Namespace) -> Said:
    device, history = _device(desk, options.device), desk.rollouts.history(options.device)
    text = words.why(device, history, desk.now)
    keys = ("id", "title", "rollout_state", "state", "batch", "update_state", "code", "text", "numbers", "ordered_at")
    said = {
        "device": device.device, "why": text, "reported": device.reported, "desired_revision": device.revision,
        "rollouts": [{key: part[key] for key in keys} for part in history],
        "steps": desk.rollouts.steps(options.device),
    }  # fmt: skip
    return said, text


def _audit(desk: Desk, options: argparse.Namespace) -> Said:
    if options.verify or options.known:
        found = desk.rollouts.verify_audit(options.known)
        said = {**asdict(found), "bad": found.broken is not None}
        if found.broken is not None:
            return said, f"the audit does not hold at line {found.broken}: {found.why}"
        return said, f"all {found.lines} lines hold; the newest hash is {found.newest}\nNote it elsewhere (--known)."
    lines = desk.rollouts.audit_lines(options.last, options.subject)
    cells = [("n", "when", "who", "what", "of", "said")]
    cells += [
        (str(line.n), line.at[:19], line.who, line.what, line.subject, json.dumps(line.said, default=str)[:90])
        for line in lines
    ]  # fmt: skip
    return {"lines": [asdict(line) for line in lines]}, _table(cells) if lines else "nothing was done yet"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
