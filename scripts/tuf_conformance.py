"""The device's own client of signed repositories, driven by the command line of the public suite tuf-conformance.

It is the code that devices run: `agent.link.trust`, `download` and `mirror_http`. Only the floor of the clock is left
out, because the suite has repositories of past years. Exit code 0, or 1 with the reason on standard error.
"""

import argparse
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from agent.errors import Rejected, ShelfwireError
from agent.host.clock import SystemClock
from agent.link.download import Downloads
from agent.link.mirror_http import HttpMirror
from agent.link.trust import Trust

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def init(options: argparse.Namespace) -> None:
    """Begin with this root; nothing is asked of the repository."""
    options.metadata_dir.mkdir(parents=True, exist_ok=True)
    into = options.metadata_dir / "root.json"
    into.unlink(missing_ok=True)
    shutil.copyfile(options.trusted_root, into)


def refresh(options: argparse.Namespace) -> None:
    """Bring the metadata up to date."""
    _trust(options).refresh(HttpMirror(options.metadata_url))


def download(options: argparse.Namespace) -> None:
    """Bring the metadata up to date and fetch one artifact, unless it is there."""
    metadata = HttpMirror(options.metadata_url)
    found = _trust(options).find(options.target_name, metadata)
    if found is None:
        raise Rejected("update-unlisted", f"the repository does not offer {options.target_name}", "name another")
    targets = HttpMirror(options.target_base_url, session=metadata.session)
    downloads = Downloads(targets, SystemClock(), bytes_per_second=1 << 40)
    options.target_dir.mkdir(parents=True, exist_ok=True)
    into = options.target_dir / quote(options.target_name, "")
    downloads.fetch(found.place, found.file.hashes, found.file.length, into)


def _trust(options: argparse.Namespace) -> Trust:
    return Trust(options.metadata_dir, SystemClock(), prefix="", oldest=LONG_AGO)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True, help="where trusted metadata is kept")
    parser.add_argument("--metadata-url", help="where the repository has its metadata")
    parser.add_argument("--target-name", help="path of the artifact in the repository")
    parser.add_argument("--target-base-url", help="where the repository has its artifacts")
    parser.add_argument("--target-dir", type=Path, help="where artifacts are stored")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    options = parser.parse_args(arguments)
    try:
        {"init": init, "refresh": refresh, "download": download}[options.command](options)
    except (ShelfwireError, OSError) as error:
        print(f"{error} [{getattr(error, 'code', 'os')}]", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
