"""The device's own page and API, put together: the socket, who may come in, the use of the model, the facts shown."""

import errno
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.app import Stop
from agent.app.local_facts import Cameras, DeviceFacts
from agent.camera.encode import lower_priority
from agent.camera.last import small_jpeg
from agent.config import Config, Local
from agent.errors import Rejected
from agent.host.activation import handed_in
from agent.host.clock import SystemClock
from agent.local.guard import Guard, Names, is_loopback
from agent.local.looking import Looking
from agent.local.oip import ModelFacts, Oip
from agent.local.page import Page
from agent.local.server import Server
from agent.local.site import DeviceSite
from models import Classifier

LEAST_PASSWORD = 8
MOST_PICTURE_BYTES = 2 << 20


def open_listener(local: Local) -> socket.socket | None:
    """Take the socket that systemd hands in, or open the configured one; None when there is neither.

    Raises `Rejected`: ``local-open`` when others than this machine could come in without password and TLS,
    ``port-in-use``, ``local-address``, ``socket-unfit``.
    """
    listener = handed_in("local")
    if listener is None:
        if not local.port:
            return None
        listener = _open(local.address, local.port)
    host = str(listener.getsockname()[0])
    if not is_loopback(host) and (local.password_file is None or local.cert_file is None):
        listener.close()
        raise Rejected(
            "local-open",
            f"the local page would listen on {host}, where everybody in the network could come in",
            "give [local] password_file, cert_file and key_file, or let it listen on 127.0.0.1 alone and come through"
            " an SSH tunnel: ssh -L 8471:localhost:8471 THIS-DEVICE",
        )
    return listener


def _open(address: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=64)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} for the local page is in use"
            raise Rejected("port-in-use", text, "name a free port in the [local] section, or 0 for none") from None
        text = f"the local page cannot listen on {address}, port {port}: {error.strerror or error}"
        raise Rejected("local-address", text, "correct [local] address and port") from None


def read_password(path: Path | None) -> str | None:
    """Read the page's password. Raises `Rejected` (``local-password``)."""
    if path is None:
        return None
    cure = f"write one of at least {LEAST_PASSWORD} characters on the first line of the file, readable for this user"
    try:
        password = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("local-password", f"the local page's password cannot be read: {error}", cure) from None
    if len(password) < LEAST_PASSWORD:
        raise Rejected("local-password", "the local page's password is too short", cure)
    return password


def open_tls(local: Local) -> ssl.SSLContext | None:
    """Read certificate and key. Raises `Rejected` (``local-certificate``)."""
    if local.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(local.cert_file, local.key_file)
    except (OSError, ssl.SSLError) as error:
        raise Rejected(
            "local-certificate",
            f"the local page's certificate cannot be used: {error}",
            "correct [local] cert_file and key_file: PEM files that belong together, readable for this user",
        ) from None
    return context


class LocalSide:
    """The page and API of one device. Begin with `start`; every frame answered is told to `looking.saw`."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        classifier: Classifier,
        cameras: Cameras,
        frames_wait: Callable[[], bool],
        stop: Stop,
    ) -> None:
        clock = SystemClock()
        local = config.local
        tls = open_tls(local)
        names = Names(not is_loopback(str(listener.getsockname()[0])), _names(local))
        token = partial(secrets.token_urlsafe, 32)
        guard = Guard(names, read_password(local.password_file), time.monotonic, token, secure=tls is not None)
        self.looking = Looking(
            [camera.name for camera in config.camera],
            lambda picture, width: small_jpeg(picture, width, MOST_PICTURE_BYTES),
            clock,
        )
        self._facts = DeviceFacts(config, classifier, self.looking, cameras, clock)
        self._api = Oip(_model_facts(classifier), classifier.worker, frames_wait, partial(clock.wait, stop.event))
        page = Page(self._facts, self.looking, guard, lambda: clock.now().boot_ns)
        self._server = Server(listener, DeviceSite(guard, self._api, page), lower_priority, tls)
        host, port = listener.getsockname()[:2]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/"

    def take_up(self, classifier: Classifier) -> None:
        """Show and serve another model from now on."""
        self._facts.take_up(classifier)
        self._api.take_up(_model_facts(classifier), classifier.worker)

    def run(self) -> None:
        """Serve until `stop`: the body of the thread "local"."""
        self._server.run()

    def stop(self) -> None:
        """Let everybody go."""
        self.looking.close()
        self._server.stop()


def _names(local: Local) -> frozenset[str]:
    own = socket.gethostname().lower()
    return frozenset({own, f"{own}.local", *(name.lower() for name in local.names)})


def _model_facts(classifier: Classifier) -> ModelFacts:
    model = classifier.model
    return ModelFacts(
        model.name,
        model.version,
        classifier.runtime,
        classifier.labels,
        model.digest,
        classifier.threshold,
        str(classifier.setup),
        [note.message for note in classifier.notes],
    )


def open_local(
    config: Config, classifier: Classifier, cameras: Cameras, frames_wait: Callable[[], bool], stop: Stop
) -> LocalSide | None:
    """Put the page and API together; None where nothing listens. Raises what `open_listener` raises, and more."""
    listener = open_listener(config.local)
    if listener is None:
        return None
    try:
        return LocalSide(config, listener, classifier, cameras, frames_wait, stop)
    except BaseException:
        listener.close()
        raise
