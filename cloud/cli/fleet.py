"""Who belongs to the fleet: let devices enrol, look at them, shut them out; every command takes --json.

shelfwire-cloud fleet device add till-3 --store store-12    a one-time code, and what to type on the device
shelfwire-cloud fleet device list                           all devices, their certificates, who was heard
shelfwire-cloud fleet device show till-3                    one device and its certificates
shelfwire-cloud fleet device revoke till-3                  shut it out: API at once, broker within seconds
shelfwire-cloud fleet broker-config DIR --host cloud.example    files for a mosquitto of your own, with TLS
shelfwire-cloud fleet keys init FOLDER                     a repository of models, and who may sign (docs/repository.md)
shelfwire-cloud fleet publish BUNDLE_DIR --keys FOLDER     offer a bundle; also list, unpublish, refresh, export
shelfwire-cloud fleet plan NAME                            who would get it when; nothing moves
shelfwire-cloud fleet rollout start NAME                   also list, show, watch, pause, resume, abort, revert
shelfwire-cloud fleet config set FILE                      settings instead of a model, the same way
shelfwire-cloud fleet label till-3 canary                  labels, by which batches pick devices
shelfwire-cloud fleet why till-3                           why it has what it has, in a sentence
shelfwire-cloud fleet audit --verify                       what was done by whom, and whether that was changed
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloud.cli import common, fleet_repository, fleet_rollout
from cloud.cli.common_fleet import TLS_PORT
from cloud.errors import Rejected
from cloud.fleet import Authority, Fleet
from cloud.fleet.broker_config import write_broker_folder
from cloud.fleet.registry import Row, unknown_device
from cloud.store import Store

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")
LONGEST = timedelta(days=14)
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    _add_device(parts.add_parser("device", help="add, list, show, revoke"))
    fleet_repository.add_parts(parts)
    fleet_rollout.add_parts(parts)
    config = parts.add_parser("broker-config", help="write the files of a mosquitto with TLS for devices")
    config.add_argument("folder", type=Path, metavar="DIR", help="folder for the broker's files")
    config.add_argument("--host", action="append", required=True, metavar="NAME",
                        help="name or address of the broker for devices (give all)")  # fmt: skip
    config.add_argument("--port", type=int, default=TLS_PORT, help="TLS port for devices (%(default)s)")
    config.add_argument("--cloud-port", type=int, default=1883, help="port for the cloud, on loopback (%(default)s)")
    config.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS",  # noqa: S104 - it asks for certificates
                        help="address to listen on for devices (%(default)s)")  # fmt: skip
    config.set_defaults(act=_broker_config)
    _add_common(config)


def _add_device(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="let a device enrol: print its one-time code")
    add.add_argument("device", metavar="NAME", help="its name: letters, digits, dot, dash and underscore")
    add.add_argument("--store", required=True, metavar="STORE", help="the shop that it stands in")
    add.add_argument("--replace", action="store_true", help="let another board take the name of an enrolled device")
    add.add_argument("--valid", default="24h", metavar="TIME", help="how long the code counts: 30min, 24h, 3d (24h)")
    add.set_defaults(act=_add)
    listing = actions.add_parser("list", help="list all devices")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", help="show one device and its certificates")
    show.add_argument("device", metavar="NAME")
    show.set_defaults(act=_show)
    revoke = actions.add_parser("revoke", help="shut a device out")
    revoke.add_argument("device", metavar="NAME")
    revoke.set_defaults(act=_revoke)
    for action in (add, listing, show, revoke):
        _add_common(action)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
        help="the cloud's folder: embedded PostgreSQL and certificate authority (%(default)s)",
    )  # fmt: skip
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    if hasattr(options, "alone"):
        return fleet_repository.run(options)
    if hasattr(options, "desk"):
        return fleet_rollout.run(options)
    common.start_logging(options, "fleet")
    store = Store.open(options.dsn, options.data)
    try:
        said, text = options.act(Fleet(store.pool), options)
    finally:
        store.close()
    print(json.dumps(said, default=_plain, indent=2) if options.json else text)
    return 0


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(value)


def _add(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    added = fleet.add(options.device, options.store, _life(options.valid), replace=options.replace)
    address = fleet.address()
    url = address[0] if address is not None else None
    command = f"sudo shelfwire-agent enroll {url or 'https://CLOUD:8443'} --code {added.code}"
    said = {
        "device": added.device, "store": added.store, "code": str(added.code), "expires_at": added.expires_at,
        "url": url, "command": command,
    }  # fmt: skip
    lines = [
        f"{added.device} of {added.store} may enrol once, until {_when(added.expires_at)}. Type on the device:",
        "",
        f"    {command}",
        "",
        "The code is shown this once and counts for this device alone.",
    ]
    if options.replace:
        lines.append("On the board that has the name now, put --force behind it.")
    if url is None:
        lines.append("No server has opened a port for devices yet (serve --device-port): put its address for CLOUD.")
    return said, "\n".join(lines)


def _life(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,4})\s*(min|h|d)", text.strip())
    life = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < life <= LONGEST:
        raise Rejected(
            "bad-valid", f"{text!r} is no time for a code to count", f"for example 24h; at most {LONGEST.days}d"
        )
    return life


def _list(fleet: Fleet, _: argparse.Namespace) -> tuple[dict[str, Any], str]:
    rows = fleet.devices()
    now = datetime.now(UTC)
    said = {"devices": [_as_json(row, now) for row in rows]}
    if not rows:
        return said, "no device yet: shelfwire-cloud fleet device add NAME --store STORE"
    cells = [("device", "store", "state", "certificate until", "last at the API", "at the broker")]
    cells += [
        (row.device, row.store, row.state(now), _when(row.not_after), _when(row.used_at), _heard(row)) for row in rows
    ]
    return said, _table(cells)


def _as_json(row: Row, now: datetime) -> dict[str, Any]:
    return {"state": row.state(now), **asdict(row)}


def _heard(row: Row) -> str:
    return "never" if row.heard_at is None else f"{row.presence}, {_when(row.heard_at)}"


def _show(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    found = fleet.devices(options.device)
    if not found:
        raise unknown_device(options.device)
    row, now = found[0], datetime.now(UTC)
    certificates = fleet.certificates(row.device)
    said = {**_as_json(row, now), "certificates": [asdict(one) for one in certificates]}
    lines = [
        f"{row.device}  of {row.store}: {row.state(now)}",
        f"added            {_when(row.added_at)}",
        f"revoked          {_when(row.revoked_at)}",
        f"open code until  {_when(row.code_until)}",
        f"at the broker    {_heard(row)}",
        "",
    ]
    cells = [("certificate", "made", "until", "last used", "revoked")]
    cells += [
        (one.serial[:12], _when(one.issued_at), _when(one.not_after), _when(one.seen_at), _when(one.revoked_at))
        for one in certificates
    ]
    return said, "\n".join(lines) + (_table(cells) if certificates else "no certificate yet")


def _revoke(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    ended = fleet.revoke(options.device)
    said = {"device": options.device, "state": "revoked", "certificates_ended": ended}
    return said, (
        f"{options.device} is shut out: {ended} {'certificate' if ended == 1 else 'certificates'} ended.\n"
        "The API refuses it from now on. The broker does within seconds where serve has its --broker-folder; for any\n"
        "other broker, write its files again (fleet broker-config DIR), reload it, and restart it to cut the session."
    )


def _broker_config(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    authority = Authority.in_data(options.data)
    now = datetime.now(UTC)
    serials, _ = fleet.revoked(now)
    written = write_broker_folder(
        options.folder, authority, options.host, options.listen, (options.port, options.cloud_port), serials, now
    )
    serve = (
        f"shelfwire-cloud serve --broker mqtt://cloud@127.0.0.1:{options.cloud_port} --password-file {written.password}"
        f" --broker-folder {written.folder} --device-port 8443 --device-host {options.host[0]}"
        f" --device-broker mqtts://{options.host[0]}:{options.port}"
    )
    broker = f"mosquitto -c {written.configuration}"
    said = {"folder": written.folder, "broker": broker, "serve": serve, "certificate_until": written.until}
    text = (
        f"Written to {written.folder}; the broker's certificate counts until {_when(written.until)}.\n"
        f"Run this command again before that, and reload the broker.\n\n    {broker}\n    {serve}"
    )
    return said, text


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
