"""The life of a rollout, and of one device's part in it: two tables of (state, event) -> state, and nothing else."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

State = Literal["running", "paused", "catching-up", "finished", "aborted", "replaced"]
Event = Literal["pause", "resume", "abort", "reach", "finish", "replace"]
Part = Literal["waiting", "ordered", "done", "failed", "rejected", "rolled-back", "silent", "dropped"]
PartEvent = Literal["order", "take-back", "commit", "fail", "reject", "roll-back", "expire", "drop"]

STATES: Final[tuple[State, ...]] = get_args(State)
PARTS: Final[tuple[Part, ...]] = get_args(Part)

TABLE: Final[Mapping[tuple[State, Event], State]] = {
    ("running", "pause"): "paused",  # by a person, or by the rules: a batch ended below the success that was asked for
    ("catching-up", "pause"): "paused",
    ("paused", "resume"): "running",
    ("running", "reach"): "catching-up",  # the last batch is through; devices that were offline are still to come
    ("running", "finish"): "finished",
    ("catching-up", "finish"): "finished",
    ("running", "abort"): "aborted",
    ("paused", "abort"): "aborted",
    ("catching-up", "abort"): "aborted",
    ("catching-up", "replace"): "replaced",  # a newer rollout takes over the devices that have not come
}

_ENDS: Final[Mapping[PartEvent, Part]] = {
    "commit": "done", "fail": "failed", "reject": "rejected", "roll-back": "rolled-back",
}  # fmt: skip

PART_TABLE: Final[Mapping[tuple[Part, PartEvent], Part]] = {
    ("waiting", "order"): "ordered",
    ("waiting", "drop"): "dropped",  # the rollout ended before its turn
    ("ordered", "take-back"): "waiting",  # it went offline before it heard of the order
    ("ordered", "expire"): "silent",
    ("ordered", "drop"): "dropped",  # the rollout was aborted before the device began
    **{("ordered", event): end for event, end in _ENDS.items()},
    # Late words count: a device that was silent tells after all, a technician goes back, a repetition succeeds.
    **{("silent", event): end for event, end in _ENDS.items()},
    ("done", "roll-back"): "rolled-back",
    ("dropped", "commit"): "done",  # its trial had begun when the rollout was aborted, and we did not know yet
    ("failed", "commit"): "done",
}

OVER: Final[tuple[State, ...]] = ("finished", "aborted", "replaced")
ENDED: Final[tuple[Part, ...]] = ("done", "failed", "rejected", "rolled-back", "silent")
"""Parts that tell how the rollout does."""
BAD: Final[tuple[Part, ...]] = ("failed", "rejected", "rolled-back", "silent")

SAID: Final[Mapping[str, PartEvent]] = {
    "committed": "commit", "failed": "fail", "rejected": "reject", "rolled-back": "roll-back",
}  # fmt: skip
"""What the end of an update, as its device reports it, means for the part."""


def after(state: State, event: Event) -> State | None:
    """The state that follows, or None where the event cannot happen."""
    return TABLE.get((state, event))


def part_after(part: Part, event: PartEvent) -> Part | None:
    """The state of a part that follows, or None where the event cannot happen."""
    return PART_TABLE.get((part, event))
