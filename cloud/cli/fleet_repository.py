"""The parts of `shelfwire-cloud fleet` that are about the repository of models: keys, publish, list, refresh, ...

They need no database and no server, and run wherever the repository's folder and the keys come together.
"""

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cloud.cli import common
from cloud.errors import Rejected
from cloud.repository import Keys, RepositoryFolder, publish, unpublish
from cloud.repository.ceremony import ROLES
from cloud.repository.export import export
from cloud.repository.folder import RoleState
from cloud.repository.keys import Unlock, signers_in
from cloud.repository.resigning import resign

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")
Said = tuple[dict[str, Any], str]


def add_parts(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parts to the command `fleet`."""
    _add_keys(parts.add_parser("keys", help="who may sign: init, show, rotate, renew"))
    one = _part(parts.add_parser("publish", help="offer a bundle to devices"), _publish)
    one.add_argument("bundle", type=Path, metavar="BUNDLE_DIR", help="folder with bundle.json")
    _add_key_folders(one, "targets")
    one = _part(parts.add_parser("unpublish", help="take a bundle back: no device accepts it any more"), _unpublish)
    one.add_argument("name", metavar="NAME")
    one.add_argument("release", type=int, metavar="RELEASE")
    _add_key_folders(one, "targets")
    _part(parts.add_parser("list", help="list the bundles offered, and how long the signatures last"), _list)
    one = _part(parts.add_parser("refresh", help="sign the timestamp anew (serve does it every day)"), _refresh)
    one.add_argument("--if-due", action="store_true", help="only when it is a day old")
    one = _part(parts.add_parser("export", help="copy the repository to a stick for shops without a line"), _export)
    one.add_argument("folder", type=Path, metavar="DIR", help="an empty folder, or an older copy")
    one.add_argument("--days", type=int, default=7, help="how long devices take it, at most 30 (%(default)s)")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = _part(actions.add_parser("init", help="make a repository; its offline keys go into a folder"), _init)
    one.add_argument("folder", type=Path, metavar="FOLDER", help="for root and targets keys: to be taken away")
    _add_passphrase(one)
    one = _part(actions.add_parser("show", help="show all keys that count, and which of them are here"), _show)
    _add_key_folders(one, None)
    one = _part(actions.add_parser("rotate", help="exchange the key of a role"), _rotate)
    one.add_argument("role", choices=[*ROLES, "online"], help="online: snapshot and timestamp")
    _add_key_folders(one, "at least two root")
    one.add_argument("--replace", metavar="NAME", help="which root key goes, lost or not: root-2")
    one.add_argument("--into", type=Path, metavar="FOLDER", help="where the new offline key goes (the first --keys)")
    one = _part(actions.add_parser("renew", help="sign root and targets for another term"), _renew)
    _add_key_folders(one, "root or targets")


def _add_key_folders(parser: argparse.ArgumentParser, which: str | None) -> None:
    parser.add_argument(
        "--keys", type=Path, action="append", default=[], metavar="FOLDER", required=which is not None,
        help=f"folder with the {which or 'offline'} keys; give all of them",
    )  # fmt: skip
    _add_passphrase(parser)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, action="append", default=[], metavar="FILE",
        help="its first line opens locked keys; the first one given locks new keys; for others a terminal is asked",
    )  # fmt: skip


def _passphrases(options: argparse.Namespace) -> list[bytes]:
    return [common.read_secret(path, "--passphrase-file").encode("utf-8") for path in options.passphrase_file]


def _keys(repository: RepositoryFolder, options: argparse.Namespace) -> Keys:
    return Keys(repository, next(iter(_passphrases(options)), None), _unlock(options))


def _unlock(options: argparse.Namespace) -> Unlock:
    given = _passphrases(options)

    def unlock(path: Path) -> Iterator[bytes]:
        yield from given
        if sys.stdin.isatty():
            yield getpass.getpass(f"Passphrase of {path}: ").encode("utf-8")

    return unlock


def _part(parser: argparse.ArgumentParser, act: Callable[..., Said]) -> argparse.ArgumentParser:
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
        help="the cloud's folder: repository and online keys (%(default)s)",
    )  # fmt: skip
    common.add_json(parser)
    common.add_logging(parser)
    parser.set_defaults(alone=act)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    common.start_logging(options, "fleet")
    said, text = options.alone(RepositoryFolder.of_cloud(options.data), options)
    print(json.dumps(said, indent=2) if options.json else text)
    return 0


def _init(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    root = _keys(repository, options).init(options.folder.expanduser())
    said = {"repository": str(repository.folder), "root_file": str(root), "keys": str(root.parent)}
    text = (
        f"The repository is {repository.folder}; `shelfwire-cloud serve` offers it below /repository.\n\n"
        f"Now take the keys in {root.parent} away from this machine: each root key to another place, and the\n"
        f"targets key to where you publish from. README.txt there says which is for what.\n\n"
        f"Devices trust {root.name} from there, which is no secret: it comes with `shelfwire-agent enroll`, or copy\n"
        f"it to STATE_DIR/models/root.json on a device."
    )
    return said, text


def _show(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    keys = _keys(repository, options).show(options.keys)
    rows = [("role", "key", "id", "here")]
    rows += [(key.role, key.name, key.keyid[:12], "yes" if key.here else "no") for key in keys]
    said = {"keys": [asdict(key) for key in keys], **_states(repository)}
    return said, _table(rows) + "\n\n" + _states_text(repository)


def _rotate(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    if options.role == "root" and options.replace is None:
        raise Rejected("keys-unknown", "say which root key goes", "--replace NAME; fleet keys show lists them")
    into = options.into or options.keys[0]
    made = _keys(repository, options).rotate(options.role, options.keys, into, options.replace)
    said = {"made": made, "root": repository.read().root.signed.version}
    text = f"New: {', '.join(made)}. Root {said['root']} says so to devices; the old key counts no more.\n"
    if options.role in ("root", "targets"):
        text += f"The key is in {into}: take it away, and destroy the old one where you still have it."
    return said, text


def _renew(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    renewed = _keys(repository, options).renew(options.keys)
    return {"renewed": renewed, **_states(repository)}, _states_text(repository)


def _publish(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    one = publish(repository, options.bundle, signers_in(options.keys, _unlock(options)))
    text = (
        f"{one.name} {one.version}, release {one.release}, is offered: {one.size_bytes / 1e6:.1f} MB, "
        f"{one.digest[:12]}.\nNo device takes it before it is ordered to."
    )
    return asdict(one), text


def _unpublish(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    freed_bytes = unpublish(repository, options.name, options.release, signers_in(options.keys, _unlock(options)))
    said = {"name": options.name, "release": options.release, "freed_bytes": freed_bytes}
    return said, f"{options.name} release {options.release} is taken back; {freed_bytes / 1e6:.1f} MB of files went."


def _list(repository: RepositoryFolder, _: argparse.Namespace) -> Said:
    bundles = repository.published()
    rows = [("bundle", "release", "version", "MB", "published", "digest")]
    rows += [
        (one.name, str(one.release), one.version, f"{one.size_bytes / 1e6:.1f}", one.published_at, one.digest[:12])
        for one in bundles
    ]
    text = _table(rows) if bundles else "no bundle yet: shelfwire-cloud fleet publish BUNDLE_DIR --keys FOLDER"
    return {"bundles": [asdict(one) for one in bundles], **_states(repository)}, text + "\n\n" + _states_text(
        repository
    )


def _refresh(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    done = resign(repository, force=not options.if_due)
    return {"signed": done, **_states(repository)}, _states_text(repository)


def _export(repository: RepositoryFolder, options: argparse.Namespace) -> Said:
    until = export(repository, options.folder, options.days)
    said = {"folder": str(options.folder), "until": until.isoformat()}
    return said, f"Copied to {options.folder}. Devices take it until {until:%Y-%m-%d %H:%M} UTC; then copy it anew."


def _states(repository: RepositoryFolder) -> dict[str, Any]:
    return {"roles": [asdict(state) | {"expires_at": state.expires_at.isoformat()} for state in repository.states()]}


def _states_text(repository: RepositoryFolder) -> str:
    rows = [("metadata", "version", "counts until", "")]
    rows += [
        (state.role, str(state.version), f"{state.expires_at:%Y-%m-%d %H:%M} UTC", _alarm(state))
        for state in repository.states()
    ]
    return _table(rows)


def _alarm(state: RoleState) -> str:
    if not state.alarm:
        return ""
    return "HAS RUN OUT: no device updates" if state.left_s < 0 else f"ALARM: {state.left_s / 86400:.1f} days left"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
