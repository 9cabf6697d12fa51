"""Topic names. The device id is one topic level, so that one ACL pattern covers the fleet."""

import re

from wire import bounds
from wire.errors import WireError

PREFIX = "shelfwire/v1"

STATUS, RESULTS, ALERTS, PICTURES = "status", "results", "alerts", "pictures"
RECEIPTS_UP, RECEIPTS_DOWN = "receipts/up", "receipts/down"
VERDICTS = "verdicts"
DESIRED, REPORTED = "desired", "reported"

_TOPIC = re.compile(rf"{PREFIX}/(?P<device>[^/]+)/(?P<rest>.+)")
_DEVICE = re.compile(bounds.NAME)


def topic(device: str, rest: str) -> str:
    """Name the topic `rest` of a device. Raises `WireError` for an id that is not one topic level."""
    if not _DEVICE.fullmatch(device):
        raise WireError(
            "bad-device",
            f"{device[:80]!r} cannot be a device id",
            "use letters, digits, dot, dash and underscore, at most 64",
        )
    return f"{PREFIX}/{device}/{rest}"


def split(name: str) -> tuple[str, str]:
    """Take a received topic apart into (device, rest). Raises `WireError` (``bad-topic``)."""
    match = _TOPIC.fullmatch(name)
    if match is None or not _DEVICE.fullmatch(match["device"]):
        raise WireError("bad-topic", f"{name[:120]!r} is no topic of ours")
    return match["device"], match["rest"]


def every_device(rest: str) -> str:
    """Name the filter that matches `rest` of all devices."""
    return f"{PREFIX}/+/{rest}"


def shared(group: str, rest: str) -> str:
    """Name the shared subscription of `rest` of all devices, for one group of ingesters."""
    return f"$share/{group}/{every_device(rest)}"
