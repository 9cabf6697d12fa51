"""What a device should run (`desired`), and what it runs and did about it (`reported`). Both are kept by the broker."""

from typing import Annotated, Literal

from pydantic import Field

from wire import bounds
from wire.records import Digest, ModelName, Moment, Name, Part, Text

Revision = Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
"""Number of a goal state: the cloud counts up per device, and a device acts on the highest it has seen."""
Window = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""A span of the shop's local time, as ``22:00-06:00``."""
Code = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]

UpdateState = Literal[
    "idle", "offered", "deferred", "downloading", "verified", "compiled", "golden", "shadow", "trial", "committed",
    "rejected", "failed", "rolled-back",
]  # fmt: skip
"""Where an update is; the table that leads from one to the next is the device's (`agent.core.lifecycle`)."""


class ModelOrder(Part):
    """A bundle: the repository's target ``models/NAME/RELEASE/bundle.json``, which has this SHA-256."""

    name: Name
    version: Text
    release: Annotated[int, Field(ge=1, le=2**31)]
    digest: Digest


class ConfigOrder(Part):
    """Settings for the device, as TOML; they lie between its enrolment and its own file, which wins."""

    text: Annotated[str, Field(max_length=bounds.CONFIG_CHARACTERS)]


class Desired(Part):
    """The goal state of a device. An order that names no model, or no settings, leaves them as they are."""

    revision: Revision
    ordered_at: Moment
    rollout: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")] = ""
    model: ModelOrder | None = None
    config: ConfigOrder | None = None
    deadline_at: Moment | None = None
    download_window: Window | None = None
    apply_window: Window | None = None


class Disagreement(Part):
    """How often the new model named another label than the running one, of those frames that one gave `label`."""

    label: Annotated[str, Field(min_length=1, max_length=64)]
    frames: Annotated[int, Field(ge=0)]
    differ: Annotated[int, Field(ge=0)]


Numbers = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,48}$")], float], Field(max_length=bounds.REPORT_NUMBERS)
]
"""Figures that decided, by name with unit (``p95_ms``, ``limit_p95_ms``)."""


class Update(Part):
    """How far an order has come, or how it ended: with a code, a sentence and the numbers that decided."""

    what: Literal["model", "config"]
    revision: Revision
    rollout: Text = ""
    state: UpdateState
    code: Code | None = None
    text: Text = ""
    numbers: Numbers = Field(default_factory=dict)
    disagreements: Annotated[tuple[Disagreement, ...], Field(max_length=bounds.REPORT_LABELS, strict=False)] = ()
    target: ModelOrder | None = None
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    attempt: Annotated[int, Field(ge=0)] = 0
    since: Moment | None = None


class Reported(Part):
    """What runs on a device, and the last update of each kind. `pinned`: a technician holds the model as it is."""

    model: ModelName | None = None
    previous: ModelName | None = None
    pinned: bool = False
    config_revision: Annotated[int, Field(ge=0, le=bounds.SEQ_MAX)] = 0
    updates: Annotated[tuple[Update, ...], Field(max_length=2, strict=False)] = ()
