"""A camera that gives one picture per HTTP request."""

from agent.camera.address import address_of
from agent.camera.causes import Causes
from agent.camera.http import MAX_BYTES, Client
from agent.config import Camera
from agent.ports import Clock, Shot
from models import PictureError, decode_picture

_PASSING = ("picture-truncated", "picture-broken", "picture-empty")


class SnapshotSource:
    """Asks for a new picture on every read, over a kept connection."""

    live = True

    def __init__(self, camera: Camera, clock: Clock) -> None:
        self._camera = camera
        self._clock = clock
        self._address = address_of(camera, ("http", "https"))
        self._causes = Causes(camera.name, self._address)
        self._client: Client | None = None
        self._first: Shot | None = None

    def open(self) -> None:
        """Fetch a first picture, which the first read gives. Raises the cause when there is none."""
        self.close()
        self._client = Client(self._camera.name, self._address, self._clock)
        self._first = self._fetch(self._client, self._camera.open_timeout)

    def read(self) -> Shot:
        """Fetch a picture; never ends. Raises the cause when none comes within the stall timeout."""
        if self._first is not None:
            shot, self._first = self._first, None
            return shot
        assert self._client is not None, "open comes first"
        return self._fetch(self._client, self._camera.stall_timeout)

    def close(self) -> None:
        """Close the connection."""
        self._first = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fetch(self, client: Client, timeout_s: float) -> Shot:
        # Half the time for the answer to begin and half for its body keep both within the one deadline.
        content = client.body(client.get(timeout_s / 2), timeout_s / 2)
        try:
            return Shot(decode_picture(content, max_bytes=MAX_BYTES))
        except PictureError as error:
            if error.code in _PASSING:
                raise self._causes.broken_picture(str(error)) from None
            raise self._causes.codec(f"its answer is no picture this device takes: {error}") from None
