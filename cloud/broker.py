"""A private mosquitto for one machine: on loopback, with accounts and an access list, stopped with its owner.

Two listeners. Devices come in by one, where everybody's client id is its user name, so that no device can take the
place of another; the cloud's own programs come in by the other, where several may share one account. An account of
one side is unknown at the other.
"""

import base64
import contextlib
import hashlib
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cloud.errors import Broken, Rejected
from wire import mqtt, topics
from wire.errors import WireError

CLOUD = "cloud"
"""User name of the cloud's own programs."""

HOST = "127.0.0.1"
START_S = 10.0
STOP_S = 5.0
PORT_ATTEMPTS = 3
"""A free port found by asking can be taken by another program before the broker opens it."""

PBKDF2_ROUNDS = 101
"""What mosquitto_passwd itself uses: the passwords are 24 random bytes, not words of people."""

_WRITE = ("status", "results", "alerts", "pictures", "reported", "receipts/up", "echo")
_READ = ("receipts/down", "verdicts", "desired", "commands/#", "echo")


class Broker:
    """A mosquitto in `folder` for the cloud and the named `devices`. Port 0 picks a free one, kept over restarts.

    Passwords are made on the first start and kept in `folder`, one file per user, readable by the owner only.
    Raises `Rejected` (``bad-device``) for a name that cannot be a device id.
    """

    def __init__(self, folder: Path, devices: Sequence[str], *, port: int = 0, cloud_port: int = 0) -> None:
        try:
            for device in devices:
                topics.topic(device, topics.STATUS)
        except WireError as error:
            raise Rejected(error.code, str(error), error.hint) from error
        self._folder = folder.expanduser().resolve()
        self._devices = tuple(devices)
        self._fixed = port != 0 and cloud_port != 0
        self.port = port
        self.cloud_port = cloud_port
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it does not run."""
        return self._child.pid if self._child is not None and self.running else None

    def password_file(self, user: str) -> Path:
        """Where the password of `user` (a device, or `CLOUD`) lies: one line."""
        return self._folder / "passwords" / user

    def options(self, user: str, client_id: str | None = None) -> mqtt.Options:
        """Make the connection options of a device or of the cloud."""
        return mqtt.Options(
            host=HOST,
            port=self.cloud_port if user == CLOUD else self.port,
            client_id=client_id or user,
            username=user,
            password=self.password_file(user).read_text("utf-8").strip(),
        )

    def start(self) -> None:
        """Start the broker and wait until it has let the cloud in.

        Raises `Broken` (``broker-missing``, ``broker-folder``, ``broker-start``) and `Rejected`
        (``broker-port-in-use``).
        """
        program = find()
        self._prepare()
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port or _free_port()
            self.cloud_port = self.cloud_port or _free_port()
            try:
                self._launch(program)
                self._greet()
                self._fixed = True
                return
            except Rejected:
                self.stop()
                if self._fixed or attempt == PORT_ATTEMPTS - 1:
                    raise
                self.port = self.cloud_port = 0
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the broker in good order: it keeps the sessions and the retained messages in its folder."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker like a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the broker if it runs, and start it at the same ports with the same accounts."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(how)
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(STOP_S)
        self._child = None
        (self._folder / "broker.pid").unlink(missing_ok=True)

    # -- files ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        try:
            (self._folder / "passwords").mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._folder / "data").mkdir(exist_ok=True, mode=0o700)
            for user in (CLOUD, *self._devices):
                if not self.password_file(user).exists():
                    _write_private(self.password_file(user), secrets.token_urlsafe(24) + "\n")
            _write_private(self._folder / "cloud.users", self._user_line(CLOUD))
            _write_private(self._folder / "cloud.access", f"user {CLOUD}\ntopic readwrite {topics.PREFIX}/#\n")
            _write_private(self._folder / "device.users", "".join(map(self._user_line, self._devices)))
            lines = [f"pattern write {topics.PREFIX}/%u/{rest}" for rest in _WRITE]
            lines += [f"pattern read {topics.PREFIX}/%u/{rest}" for rest in _READ]
            _write_private(self._folder / "device.access", "\n".join(lines) + "\n")
        except OSError as error:
            raise Broken(
                "broker-folder",
                f"the broker's folder {self._folder} cannot be used: {error.strerror}",
                "choose another folder, or give this user the right to write there",
            ) from error
        self._end_orphan()

    def _user_line(self, user: str) -> str:
        """Write a line of mosquitto's password file: PBKDF2 with SHA-512, as `mosquitto_passwd -H sha512-pbkdf2`."""
        password = self.password_file(user).read_text("utf-8").strip()
        salt = secrets.token_bytes(12)
        digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
        return f"{user}:$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"

    def _configuration(self, user: str | None) -> str:
        lines = [
            "per_listener_settings true",
            "persistence true",
            f"persistence_location {self._folder / 'data'}/",
            "autosave_interval 60",
            "persistent_client_expiration 14d",
            "max_packet_size 1048576",
            "max_inflight_messages 20",
            "max_queued_messages 10000",
            "max_queued_bytes 268435456",
            "set_tcp_nodelay true",
            f"log_dest file {self._folder / 'broker.log'}",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "connection_messages true",
        ]
        if user is not None:
            lines.append(f"user {user}")
        for side, port in (("cloud", self.cloud_port), ("device", self.port)):
            lines += [
                "",
                f"listener {port} {HOST}",
                "allow_anonymous false",
                f"password_file {self._folder / f'{side}.users'}",
                f"acl_file {self._folder / f'{side}.access'}",
            ]
        # Belongs to the listener above it, the devices'.
        lines.append("use_username_as_clientid true")
        return "\n".join(lines) + "\n"

    def _account(self) -> str | None:
        """Choose the system user to run as, and give it the files. None: mosquitto stays who we are.

        Started by root, mosquitto gives its rights up, but then it needs a way to its folder; where a private
        folder lies above, it has to stay root.
        """
        if os.geteuid() != 0:
            return None
        user = next((name for name in ("mosquitto", "nobody") if _known_user(name)), "root")
        if not all(stat.S_IMODE(parent.stat().st_mode) & stat.S_IXOTH for parent in self._folder.parents):
            user = "root"
        account = pwd.getpwnam(user)
        shared = [self._folder, self._folder / "data", *(self._folder / "data").iterdir()]
        shared += [path for path in self._folder.iterdir() if path.is_file()]
        for path in shared:
            os.chown(path, account.pw_uid, account.pw_gid)
        return user

    # -- the process ---------------------------------------------------------------------------------------------

    def _end_orphan(self) -> None:
        """End the broker of a former owner that was killed: it holds the ports and the folder."""
        path = self._folder / "broker.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text("utf-8"))
            if os.fsencode(self._folder / "broker.conf") in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                deadline_s = time.monotonic() + STOP_S
                while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline_s:
                    # Not our child, so it cannot be waited for; its descriptor can.
                    _wait_for_end(pid, deadline_s - time.monotonic())
        path.unlink(missing_ok=True)

    def _launch(self, program: Path) -> None:
        for port in (self.port, self.cloud_port):
            _check_free(port)
        (self._folder / "broker.log").write_bytes(b"")
        _write_private(self._folder / "broker.conf", "")
        user = self._account()
        _write_private(self._folder / "broker.conf", self._configuration(user))
        self._child = subprocess.Popen(
            [str(program), "-c", str(self._folder / "broker.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the owner, who stops the broker last
        )  # fmt: skip
        (self._folder / "broker.pid").write_text(str(self._child.pid), "utf-8")

    def _greet(self) -> None:
        """Wait until the broker listens, then log in: a broker that listens and refuses us is of no use."""
        deadline_s = time.monotonic() + START_S
        while not (_listens(self.port) and _listens(self.cloud_port)):
            self._wait_a_little()
            if time.monotonic() > deadline_s:
                raise Broken("broker-start", "the broker does not listen", f"read {self._folder / 'broker.log'}")
        session = mqtt.Session(self.options(CLOUD, "greeter"), random.Random())  # noqa: S311 - spreads retries
        session.start()
        try:
            event = session.next_event(deadline_s - time.monotonic())
        finally:
            session.stop()
        if not isinstance(event, mqtt.Up):
            said = f"{event.text} ({event.code})" if isinstance(event, mqtt.Down) else "no answer"
            raise Broken("broker-start", f"the broker does not let us in: {said}", f"read {self._folder}/broker.log")

    def _wait_a_little(self) -> None:
        assert self._child is not None
        try:
            code = self._child.wait(0.02)
        except subprocess.TimeoutExpired:
            return
        log = (self._folder / "broker.log").read_text("utf-8", "replace")
        if "Address already in use" in log:
            raise _port_in_use(self.port, self.cloud_port)
        last = " / ".join(log.splitlines()[-3:])
        raise Broken(
            "broker-start", f"mosquitto ended with {code}: {last[:400]}", f"read {self._folder / 'broker.log'}"
        )  # fmt: skip


def find() -> Path:
    """Find mosquitto: $SHELFWIRE_MOSQUITTO, the PATH, and the folders that an ordinary user's PATH lacks.

    Raises `Broken` (``broker-missing``).
    """
    named = os.environ.get("SHELFWIRE_MOSQUITTO")
    if named:
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise Broken("broker-missing", f"SHELFWIRE_MOSQUITTO names {named}, which is no program", "correct it")
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    found = shutil.which("mosquitto", path=places)
    if found is None:
        raise Broken(
            "broker-missing",
            "mosquitto, the MQTT broker, is not on this machine",
            "apt-get install mosquitto, or name the program in SHELFWIRE_MOSQUITTO",
        )
    return Path(found)


def _write_private(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _known_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as mosquitto does: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise _port_in_use(port) from error


def _port_in_use(*ports: int) -> Rejected:
    named = " or ".join(map(str, ports))
    return Rejected(
        "broker-port-in-use", f"port {named} is taken by another program", "choose another port, or 0 for a free one"
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_for_end(pid: int, timeout_s: float) -> None:
    """Wait until a process that is not our child ends."""
    import select

    descriptor = os.pidfd_open(pid)
    try:
        select.select([descriptor], [], [], max(0.0, timeout_s))
    finally:
        os.close(descriptor)
