"""A private mosquitto for one machine: with accounts or certificates and an access list, stopped with its owner."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cloud import broker_files as files
from cloud.broker_files import CLOUD, HOST, Listeners, Tls, write_private
from cloud.errors import Broken, Rejected
from wire import mqtt, topics
from wire.errors import WireError

__all__ = ["CLOUD", "Broker", "find"]

START_S = 10.0
STOP_S = 5.0
PORT_ATTEMPTS = 3
"""A free port found by asking can be taken by another program before the broker opens it."""


class Broker:
    """A mosquitto in `folder` for the cloud and the named `devices`. Port 0 picks a free one, kept over restarts.

    Passwords are made on the first start and kept in `folder`, one file per user, readable by the owner only. With
    `tls` devices come in by their certificates instead, whoever they are. Raises `Rejected` (``bad-device``) for a
    name that cannot be a device id.
    """

    def __init__(
        self, folder: Path, devices: Sequence[str] = (), *, port: int = 0, cloud_port: int = 0, tls: Tls | None = None
    ) -> None:
        try:
            for device in devices:
                topics.topic(device, topics.STATUS)
        except WireError as error:
            raise Rejected(error.code, str(error), error.hint) from error
        self._folder = folder.expanduser().resolve()
        self._devices = tuple(devices)
        self._tls = tls
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
        return files.password_file(self._folder, user)

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
        (self._folder / files.PID).unlink(missing_ok=True)

    # -- files ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        try:
            files.write_accounts(self._folder, self._devices)
            if self._tls is not None:
                files.write_tls(self._folder, self._tls)
        except OSError as error:
            raise Broken(
                "broker-folder",
                f"the broker's folder {self._folder} cannot be used: {error.strerror}",
                "choose another folder, or give this user the right to write there",
            ) from error
        self._end_orphan()

    # -- the process ---------------------------------------------------------------------------------------------

    def _end_orphan(self) -> None:
        """End the broker of a former owner that was killed: it holds the ports and the folder."""
        path = self._folder / files.PID
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text("utf-8"))
            if os.fsencode(self._folder / files.CONFIGURATION) in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                deadline_s = time.monotonic() + STOP_S
                while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline_s:
                    # Not our child, so it cannot be waited for; its descriptor can.
                    _wait_for_end(pid, deadline_s - time.monotonic())
        path.unlink(missing_ok=True)

    def _launch(self, program: Path) -> None:
        for port in (self.port, self.cloud_port):
            _check_free(port)
        (self._folder / files.LOG).write_bytes(b"")
        write_private(self._folder / files.CONFIGURATION, "")
        user = files.give_to_broker(self._folder)
        at = Listeners(self.port, self.cloud_port, tls=self._tls is not None)
        write_private(self._folder / files.CONFIGURATION, files.configuration(self._folder, at, user))
        self._child = subprocess.Popen(
            [str(program), "-c", str(self._folder / files.CONFIGURATION)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the owner, who stops the broker last
        )  # fmt: skip
        (self._folder / files.PID).write_text(str(self._child.pid), "utf-8")

    def _greet(self) -> None:
        """Wait until the broker listens, then log in: a broker that listens and refuses us is of no use."""
        deadline_s = time.monotonic() + START_S
        while not (_listens(self.port) and _listens(self.cloud_port)):
            self._wait_a_little()
            if time.monotonic() > deadline_s:
                raise Broken("broker-start", "the broker does not listen", f"read {self._folder / files.LOG}")
        session = mqtt.Session(self.options(CLOUD, "greeter"), random.Random())  # noqa: S311 - spreads retries
        session.start()
        try:
            event = session.next_event(deadline_s - time.monotonic())
        finally:
            session.stop()
        if not isinstance(event, mqtt.Up):
            said = f"{event.text} ({event.code})" if isinstance(event, mqtt.Down) else "no answer"
            raise Broken("broker-start", f"the broker does not let us in: {said}", f"read {self._folder / files.LOG}")

    def _wait_a_little(self) -> None:
        assert self._child is not None
        try:
            code = self._child.wait(0.02)
        except subprocess.TimeoutExpired:
            return
        log = (self._folder / files.LOG).read_text("utf-8", "replace")
        if "Address already in use" in log:
            raise _port_in_use(self.port, self.cloud_port)
        last = " / ".join(log.splitlines()[-3:])
        raise Broken(
            "broker-start", f"mosquitto ended with {code}: {last[:400]}", f"read {self._folder / files.LOG}"
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
