"""The broker connection of a device, from its configuration."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import Config
from agent.errors import Rejected
from wire import topics
from wire.mqtt import Options, Will

SESSION_EXPIRY_S = 7 * 86_400
"""How long the broker keeps receipts and orders for a device that is away."""

WILL_DELAY_S = 20
"""Short cuts make no noise: the broker waits this long before it tells that the device vanished."""

PORTS = {"mqtt": 1883, "mqtts": 8883}


def read_secret(path: Path | None) -> str | None:
    """Read a password file; surrounding white space is no part of the password. Raises `Rejected` with the cure."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("secret-unreadable", f"{path} cannot be read: {error}", "give it to this user") from None


def options(config: Config, will: Callable[[], Will]) -> Options:
    """Say how this device connects. Raises `Rejected` when no broker is configured."""
    cloud = config.cloud
    if cloud.broker is None:
        raise Rejected(
            "no-broker", "no broker is configured", 'set broker = "mqtts://host:8883" in the [cloud] section'
        )
    address = urlsplit(cloud.broker)
    device = config.device.id
    return Options(
        host=str(address.hostname),
        port=address.port or PORTS[address.scheme],
        client_id=device,
        username=cloud.username,
        password=read_secret(cloud.password_file),
        tls=address.scheme == "mqtts",
        ca_file=cloud.ca_file,
        cert_file=cloud.cert_file,
        key_file=cloud.key_file,
        keepalive_s=max(5, round(cloud.keepalive)),
        clean_start=False,
        session_expiry_s=SESSION_EXPIRY_S,
        subscriptions=tuple(
            (topics.topic(device, rest), 1) for rest in (topics.RECEIPTS_DOWN, topics.VERDICTS, topics.DESIRED)
        ),
        will=will,
    )
