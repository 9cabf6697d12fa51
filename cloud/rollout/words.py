"""Rollouts in sentences: why a device has what it has, and when the others get theirs. Pure functions."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cloud.rollout.lifecycle import OVER
from cloud.rollout.rows import DeviceRow, read_rules
from cloud.rollout.rules import Planned, Rules

TAKES_S: Final = 1800.0
"""What a device takes from its order to the end of its trial, for estimates: shadow and trial are most of it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A batch of a plan: its devices, and how long after the start it begins and ends at the earliest, in seconds."""

    number: int
    devices: tuple[Planned, ...]
    begins_s: float
    ends_s: float


def stages(planned: Sequence[Planned], rules: Rules, takes_s: float = TAKES_S) -> list[Stage]:
    """Tell when each batch begins at the earliest, if every device is there and takes `takes_s`."""
    found: list[Stage] = []
    at_s = 0.0
    for number in range(max((one.batch for one in planned), default=-1) + 1):
        devices = tuple(one for one in planned if one.batch == number)
        shops = Counter(one.member.store or one.member.device for one in devices)
        rounds = max(max(shops.values(), default=0), math.ceil(len(devices) / rules.at_once))
        found.append(Stage(number, devices, at_s, at_s + rounds * takes_s))
        at_s += rounds * takes_s + rules.soak_s
    return found


def span(seconds: float) -> str:
    """Say a length of time: 45 s, 30 min, 2.5 h, 3 d."""
    for unit, length_s in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length_s or (seconds >= length_s and seconds % length_s == 0):
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.0f} s"


def model_text(model: Mapping[str, Any] | None) -> str:
    """Name a model as people do."""
    return "no model that is known" if not model else f"{model['name']} {model['version']}, release {model['release']}"


def why(device: DeviceRow, history: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Say in a sentence why a device has what it has. `history` are its parts in rollouts, the newest first."""
    runs = f"{device.device} runs {model_text((device.reported or {}).get('model'))}"
    if (device.reported or {}).get("pinned"):
        runs += ", which a technician holds as it is,"
    if not history:
        return f"{runs}: it is in no rollout."
    part = history[0]
    said = _part(device, part, now)
    return f"{runs}: in {part['id']} ({part['title']}) {said}."


def _part(device: DeviceRow, part: Mapping[str, Any], now: datetime) -> str:
    state = part["state"]
    if state == "waiting":
        return _waiting(device, part)
    told = f": {part['text']}" if part["text"] else ""
    code = f" [{part['code']}]" if part["code"] else ""
    if state == "ordered":
        ago = span(max(0.0, (now - part["ordered_at"]).total_seconds())) if part["ordered_at"] else "a moment"
        if not part["update_state"]:
            return f"it was ordered {ago} ago and has not said anything yet"
        return f"it is at {part['update_state']}, ordered {ago} ago{told}{code}"
    return {
        "done": "it has taken it over",
        "failed": f"it could not take it{told}{code}",
        "rejected": f"it refused it{told}{code}",
        "rolled-back": f"it went back to what it had{told}{code}",
        "silent": "it had the order and was not heard of its end by the deadline",
        "dropped": f"{_dropped(part)} before the rollout ended ({part['reason'] or part['rollout_state']})",
    }[state]


def _dropped(part: Mapping[str, Any]) -> str:
    if part["revision"] is None:
        return "it was not its turn"
    return f"it was at {part['update_state'] or 'the order'}, and has not ended,"


def _waiting(device: DeviceRow, part: Mapping[str, Any]) -> str:
    if part["rollout_state"] == "paused":
        return f"it waits, because the rollout is paused ({part['reason']})"
    if part["rollout_state"] in OVER:
        return f"it waits no longer: the rollout is {part['rollout_state']}"
    batches = len(read_rules(part["rules"]).batches)
    if part["batch"] > part["open_batch"]:
        return f"it is in batch {part['batch'] + 1} of {batches}, which is not open yet ({part['reason']})"
    if device.state != "online":
        since = "" if device.seen_at is None else f", last heard {device.seen_at:%Y-%m-%d %H:%M} UTC"
        return f"it is its turn, and it is offline{since}; it gets its order when it is back"
    shop = f"another device of {device.store}" if device.store else "another rollout"
    return f"it is its turn, and it waits for {shop}: one at a time in a shop, and so many at once in all"


def clock(at: datetime, after_s: float) -> str:
    """Say a time of the plan."""
    return f"{at + timedelta(seconds=after_s):%a %H:%M}"
