"""Devices, their codes and their certificates in the store. Every method is one transaction; see rows.sql."""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import TupleRow, namedtuple_row

from cloud.errors import Rejected
from cloud.fleet.authority import Authority, Issued, key_of_request
from cloud.store.sql import statements
from wire import bounds, enrolment, topics
from wire.errors import WireError

if TYPE_CHECKING:
    from cloud.store import Pool

_SQL = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("rows.sql")).items()}

MOST_ATTEMPTS = 5
"""Wrong secrets until a code counts no longer."""
CODE_LIFE = timedelta(hours=24)
CHANNEL = "shelfwire_fleet"
"""Where the database tells that somebody was revoked."""
SAW_EVERY = timedelta(minutes=1)
STATEMENT_MS = 10_000
WAIT_S = 5.0
MOST_STORE = 64

Connection = psycopg.Connection[TupleRow]


class Refused(Rejected):
    """A device is not let in; `status` is the answer's. A wrong code and an unknown one read the same."""

    def __init__(self, status: HTTPStatus, code: str, message: str, hint: str) -> None:
        super().__init__(code, message, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Added:
    """A code for a device, to be shown once: it is not kept."""

    code: enrolment.Code
    device: str
    store: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Peer:
    """A device that has shown a valid certificate of ours."""

    device: str
    store: str
    serial: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was made for a device."""

    serial: str
    issued_at: datetime
    not_before: datetime
    not_after: datetime
    seen_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Row:
    """A device of the fleet and its newest valid certificate; `presence` is what it last said over the broker."""

    device: str
    store: str
    added_at: datetime
    revoked_at: datetime | None
    code_until: datetime | None
    serial: str | None
    issued_at: datetime | None
    not_after: datetime | None
    used_at: datetime | None
    presence: str | None
    heard_at: datetime | None

    def state(self, now: datetime) -> str:
        """Say in a word where the device stands: revoked, enrolled, expired, or waiting with or without a code."""
        if self.revoked_at is not None:
            return "revoked"
        if self.not_after is not None:
            return "enrolled" if self.not_after > now else "expired"
        return "code given" if self.code_until is not None else "no code"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Fleet:
    """The fleet in the store. Thread safe. `authority` is needed to make certificates only.

    Methods raise `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    def __init__(
        self, pool: "Pool", authority: Authority | None = None, *, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._pool = pool
        self._authority = authority
        self._now = now

    # -- for operators -------------------------------------------------------------------------------------------

    def add(self, device: str, store: str, life: timedelta = CODE_LIFE, *, replace: bool = False) -> Added:
        """Let a device enrol: make a one-time code, bound to its name and store. Earlier unused codes end.

        Raises `Rejected`: ``bad-device``, ``bad-store``, ``device-exists`` unless `replace`.
        """
        _check_names(device, store)
        now = self._now()
        with self._transaction() as connection:
            found = connection.execute(_SQL["device_standing"], {"device": device, "now": now}).fetchone()
            if found is not None and (found[0] or found[1]) and not replace:
                how = "is revoked" if found[0] else "is enrolled"
                raise Rejected(
                    "device-exists",
                    f"{device} {how}: a code would let another board take its name",
                    "add --replace when that is wanted (a new board, or a device that was set up anew), "
                    "or choose another name",
                )
            connection.execute(_SQL["add_device"], {"device": device, "store": store})
            connection.execute(_SQL["drop_codes"], {"device": device})
            code = self._make_code(connection, device, now, now + life)
        return Added(code, device, store, now + life)

    def _make_code(self, connection: Connection, device: str, now: datetime, until: datetime) -> enrolment.Code:
        while True:
            code = enrolment.make_code(os.urandom(enrolment.CODE_BYTES))
            salt = os.urandom(enrolment.SALT_BYTES)
            keys = enrolment.stretch(code, salt)
            row = {
                "id": code.id, "device": device, "salt": salt, "server_key": keys.server,
                "device_sha256": hashlib.sha256(keys.device).digest(), "now": now, "expires_at": until,
            }  # fmt: skip
            if connection.execute(_SQL["add_code"], row).fetchone() is not None:
                return code

    def revoke(self, device: str) -> int:
        """Shut a device out, and end its codes; gives how many certificates that ended.

        The API refuses it from now on; `keeper` tells the broker. Raises `Rejected` (``device-unknown``).
        """
        now = self._now()
        with self._transaction() as connection:
            if connection.execute(_SQL["revoke_device"], {"device": device, "now": now}).fetchone() is None:
                raise unknown_device(device)
            ended = connection.execute(_SQL["revoke_certificates"], {"device": device, "now": now}).fetchall()
            connection.execute(_SQL["kill_codes"], {"device": device})
            connection.execute(_SQL["tell"], {"what": device})
        return len(ended)

    def devices(self, device: str | None = None) -> list[Row]:
        """List the devices of the fleet, or one of them, by name."""
        wanted = {"device": device, "now": self._now(), "most": MOST_ATTEMPTS}
        with self._transaction() as connection:
            return [Row(*row) for row in connection.execute(_SQL["devices"], wanted).fetchall()]

    def certificates(self, device: str) -> list[Certificate]:
        """List the newest certificates of a device, the newest first."""
        with self._transaction() as connection:
            return [Certificate(*row) for row in connection.execute(_SQL["certificates"], {"device": device})]

    def address(self) -> tuple[str, str] | None:
        """Tell where devices find the cloud: its API and its broker; None when no server has said so yet."""
        with self._transaction() as connection:
            row = connection.execute(_SQL["address"]).fetchone()
        return None if row is None else (row[0], row[1])

    def set_address(self, api: str, broker: str) -> None:
        """Say where devices find the cloud."""
        with self._transaction() as connection:
            connection.execute(_SQL["set_address"], {"api": api, "broker": broker})

    # -- for devices ---------------------------------------------------------------------------------------------

    def welcome(self, hello: enrolment.Hello) -> enrolment.Welcome:
        """Answer a device that was given a code. Raises `Refused` (``code-...``)."""
        now = self._now()
        with self._transaction() as connection:
            code = _code(connection, "code", hello.code, now)
        said = enrolment.Welcome(
            v=1, device=code.device, store=code.store, salt=code.salt.hex(),
            nonce=os.urandom(enrolment.NONCE_BYTES).hex(), now=now, trust=self._ca.trust, proof="0" * 64,
        )  # fmt: skip
        keys = enrolment.Keys(code.server_key, b"")
        return said.model_copy(update={"proof": enrolment.proof(keys, hello, said)})

    def enrol(self, asked: enrolment.Enrol) -> enrolment.Identity:
        """Use a code: certify the device's key. Asked again with the same key, it gives the same certificate.

        Raises `Refused` (``code-...``, ``fleet-address``) and `Rejected` (``bad-csr``).
        """
        now = self._now()
        key = key_of_request(asked.csr)
        wrong = None
        with self._transaction() as connection:
            code = _code(connection, "code_for_use", asked.code, now)
            shown = hashlib.sha256(bytes.fromhex(asked.key)).digest()
            if not hmac.compare_digest(shown, code.device_sha256):
                # The count must outlive the refusal, so the transaction ends well.
                wrong = connection.execute(_SQL["count_attempt"], {"id": code.id}).fetchone()
            elif code.used_at is None:
                issued = self._ca.device(asked.csr, code.device, now)
                self._keep(connection, code.device, code.id, issued, now)
                connection.execute(_SQL["use_code"], {"id": code.id, "now": now, "key_sha256": key})
            elif code.key_sha256 != key:
                raise _refused("code-used", "this code was used before", "ask the operator for a new one")
            if wrong is None:
                return self._identity(connection, code.device, code.store, key)
        left = max(0, MOST_ATTEMPTS - int(wrong[0]))
        raise _refused(
            "code-wrong", f"the code is wrong; {left} more tries", "type it as the operator's command printed it"
        )

    def renew(self, peer: Peer, csr: str) -> enrolment.Identity:
        """Certify a new key of a device that is let in. Its present certificate stays valid until its end.

        Raises `Rejected` (``bad-csr``) and `Refused` (``fleet-address``).
        """
        now = self._now()
        issued = self._ca.device(csr, peer.device, now)
        with self._transaction() as connection:
            standing = _peer(connection, peer.serial)
            if standing is None or standing.revoked:
                raise _not_let_in(peer.device)
            self._keep(connection, peer.device, standing.code, issued, now)
            return self._identity(connection, peer.device, peer.store, issued.key_sha256)

    def let_in(self, device: str, serial: str) -> Peer:
        """Look whether a certificate that TLS has verified may be used. Its first use ends earlier enrolments'.

        Raises `Refused` (``device-unknown``, ``certificate-revoked``).
        """
        now = self._now()
        with self._transaction() as connection:
            found = _peer(connection, serial)
            if found is None or found.device != device:
                raise _refused(
                    "certificate-unknown", f"this cloud has made no such certificate for {device}",
                    "enrol the device with a code of this cloud", HTTPStatus.UNAUTHORIZED,
                )  # fmt: skip
            if found.revoked:
                raise _not_let_in(device)
            if found.seen_at is None:
                self._supersede(connection, device, found.code, serial, now)
            if found.seen_at is None or now - found.seen_at > SAW_EVERY:
                connection.execute(_SQL["saw"], {"serial": serial, "now": now})
        return Peer(device, found.store, serial, found.not_after)

    # -- for the keeper of the broker ----------------------------------------------------------------------------

    def revoked(self, since: datetime) -> tuple[list[str], list[tuple[str, datetime]]]:
        """List the serials of all revoked certificates, and the devices that lost one after `since`, and when."""
        with self._transaction() as connection:
            serials = connection.execute(_SQL["revoked_serials"], {"now": self._now()}).fetchall()
            devices = connection.execute(_SQL["revoked_since"], {"since": since}).fetchall()
        return [row[0] for row in serials], [(row[0], row[1]) for row in devices]

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _ca(self) -> Authority:
        assert self._authority is not None
        return self._authority

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
            yield connection

    def _keep(self, connection: Connection, device: str, code: str, issued: Issued, now: datetime) -> None:
        row = {
            "serial": issued.serial, "device": device, "code": code, "key_sha256": issued.key_sha256,
            "pem": issued.pem, "now": now, "not_before": issued.not_before, "not_after": issued.not_after,
        }  # fmt: skip
        connection.execute(_SQL["add_certificate"], row)

    def _identity(self, connection: Connection, device: str, store: str, key: bytes) -> enrolment.Identity:
        row = connection.execute(_SQL["certificate_of_key"], {"device": device, "key_sha256": key}).fetchone()
        address = connection.execute(_SQL["address"]).fetchone()
        if row is None:
            raise _not_let_in(device)
        if address is None:
            raise _refused(
                "fleet-address", "this cloud does not know its own address", "start serve with --device-host"
            )
        return enrolment.Identity(
            v=1, device=device, store=store, certificate=row[0], trust=self._ca.trust, api=address[0],
            broker=address[1],
        )  # fmt: skip

    def _supersede(self, connection: Connection, device: str, code: str, serial: str, now: datetime) -> None:
        names = {"device": device, "code": code, "serial": serial, "now": now}
        if connection.execute(_SQL["supersede"], names).fetchall():
            connection.execute(_SQL["tell"], {"what": device})


@dataclass(frozen=True, slots=True)
class _Standing:
    device: str
    store: str
    code: str
    not_after: datetime
    seen_at: datetime | None
    revoked: bool


def _peer(connection: Connection, serial: str) -> _Standing | None:
    row = connection.execute(_SQL["peer"], {"serial": serial}).fetchone()
    return None if row is None else _Standing(*row)


def _code(connection: Connection, statement: str, code_id: str, now: datetime) -> Any:
    """Read a code that may be used. Raises `Refused` otherwise."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        code: Any = cursor.execute(_SQL[statement], {"id": code_id}).fetchone()
    ask = "ask the operator for a new one: shelfwire-cloud fleet device add"
    if code is None:
        raise _refused("code-unknown", "this cloud knows no such code", f"type it again; if it is right, {ask}")
    if code.revoked:
        raise _not_let_in(code.device)
    if code.attempts >= MOST_ATTEMPTS:
        raise _refused("code-dead", f"this code was typed wrong {MOST_ATTEMPTS} times and counts no longer", ask)
    if code.expires_at <= now:
        raise _refused("code-expired", "this code is too old", ask)
    return code


def _check_names(device: str, store: str) -> None:
    try:
        topics.topic(device, topics.STATUS)
    except WireError as error:
        raise Rejected(error.code, str(error), error.hint) from error
    if not store or len(store) > MOST_STORE or not store.isprintable():
        raise Rejected("bad-store", "a store's name has 1 to 64 characters that can be seen", "for example store-12")


def unknown_device(device: str) -> Rejected:
    """Say that there is no such device."""
    return Rejected(
        "device-unknown",
        f"no device is called {device[: bounds.TEXT]}",
        "see shelfwire-cloud fleet device list",
    )


def _refused(code: str, message: str, hint: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> Refused:
    return Refused(status, code, message, hint)


def _not_let_in(device: str) -> Refused:
    return _refused(
        "certificate-revoked", f"{device} was shut out of this fleet, or another board has taken its place",
        "if it is to come back, the operator gives a new code: shelfwire-cloud fleet device add NAME --replace",
    )  # fmt: skip
