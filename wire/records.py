"""The records that device and cloud exchange, validated strictly; unknown fields are ignored, bad values refused."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from wire import bounds

Name = Annotated[str, Field(pattern=bounds.NAME)]
Run = Annotated[str, Field(pattern=bounds.RUN)]
Seq = Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
Text = Annotated[str, Field(max_length=bounds.TEXT)]
Label = Annotated[str, Field(min_length=1, max_length=64)]
Probability = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, le=86_400_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Mode = Literal["real-time", "serverless", "asynchronous", "batch"]
"""The four ways to an answer."""
LateMode = Literal["serverless", "asynchronous", "batch"]
"""Those in which the cloud answers."""
Nanoseconds = Annotated[int, Field(ge=0, le=bounds.SEQ_MAX)]
_BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$"
Jpeg = Annotated[str, Field(max_length=(bounds.THUMBNAIL_BYTES + 2) // 3 * 4, pattern=_BASE64)]


def rfc3339(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _moment(value: object) -> object:
    """Let only RFC 3339 through: the standard parser also reads week dates and times without seconds."""
    if not isinstance(value, str):
        return value
    if not _RFC3339.fullmatch(value):
        raise ValueError("a time is written as RFC 3339, for example 2026-01-31T12:00:00.000000Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError:
        raise ValueError("this time has no form in UTC between the years 1 and 9999") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_moment), PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 with an offset; in UTC once it is read."""


class Part(BaseModel):
    """Base of all parts: strict values, unknown fields ignored, no infinities, immutable."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class Score(Part):
    """One label with its score."""

    label: Label
    score: Probability


class ModelName(Part):
    """The model that answered."""

    name: Name
    version: Text
    release: Annotated[int, Field(ge=0, le=2**31)]
    digest: Digest


class Decision(Part):
    """What was concluded from the scores, and why."""

    label: Label
    state: Literal["confirmed", "pending", "unknown"]
    changed: bool
    reason: Text


class Keyed(Part):
    """What its sender keeps until a receipt names this key, which is unique inside the sender."""

    run: Run
    seq: Seq


class Record(Keyed):
    """What every record of a device carries: its camera and its three times."""

    camera: Name
    captured_at: Moment
    boot_ns: Nanoseconds
    clock: Literal["synced", "unsure"]


class Result(Record):
    """The answer for one frame."""

    frame: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
    labels: Annotated[tuple[Score, ...], Field(min_length=1, max_length=bounds.LABELS, strict=False)]
    decision: Decision
    model: ModelName
    runtime: Name
    mode: Mode
    waiting_ms: Milliseconds
    inference_ms: Milliseconds
    total_ms: Milliseconds
    truth: Label | None = None


class Alert(Record):
    """Somebody must be told, or need not be told any longer."""

    rule: Name
    state: Literal["raised", "cleared"]
    label: Label
    score: Probability
    since: Moment
    frame: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
    reason: Text
    thumbnail: Jpeg | None = None


class Verdict(Part):
    """The cloud's answer for one frame, whose id is device, run and seq. `label` is "unknown" below the threshold.

    `frame` is the camera's own number of it in that run: answers with the same run, camera and frame speak of one
    picture, whichever record asked for them. `captured_at` is the time to show; `agrees` compares `label` with the
    device's own, None when it had none.
    """

    device: Name
    run: Run
    seq: Seq
    camera: Name
    frame: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)] | None = None
    captured_at: Moment
    mode: LateMode
    label: Label
    labels: Annotated[tuple[Score, ...], Field(min_length=1, max_length=bounds.LABELS, strict=False)]
    model: ModelName
    runtime: Name
    inference_ms: Milliseconds
    answered_at: Moment
    agrees: bool | None = None


class LateAnswer(Keyed):
    """A verdict on its way to its device. `run` and `seq` are the cloud's own: the device's receipt names them."""

    verdict: Verdict


class HealthWarning(Part):
    """One health warning."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]
    severity: Literal["info", "warning", "failure"]
    text: Text
    cure: Text = ""


class CameraCondition(Part):
    """What is wrong with what a camera shows, though it gives pictures: it is covered, or turned away."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]
    message: Text = ""
    cure: Text = ""
    since: Moment | None = None


class CameraStatus(Part):
    """How one camera does. `conditions` may hold in any phase: a camera that streams may show nothing but darkness."""

    name: Name
    kind: Name
    phase: Literal["opening", "streaming", "stalled", "failed", "ended"]
    code: Annotated[str, Field(max_length=48)] = ""
    message: Text = ""
    cure: Text = ""
    captured: Annotated[int, Field(ge=0)] = 0
    dropped: Annotated[int, Field(ge=0)] = 0
    rate_fps: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    last_frame_age_s: Annotated[float, Field(ge=0)] | None = None
    conditions: Annotated[tuple[CameraCondition, ...], Field(max_length=16, strict=False)] = ()


class OutboxStatus(Part):
    """How much waits on the device."""

    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    dead: Annotated[int, Field(ge=0)]
    oldest_age_s: Annotated[float, Field(ge=0)]


class FramesStatus(Part):
    """What became of the frames that a device captured, since its store was made: the sum of all is `captured`.

    `unanswered` are those of `serverless` and `deferred` that no verdict has come for yet.
    """

    captured: Annotated[int, Field(ge=0)]
    local: Annotated[int, Field(ge=0)]
    serverless: Annotated[int, Field(ge=0)]
    deferred: Annotated[int, Field(ge=0)]
    dropped: Annotated[int, Field(ge=0)]
    unanswered: Annotated[int, Field(ge=0)] = 0


class NightStatus(Part):
    """What waits for the night: files that are sealed and not uploaded yet, and frames that lie in no file yet."""

    files: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    unsealed: Annotated[int, Field(ge=0)]
    oldest_day: Text = ""


class HostStatus(Part):
    """The machine: the disk that holds the outbox, and its hottest sensor, where it has one."""

    disk_free_bytes: Annotated[int, Field(ge=0)]
    disk_bytes: Annotated[int, Field(ge=0)]
    temperature_c: Annotated[float, Field(ge=-100, le=200)] | None = None


class Status(Part):
    """Presence and health of a device. `session` ties the last will to the connection that it speaks for."""

    state: Literal["online", "offline"]
    session: Run
    reason: Text = ""
    store: Text = ""
    agent: Text = ""
    model: ModelName | None = None
    runtime: Text = ""
    clock: Literal["synced", "unsure"] = "unsure"
    vision: Literal["running", "stopped"] = "stopped"
    cameras: Annotated[tuple[CameraStatus, ...], Field(max_length=64, strict=False)] = ()
    outbox: OutboxStatus | None = None
    frames: FramesStatus | None = None
    night: NightStatus | None = None
    host: HostStatus | None = None
    warnings: Annotated[tuple[HealthWarning, ...], Field(max_length=64, strict=False)] = ()


class Span(Part):
    """Sequence numbers first to last of one run, both included."""

    run: Run
    first: Seq
    last: Seq

    @model_validator(mode="after")
    def _ordered(self) -> "Span":
        if self.last < self.first:
            raise ValueError("the span ends before it starts")
        return self


class Refusal(Part):
    """A record that the receiver will never take, and why."""

    run: Run
    seq: Seq
    code: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]


class Receipt(Part):
    """What the receiver's store has committed, and what it refused for good. Spans hold only what was really sent.

    `rejected` is the reason when the envelope as a whole could not be read, so that none of its keys can be named.
    """

    envelope: Annotated[str, Field(max_length=64)]
    rejected: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")] | None = None
    committed: Annotated[tuple[Span, ...], Field(max_length=bounds.ENVELOPE_RECORDS, strict=False)] = ()
    refused: Annotated[tuple[Refusal, ...], Field(max_length=bounds.ENVELOPE_RECORDS, strict=False)] = ()


class Picture(Part):
    """The last small picture of a camera, for the Live page. Not kept, never sent twice."""

    camera: Name
    frame: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
    captured_at: Moment
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    jpeg: Annotated[str, Field(max_length=(bounds.PICTURE_BYTES + 2) // 3 * 4, pattern=_BASE64)]
