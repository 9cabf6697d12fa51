"""What several commands share: where the broker is, logging, ending on a signal, errors that name the cure."""

import _thread
import argparse
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from urllib.parse import unquote, urlsplit

from cloud.errors import Rejected
from cloud.objects import Objects, open_objects
from wire import mqtt

PORTS = {"mqtt": 1883, "mqtts": 8883}
"""Schemes of a broker's address, and the ports that they mean when none is named."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_logging(parser: argparse.ArgumentParser) -> None:
    """Add `--verbose` and `--log-json`."""
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("--log-json", action="store_true", help="log one JSON object per line")


def add_broker(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add `--broker`, `--password-file`, `--ca-file` and `--client-id`."""
    parser.add_argument(
        "--broker", metavar="URL", required=required, help="the MQTT broker: mqtt[s]://[user@]host[:port]"
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the broker's password")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="trust this certificate authority (mqtts)")
    parser.add_argument("--client-id", metavar="ID", help="MQTT client id, one per process (default: made up)")


def broker_options(options: argparse.Namespace, name: str) -> mqtt.Options:
    """Turn the broker's options into a connection's; `name` begins the client id when none is given.

    Raises `Rejected` (``bad-broker-url``, ``password-file``, ``ca-file``).
    """
    return parse_broker(
        options.broker,
        password_file=options.password_file,
        ca_file=options.ca_file,
        client_id=options.client_id or f"{name}-{os.urandom(6).hex()}",
    )


def parse_broker(url: str, *, password_file: Path | None, client_id: str, ca_file: Path | None = None) -> mqtt.Options:
    """Read a broker's address. Raises `Rejected` (``bad-broker-url``, ``password-file``, ``ca-file``)."""
    example = "mqtt://cloud@127.0.0.1:1883, or mqtts:// for TLS"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected("bad-broker-url", f"the broker's address is not understood: {error}", example) from error
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise Rejected("bad-broker-url", f"{parts.scheme or url[:20]!r} is no broker's address", example)
    if parts.password is not None:
        raise Rejected(
            "bad-broker-url", "a password in the address can be read by everybody on this machine",
            "put it into a file and name that with --password-file",
        )  # fmt: skip
    if ca_file is not None and not ca_file.is_file():
        raise Rejected("ca-file", f"{ca_file} does not exist", "correct --ca-file")
    return mqtt.Options(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        client_id=client_id,
        username=unquote(parts.username) if parts.username else None,
        password=read_password(password_file) if password_file is not None else None,
        tls=parts.scheme == "mqtts",
        ca_file=ca_file,
    )


def read_password(path: Path) -> str:
    """Read the first line of a file. Raises `Rejected` (``password-file``)."""
    return read_secret(path, "--password-file")


def read_secret(path: Path, option: str) -> str:
    """Read the first line of the file that an option names. Raises `Rejected` (``password-file``...)."""
    code = option.removeprefix("--")
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise Rejected(code, f"{path} cannot be read: {reason}", f"correct {option}") from error
    if not lines or not lines[0].strip():
        raise Rejected(code, f"{path} is empty", f"write the {code.removesuffix('-file')} into its first line")
    return lines[0].strip()


def add_objects(parser: argparse.ArgumentParser) -> None:
    """Add `--objects`."""
    parser.add_argument(
        "--objects",
        metavar="PLACE",
        help="where the night's files lie: a folder, or s3://bucket/prefix with the AWS_* variables (DATA/objects)",
    )


def objects_of(options: argparse.Namespace) -> Objects:
    """Open the place for objects. Raises what `open_objects` raises."""
    return open_objects(options.objects or options.data / "objects")


class Stop:
    """The stop signal, passed in as a value. A second SIGTERM or SIGINT means now."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.crash: BaseException | None = None
        self._asked = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self._asked or self.event.is_set():
            os._exit(128 + number)
        self._asked = True
        # Not here: the lock of the event may be held by the very wait of the main thread that the signal interrupts.
        _thread.start_new_thread(self.event.set, ())

    def crashed(self, error: BaseException) -> None:
        """End the process because one of its threads died; its owner starts it anew."""
        self.crash = error
        self.event.set()

    def wait(self) -> None:
        """Wait for the end."""
        # A wait without an end would keep Python from seeing signals on some platforms.
        while not self.event.wait(1.0):
            pass


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(options: argparse.Namespace, role: str) -> None:
    """Log to standard error; the service manager adds the time there, a terminal needs it."""
    stream = logging.StreamHandler(sys.stderr)
    if options.log_json:
        stream.setFormatter(_JsonLines())
    elif "JOURNAL_STREAM" in os.environ:
        stream.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    else:
        stream.setFormatter(logging.Formatter(f"%(asctime)s {role:<6} %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, handlers=[stream], force=True)
    for chatty in ("alembic", "psycopg.pool"):
        logging.getLogger(chatty).setLevel(logging.INFO if options.verbose else logging.WARNING)


def say_error(code: str, message: str, hint: str) -> None:
    """Print an error and its cure for a person."""
    text = f"error: {message} [{code}]"
    if hint:
        text += f"\n  cure: {hint}"
    print(text, file=sys.stderr)
