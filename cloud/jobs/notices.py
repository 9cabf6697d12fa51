"""Tells a job's sender that it is over: a signed webhook, an e-mail."""

import json
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from standardwebhooks import Webhook

from cloud.errors import Rejected, Retryable
from cloud.jobs import callback
from cloud.jobs.rows import JobRow, NoticeTry
from wire.records import rfc3339

SMTP_S = 15.0
_GONE = 410
_PERMANENT_SMTP = 500


@dataclass(frozen=True, slots=True)
class Mail:
    """Where mail goes out. `secure` is none, starttls or tls."""

    host: str
    port: int
    secure: str
    sender: str
    user: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """What notices are sent with."""

    secret: Callable[[], str]
    allowed: callback.Allowed
    mail: Mail | None
    now: Callable[[], datetime]
    look_up: callback.Resolve = callback.resolve


def send(tried: NoticeTry, job: JobRow, ways: Ways) -> tuple[str, str]:
    """Send one notice; gives (code, detail) for the log.

    Raises `Retryable` when it may work later, `Rejected` when it never will.
    """
    if tried.way == "webhook":
        return _call(tried, job, ways)
    return _mail(tried, job, ways)


def content(job: JobRow, now: datetime) -> dict[str, object]:
    """What a webhook says (Standard Webhooks: type, timestamp, data)."""
    fault = {"code": job.error_code, "detail": job.error_detail, "hint": job.error_hint}
    return {
        "type": f"job.{job.state}",
        "timestamp": rfc3339(now),
        "data": {
            "id": str(job.id),
            "state": job.state,
            "name": job.name,
            "sha256": job.sha256.hex(),
            "submitted_by": job.submitted_by,
            "idempotency_key": job.idempotency_key,
            "created_at": rfc3339(job.created_at),
            "finished_at": rfc3339(job.finished_at) if job.finished_at else None,
            "result": job.result,
            "model": {"name": job.model_name, "version": job.model_version} if job.model_name else None,
            "error": fault if job.error_code else None,
        },
    }


def _call(tried: NoticeTry, job: JobRow, ways: Ways) -> tuple[str, str]:
    url = callback.check_url(tried.target, ways.allowed)
    now = ways.now()
    body = json.dumps(content(job, now), separators=(",", ":")).encode()
    message = str(tried.id)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(ways.secret()).sign(message, now, body.decode()),
    }
    answer = callback.call(url, body, headers, ways.allowed, look_up=ways.look_up)
    said = f"HTTP {answer.status}"
    if 200 <= answer.status < 300:
        return "delivered", said
    if 300 <= answer.status < 400:
        hint = "name the final address: redirects are not followed"
        raise Rejected("callback-redirect", f"{said}: a redirect", hint)
    if answer.status == _GONE:
        raise Rejected("callback-gone", f"{said}: the receiver wants no more", "submit with another callback")
    raise Retryable("callback-refused", said, "answer with a status from 200 to 299")


def letter(tried: NoticeTry, job: JobRow, sender: str, now: datetime) -> EmailMessage:
    """Write the e-mail. Its Message-ID is the notice's, so a copy can be known."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = tried.target
    message["Subject"] = f"Shelfwire: {_in_words(job)}"
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{tried.id}@jobs.shelfwire>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_lines(job)) + "\n")
    return message


def _mail(tried: NoticeTry, job: JobRow, ways: Ways) -> tuple[str, str]:
    mail = ways.mail
    if mail is None:
        raise Rejected("mail-off", "this worker knows no mail server", "start the worker with --smtp and --mail-from")
    message = letter(tried, job, mail.sender, ways.now())
    try:
        if mail.secure == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                mail.host, mail.port, timeout=SMTP_S, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(mail.host, mail.port, timeout=SMTP_S)
        with server:
            if mail.secure == "starttls":
                server.starttls(context=ssl.create_default_context())
            if mail.user is not None:
                server.login(mail.user, mail.password or "")
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()), (_PERMANENT_SMTP, b""))
        detail = f"{code} {said.decode('utf-8', 'replace')}"
        if code >= _PERMANENT_SMTP:
            raise Rejected("mail-refused", detail, "correct the address") from error
        raise Retryable("mail-later", detail, "the mail server asks for patience") from error
    except smtplib.SMTPAuthenticationError as error:
        raise Retryable("mail-login", f"the mail server refuses the login: {error.smtp_code}", "correct it") from error
    except (OSError, smtplib.SMTPException) as error:
        raise Retryable("mail-away", f"the mail server did not take it: {error}", "see --smtp") from error
    return "delivered", f"taken by {mail.host}:{mail.port}"


def _in_words(job: JobRow) -> str:
    if job.state == "done" and job.result:
        return f"{job.result['label']} ({float(str(job.result['score'])):.0%})"
    return "the picture could not be classified"


def _lines(job: JobRow) -> list[str]:
    lines = [f"Job      {job.id}", f"Picture  {job.name or 'without a name'}, {job.width} x {job.height}", ""]
    if job.state == "done" and job.result:
        top = job.result["top"]
        assert isinstance(top, list)
        lines += [f"{item['score']:7.1%}  {item['label']}" for item in top]
        lines += ["", f"Model    {job.model_name} {job.model_version}"]
    else:
        lines += [f"{job.error_detail} [{job.error_code}]", f"What to do: {job.error_hint}"]
    return lines
