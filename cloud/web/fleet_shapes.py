"""What the Fleet page and its API give."""

from typing import Literal

from pydantic import Field

from cloud.web.shapes import Moment, Presence, Shape, Trouble


class FleetModel(Shape):
    """A model as a device names it."""

    name: str
    version: str
    release: int


class FleetUpdate(Shape):
    """How far an update has come on a device, or how it ended."""

    what: Literal["model", "config"]
    revision: int
    rollout: str
    state: str = Field(examples=["downloading", "shadow", "trial", "committed", "rejected"])
    code: str
    text: str
    progress: float = Field(description="0 to 1, of the download")


class FleetDevice(Shape):
    """One device: whether it is there, what it runs, what it is told to run, and what is wrong with it."""

    device: str
    store: str
    labels: list[str]
    presence: Presence
    last_heard_at: Moment | None
    agent: str
    model: FleetModel | None
    previous: FleetModel | None
    pinned: bool
    updates: list[FleetUpdate]
    desired_revision: int | None
    rows: int | None = Field(description="records that wait on the device")
    oldest_age_s: float | None
    clock: Literal["synced", "unsure", "unknown"]
    clock_ahead_s: float | None = Field(description="by how much its clock is ahead of the cloud's")
    disk_free_bytes: int | None
    disk_bytes: int | None
    temperature_c: float | None = Field(description="of its hottest sensor, where it has one")
    warnings: list[Trouble]


class FleetBatch(Shape):
    """One batch of a rollout."""

    batch: str = Field(examples=["1", "10%", "label=canary:all"])
    open: bool
    devices: int
    counts: dict[str, int] = Field(description="devices by the state of their part")


class FleetPart(Shape):
    """One device's part in a rollout."""

    device: str
    store: str
    batch: int = Field(description="counted from 0")
    state: str
    update_state: str
    progress: float
    code: str
    text: str
    online: bool
    ordered_at: Moment | None
    ended_at: Moment | None


class FleetRollout(Shape):
    """A rollout: where it is, what it waits for, and what may be done about it."""

    id: str
    what: Literal["model", "config"]
    title: str
    state: str
    reason: str
    reverts: str | None
    made_by: str
    made_at: Moment
    batches: list[FleetBatch]
    counts: dict[str, int]
    devices: int
    offline: int = Field(description="devices that are to come and are not there")
    may: list[Literal["pause", "resume", "abort"]]


class FleetView(Shape):
    """The fleet: all devices by store and name, and the newest rollouts."""

    now: Moment
    devices: list[FleetDevice]
    rollouts: list[FleetRollout]


class FleetRolloutParts(FleetRollout):
    """A rollout with each of its devices."""

    now: Moment
    parts: list[FleetPart]


class FleetStep(Shape):
    """One step of an update, as its device told it."""

    what: str
    revision: int
    state: str
    code: str
    rollout: str
    text: str
    numbers: dict[str, float]
    received_at: Moment


class FleetWhy(Shape):
    """Why a device has what it has."""

    device: str
    why: str
    steps: list[FleetStep] = Field(description="the newest first")
