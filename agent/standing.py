"""What each camera's decisions rest on between frames, and how that is kept over a restart."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from agent.core import alerting, decide


@dataclass(slots=True)
class CameraState:
    """What one camera's decisions rest on between frames. Only the thread that works on its frame touches it."""

    standing: decide.Standing
    watches: dict[str, alerting.Watch]


def dump_state(state: CameraState) -> str:
    """Write a camera's decision state, to be kept with its records."""
    return json.dumps(
        {"standing": asdict(state.standing), "watches": {name: asdict(w) for name, w in state.watches.items()}}
    )


def load_states(
    cameras: Sequence[str], read: Callable[[str], str | None], *, same_boot: bool
) -> dict[str, CameraState]:
    """Take up the decision states kept in the store. After a reboot a dwell starts anew: its clock is another one."""
    states = {}
    for camera in cameras:
        text = read(f"camera:{camera}")
        kept = json.loads(text) if text else {"standing": {}, "watches": {}}
        watches = {name: alerting.Watch(**fields) for name, fields in kept["watches"].items()}
        if not same_boot:
            watches = {
                name: alerting.Watch(0 if w.raised else None, w.since_wall_ns, w.raised) for name, w in watches.items()
            }
        states[camera] = CameraState(decide.Standing(**kept["standing"]), watches)
    return states
