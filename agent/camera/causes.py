"""Why a network camera gives no picture: each cause with its code, a sentence and what a technician does about it."""

from dataclasses import dataclass

from agent.camera.address import Address
from agent.errors import Rejected, Retryable, ShelfwireError


@dataclass(frozen=True, slots=True)
class Causes:
    """Makes the errors of one camera. None of them shows the login."""

    name: str
    address: Address

    def dns(self) -> ShelfwireError:
        """The host name has no address."""
        return Retryable(
            "camera-dns",
            self._says(f"the name {self.address.host} is not known in this network"),
            "correct the name in the camera's url, use its IP address, or mend the network's name server",
        )

    def timeout(self, what: str, after_s: float) -> ShelfwireError:
        """Nothing came in time."""
        return Retryable(
            "camera-timeout",
            self._says(f"{what} within {after_s:.2g} s"),
            "check that the camera has power and its cable, and that this device is in its network (ping it)",
        )

    def refused(self) -> ShelfwireError:
        """The host is there, the port is shut."""
        return Retryable(
            "camera-refused",
            self._says(f"nothing listens on port {self.address.port} of {self.address.host}"),
            "check the port in the url (RTSP is mostly 554), and that this service is switched on in the camera",
        )

    def unreachable(self, reason: str) -> ShelfwireError:
        """The network has no way there."""
        return Retryable(
            "camera-unreachable",
            self._says(f"the network has no way to {self.address.host}: {reason}"),
            "check this device's network cable, its address and its route to the camera's network",
        )

    def shut(self) -> ShelfwireError:
        """This process may not use the network at all: vision's sandbox."""
        return Rejected(
            "camera-no-network",
            self._says("vision has no network on this device, until somebody opens the cameras' for it"),
            "copy /usr/share/doc/shelfwire/drop-ins/network-cameras.conf to"
            " /etc/systemd/system/shelfwire-vision.service.d/, put the cameras' network into it, then:"
            " systemctl daemon-reload; systemctl restart shelfwire-vision",
        )

    def auth(self) -> ShelfwireError:
        """The camera wants a login and did not like ours, or got none."""
        if self.address.login is None:
            return Rejected(
                "camera-auth",
                self._says("it asks for a login, and none is configured"),
                "set username and password_file for this camera",
            )
        return Rejected(
            "camera-auth",
            self._says("it refuses the login"),
            "correct username and password_file; a camera may lock a user out for minutes after wrong passwords",
        )

    def not_found(self, status: int) -> ShelfwireError:
        """The camera answers, and knows no such path."""
        return Rejected(
            "camera-not-found",
            self._says(f"the camera has nothing under this path (status {status})"),
            "take the path of the stream from the camera's manual or its web page",
        )

    def moved(self, status: int, target: str) -> ShelfwireError:
        """The camera sends us to another address, which we do not follow: a login could follow too."""
        return Rejected(
            "camera-not-found",
            self._says(f"the camera sends us on to {target or 'another address'} (status {status})"),
            "put that address into the camera's url, if it is the camera's own",
        )

    def busy(self, status: int) -> ShelfwireError:
        """The camera has no place for one more viewer."""
        return Retryable(
            "camera-busy",
            self._says(f"the camera takes no more viewers now (status {status})"),
            "close other viewers of this camera, or allow more in its settings",
        )

    def failing(self, status: int) -> ShelfwireError:
        """The camera reports an error of its own."""
        return Retryable(
            "camera-error",
            self._says(f"the camera answers with an error of its own (status {status})"),
            "restart the camera; if it stays, update its software",
        )

    def tls(self, reason: str) -> ShelfwireError:
        """No encrypted connection that can be trusted."""
        return Rejected(
            "camera-tls",
            self._says(f"no encrypted connection that can be trusted: {reason}"),
            "add the camera's certificate authority to the system (/usr/local/share/ca-certificates, then "
            "update-ca-certificates), set the camera's clock, or use http:// or rtsp:// in a network of its own",
        )

    def codec(self, reason: str) -> ShelfwireError:
        """The camera answers, but not with pictures."""
        return Rejected(
            "camera-codec",
            self._says(reason),
            "check the path of the stream, and set the camera to H.264 or MJPEG",
        )

    def broken_picture(self, reason: str) -> ShelfwireError:
        """What came could not be decoded; what comes next may be."""
        return Retryable(
            "camera-codec",
            self._says(f"no picture could be decoded: {reason}"),
            "if it stays, set the camera to H.264 or MJPEG; if it comes and goes, look at the cable and the network",
        )

    def lost(self, what: str = "the camera closed the connection", hint: str = "") -> ShelfwireError:
        """The camera was there and hung up."""
        return Retryable(
            "camera-lost",
            self._says(what),
            hint or "the device reconnects by itself; if it comes often, look at the camera's power and network",
        )

    def by_status(self, status: int, target: str = "") -> ShelfwireError | None:
        """Give the cause that an HTTP or RTSP status (RFC 7826 shares its numbers) names, or None when it is fine."""
        if 200 <= status < 300:
            return None
        if status in (401, 403, 407):
            return self.auth()
        if status in (404, 410, 454):
            return self.not_found(status)
        if status in (429, 453, 503):
            return self.busy(status)
        if 300 <= status < 400:
            return self.moved(status, target)
        return self.failing(status)

    def _says(self, what: str) -> str:
        return f"camera {self.name} ({self.address.shown}): {what}"
