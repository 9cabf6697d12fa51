"""One update as the journal keeps it. It moves by the table of `agent.core.lifecycle` and by nothing else."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.core import lifecycle
from agent.core.lifecycle import Event, What
from wire import bounds
from wire.orders import ConfigOrder, Desired, Disagreement, ModelOrder, Update

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""The first 16 digits of a bundle's digest: the name of its folder in the store."""


class Kept(BaseModel):
    """What is kept in a file of this device: frozen, and open to keys that a later release has written."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class When(Kept):
    """A moment on both clocks, and the boot that one of them belongs to."""

    wall_ns: int = 0
    boot_ns: int = 0
    boot: str = ""

    def age_s(self, now: "When") -> float:
        """Tell how long ago it was; after a reboot only the wall clock knows."""
        ago_ns = now.boot_ns - self.boot_ns if now.boot == self.boot else now.wall_ns - self.wall_ns
        return max(0.0, ago_ns / 1e9)


class Links(Kept):
    """Which bundles the two links name; None where there is no link."""

    current: Key | None = None
    previous: Key | None = None


class Entry(Kept):
    """One update: the order, where it is, and what was found.

    `bundle` is the ordered one in the store, `former` what the links were before it. `crashes` counts how often the
    process ended badly in its trial: `open` is set while vision is at work in one, so that a start that finds it set
    knows. `connected`: the device was, when the trial began. `retry` is when sync may try again.
    """

    what: Literal["model", "config"]
    revision: int
    rollout: str = ""
    model: ModelOrder | None = None
    config: ConfigOrder | None = None
    download_window: str | None = None
    apply_window: str | None = None
    deadline_wall_ns: int | None = None
    state: lifecycle.State = "offered"
    code: str | None = None
    text: str = ""
    numbers: dict[str, float] = Field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()
    progress: float = 0.0
    attempt: int = 0
    since: When = When()
    bundle: Key | None = None
    former: Links = Links()
    crashes: int = 0
    open: bool = False
    connected: bool = False
    retry: When | None = None
    retry_s: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing is under way any more."""
        return self.state in lifecycle.OVER

    @property
    def owner(self) -> lifecycle.Owner:
        """Who alone may move it on."""
        return lifecycle.POSTS[self.state].owner

    def step(self, event: Event, now: When, **changes: object) -> "Entry":
        """Take one step of the table, at `now`. Raises ValueError for a step that the table does not have."""
        into = lifecycle.after(self.what, self.state, event)
        if into is None:
            raise ValueError(f"no {event!r} of a {self.what} in state {self.state!r}")
        since = {} if into == self.state else {"since": now}
        return self.model_copy(update={"state": into, "code": None, "text": "", **since, **changes})

    def end(self, code: str, text: str, now: When, **changes: object) -> "Entry":
        """Take the way out that `code` is in this state, with the sentence that says why."""
        return self.step(lifecycle.ending(self.state, code), now, code=code, text=text, open=False, **changes)

    def expired(self, now: When, limit_s: float | None = None) -> bool:
        """Whether it has been in this state for too long: longer than `limit_s`, or than the table allows."""
        most_s = limit_s if limit_s is not None else lifecycle.POSTS[self.state].limit_s
        return most_s is not None and self.since.age_s(now) > most_s

    def as_update(self) -> Update | None:
        """Give it as `reported` carries it; None for one that a technician began before any order came."""
        if self.revision < 1:
            return None
        at = datetime.fromtimestamp(self.since.wall_ns // 10**6 / 1e3, UTC) if self.since.wall_ns else None
        return Update(
            what=self.what,
            revision=self.revision,
            rollout=self.rollout,
            state=self.state,
            code=self.code,
            text=self.text[: bounds.TEXT],
            numbers=dict(list(self.numbers.items())[: bounds.REPORT_NUMBERS]),
            disagreements=self.disagreements[: bounds.REPORT_LABELS],
            target=self.model,
            progress=round(min(1.0, max(0.0, self.progress)), 2),
            attempt=self.attempt,
            since=at,
        )


def begin(order: Desired, what: What, now: When) -> Entry:
    """Make the entry of a new order."""
    return Entry(
        what=what,
        revision=order.revision,
        rollout=order.rollout,
        model=order.model if what == "model" else None,
        config=order.config if what == "config" else None,
        download_window=order.download_window,
        apply_window=order.apply_window,
        deadline_wall_ns=int(order.deadline_at.timestamp() * 1e9) if order.deadline_at else None,
        since=now,
    )
