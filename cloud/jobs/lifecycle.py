"""The life of a job: a table of (state, event) -> state. Everything that changes a job asks here first."""

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal["queued", "running", "done", "failed", "dead"]
Event = Literal["start", "finish", "refuse", "postpone", "bury"]

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)

TABLE: Mapping[tuple[State, Event], State] = {
    ("queued", "start"): "running",
    ("running", "start"): "running",  # the worker before was killed; another takes the job over
    ("running", "finish"): "done",
    ("running", "refuse"): "failed",  # the picture cannot be read: trying again gives the same answer
    ("running", "postpone"): "queued",  # an attempt broke; another follows after a backoff
    ("running", "bury"): "dead",  # out of attempts
}

OPEN: tuple[State, ...] = ("queued", "running")
OVER: tuple[State, ...] = ("done", "failed", "dead")


def after(state: State, event: Event) -> State | None:
    """The state that follows, or None where the event cannot happen."""
    return TABLE.get((state, event))


def before(event: Event) -> list[State]:
    """The states in which an event can happen."""
    return [state for state, known in TABLE if known == event]


def target(event: Event) -> State:
    """The one state that an event leads to."""
    (state,) = {into for (_, known), into in TABLE.items() if known == event}
    return state
