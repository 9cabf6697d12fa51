"""Classify the pictures of asynchronous jobs, and tell their senders. Start as many as you need.

Each worker has its own limited processes for the pictures (--concurrency). Killed in the middle of a job, its work is
taken over by another worker, or by itself when it is started again.
"""

import argparse
import json
import logging
import random
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cloud.cli import common
from cloud.errors import Rejected
from cloud.jobs.callback import ALLOW, Allowed
from cloud.jobs.look import Lookers
from cloud.jobs.notices import Mail, Ways
from cloud.jobs.rows import Jobs
from cloud.jobs.work import Options, Work, Worker
from cloud.store import Store

log = logging.getLogger(__name__)

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")
SMTP_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
DAY_S = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `worker`."""
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the embedded one (%(default)s)"
    )
    parser.add_argument("--concurrency", type=int, default=1, metavar="N", help="jobs at once (%(default)s)")
    parser.add_argument(
        "--picture-limit", type=float, default=10.0, metavar="S", help="longest look at a picture (%(default)s)"
    )
    parser.add_argument(
        "--stalled-after", type=float, default=30.0, metavar="S", help="take over from a worker silent so long "
        "(%(default)s)"
    )  # fmt: skip
    parser.add_argument(
        "--retry-base", type=float, default=2.0, metavar="S", help="pause after a first failed attempt (%(default)s)"
    )
    parser.add_argument(
        "--keep-pictures", type=float, default=7.0, metavar="DAYS", help="delete pictures of finished jobs after this "
        "(%(default)s)"
    )  # fmt: skip
    parser.add_argument(
        "--keep-jobs", type=float, default=90.0, metavar="DAYS", help="delete finished jobs after this (%(default)s)"
    )
    parser.add_argument(
        "--allow-callback", action="append", default=[], metavar="NET", help="a network or host name inside that "
        f"webhooks may reach; several times; also {ALLOW}, which the server that takes the jobs reads too"
    )  # fmt: skip
    parser.add_argument(
        "--webhook-secret-file", type=Path, metavar="FILE", help="its first line signs webhooks (whsec_...); without "
        "it a secret is made and kept in the store"
    )  # fmt: skip
    parser.add_argument("--show-secret", action="store_true", help="print the secret that signs webhooks, and end")
    parser.add_argument(
        "--smtp", metavar="URL", help="send mail by smtp://[user@]host[:port] (STARTTLS), smtps:// or smtp+plain://"
    )
    parser.add_argument("--smtp-password-file", type=Path, metavar="FILE", help="its first line is the password")
    parser.add_argument("--mail-from", metavar="ADDRESS", help="the sender of mail")
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Work until a signal; gives 0. With --json: an object with `ready`, and at the end one with the jobs' states."""
    common.start_logging(options, "worker")
    logging.getLogger("procrastinate").setLevel(logging.INFO if options.verbose else logging.ERROR)
    chosen = _options(options)
    words = Allowed.parse(options.allow_callback)
    around = Allowed.from_environment()
    allowed = Allowed(words.networks + around.networks, words.names + around.names)
    mail = parse_mail(options.smtp, options.smtp_password_file, options.mail_from)
    own_secret = common.read_password(options.webhook_secret_file) if options.webhook_secret_file else None
    stop = common.Stop()
    stop.listen()
    with ExitStack() as stack:
        store = Store.open(options.dsn, options.data)
        stack.callback(store.close)
        jobs = Jobs(store.pool)
        secret = own_secret or jobs.secret()
        if options.show_secret:
            print(json.dumps({"secret": secret}) if options.json else secret)
            return 0
        lookers = Lookers(chosen.concurrency, options.picture_limit)
        stack.callback(lookers.close)
        ways = Ways(lambda: secret, allowed, mail, lambda: datetime.now(UTC))
        work = Work(jobs, lookers, ways, random.Random(), chosen.retry_base_s)  # noqa: S311
        worker = Worker(store.dsn, jobs, work, chosen, stop.event.is_set)

        def ready() -> None:
            log.info("classifying with %s, %d at once", lookers.model, chosen.concurrency)
            if options.json:
                told = {"ready": True, "dsn": store.dsn, "model": lookers.model, "concurrency": chosen.concurrency}
                print(json.dumps(told), flush=True)

        worker.run(random.Random(), ready)  # noqa: S311
        if options.json:
            print(json.dumps({"jobs": jobs.counts()}), flush=True)
    return 0


def parse_mail(url: str | None, password_file: Path | None, sender: str | None) -> Mail | None:
    """Read the mail server's address. Raises `Rejected` (``bad-smtp-url``, ``mail-from``, ``password-file``)."""
    if url is None:
        if sender or password_file:
            raise Rejected("bad-smtp-url", "--mail-from without --smtp sends nothing", "add --smtp smtp://host:587")
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in SMTP_PORTS or not parts.hostname or parts.password or parts.path.strip("/"):
        raise Rejected(
            "bad-smtp-url", "this is no mail server's address",
            "smtp://user@host:587 with the password in --smtp-password-file; smtps:// or smtp+plain://",
        )  # fmt: skip
    if not sender or "@" not in sender or not sender.isprintable():
        raise Rejected("mail-from", "mail needs a sender", "add --mail-from shelfwire@example.com")
    secure = {"smtp": "starttls", "smtps": "tls", "smtp+plain": "none"}[parts.scheme]
    password = common.read_password(password_file) if password_file else None
    user = unquote(parts.username) if parts.username else None
    return Mail(parts.hostname, port or SMTP_PORTS[parts.scheme], secure, sender, user, password)


def _options(options: argparse.Namespace) -> Options:
    if not 1 <= options.concurrency <= 64:
        raise Rejected("worker-concurrency", "--concurrency must lie between 1 and 64", "for example --concurrency 2")
    for name in ("picture_limit", "stalled_after", "retry_base", "keep_pictures", "keep_jobs"):
        if not 0.01 <= getattr(options, name) <= 1e7:
            option = "--" + name.replace("_", "-")
            raise Rejected("worker-time", f"{option} must be more than 0", f"leave {option} out for the usual value")
    return Options(
        options.concurrency,
        options.stalled_after,
        options.retry_base,
        options.keep_pictures * DAY_S,
        options.keep_jobs * DAY_S,
    )
