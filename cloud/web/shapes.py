"""What the API gives: every answer as a pydantic model, from which the OpenAPI document is made."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from wire.records import rfc3339

Moment = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 in UTC with microseconds."""

Presence = Literal["online", "stale", "offline", "unknown"]
Mode = Literal["real-time", "serverless", "asynchronous", "batch"]


class Shape(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Label(Shape):
    """A label with its score, and as one says it."""

    label: str
    title: str = Field(description="the label for people: no dashes, nothing invisible")
    score: float = Field(description="0 to 1")


class Model(Shape):
    """The model that answered."""

    name: str
    version: str


class Trouble(Shape):
    """What is wrong, and the cure."""

    code: str = Field(description="short and stable, to read aloud and to compare", examples=["camera-auth"])
    severity: Literal["info", "warning", "failure"]
    text: str
    cure: str


class Condition(Shape):
    """What is wrong with what a camera shows, though it gives pictures."""

    code: str = Field(examples=["camera-covered"])
    text: str
    cure: str
    since: Moment | None


class Answer(Shape):
    """The newest answer of a camera."""

    run: str
    seq: int
    frame: int
    label: str = Field(description="the decision; `unknown` when no label reached the threshold")
    title: str
    score: float = Field(description="of the decision's label; of the best guess when the decision is `unknown`")
    state: str = Field(description="`confirmed`, `pending` (another label is on its way) or `unknown`")
    mode: str = Field(description="`real-time`, `serverless`, `asynchronous` or `batch`")
    labels: list[Label] = Field(description="the best labels, the best first")
    model: Model | None
    total_ms: float | None = Field(description="from capture to answer, on the device, in milliseconds")
    truth: str | None = Field(description="what the frame really shows, where that is known")
    truth_title: str | None
    correct: bool | None = Field(description="whether the decision equals the truth; null when that is not known")
    captured_at: Moment
    received_at: Moment
    as_of: Moment = Field(description="the moment to count the answer's age from, by the server's clock")
    late_ms: float | None = Field(
        description="from the capture until the cloud had this answer, in milliseconds; null when the device gave it"
    )


class Late(Shape):
    """A late answer of a camera: the cloud's word on one of its newest pictures."""

    run: str
    seq: int
    frame: int | None
    mode: Mode
    label: str
    title: str
    score: float
    agrees: bool | None = Field(description="whether it says what the device said; null when the device said nothing")
    model: Model
    captured_at: Moment
    stored_at: Moment
    late_ms: float = Field(description="from the capture until the cloud had it, in milliseconds")


class Picture(Shape):
    """The newest picture of a camera; its bytes are at `url`."""

    url: str
    frame: int
    width: int
    height: int
    captured_at: Moment
    received_at: Moment


class Camera(Shape):
    """One camera: its newest answer and picture, and what is wrong with it."""

    device: str
    camera: str
    store: str
    kind: str
    phase: Literal["opening", "streaming", "stalled", "failed", "ended", "unknown"]
    rate_fps: float
    stale_after_s: float = Field(description="an older answer is not to be shown as the present")
    answer: Answer | None
    late: list[Late] = Field([], description="late answers of its newest pictures, the newest picture first")
    picture: Picture | None
    trouble: Trouble | None
    conditions: list[Condition] = Field([], description="what is wrong with what it shows; its answers go on")


class Outbox(Shape):
    """What waits on the device for the cloud."""

    rows: int
    bytes: int
    dead: int
    oldest_age_s: float


class Frames(Shape):
    """What became of the frames that a device captured, since its store was made; the sum is `captured`."""

    captured: int
    local: int
    serverless: int
    deferred: int
    dropped: int
    unanswered: int = Field(description="of `serverless` and `deferred`: no answer has come for them yet")


class Answered(Shape):
    """How many answers one way gave."""

    mode: Mode
    n: int


class Device(Shape):
    """One device: whether it is there, and how it does."""

    device: str
    store: str
    presence: Presence
    presence_since: Moment
    last_heard_at: Moment
    stale_after_s: float
    reason: str
    agent: str
    runtime: str
    vision: Literal["running", "stopped", "unknown"]
    clock: Literal["synced", "unsure", "unknown"]
    model: Model | None
    cameras_working: int
    cameras_total: int
    outbox: Outbox | None
    frames: Frames | None = Field(description="null until the device tells it")
    answered: list[Answered] = Field(
        description="answers of the last five minutes by mode; modes without any are left out"
    )
    warnings: list[Trouble]


class Alert(Shape):
    """One alert. An alert that is over has `ended_at`."""

    device: str
    run: str
    seq: int
    camera: str
    store: str
    rule: str
    state: Literal["raised", "cleared"]
    label: str
    title: str
    score: float
    reason: str
    since: Moment = Field(description="when what the alert is about began")
    raised_at: Moment | None = Field(description="when the device told of it; null for an alert that is over")
    ended_at: Moment | None
    received_at: Moment
    thumbnail_url: str | None


class Alerts(Shape):
    """Alerts that stand, and those that ended within the last day; the newest first."""

    open: list[Alert]
    recent: list[Alert]


class Live(Shape):
    """Everything the Live page shows. `now` is the server's clock: ages are counted against it, not the viewer's."""

    now: Moment
    version: str
    cameras: list[Camera]
    devices: list[Device]
    alerts: Alerts


class CameraKey(Shape):
    """Names a camera."""

    device: str
    camera: str


class Update(Shape):
    """What has changed since the event before; what is null or empty has not."""

    now: Moment
    cameras: list[Camera] = []
    devices: list[Device] = []
    alerts: Alerts | None = None
    gone: list[CameraKey] = []


class Cameras(Shape):
    """All cameras by device and name."""

    now: Moment
    cameras: list[Camera]


class Devices(Shape):
    """All devices by store and name."""

    now: Moment
    devices: list[Device]


class Result(Shape):
    """One result as it stands in the store; its id is device/run/seq."""

    device: str
    run: str
    seq: int
    camera: str
    frame: int
    captured_at: Moment
    captured_device_at: Moment = Field(description="what the device's clock said")
    dated_by: str = Field(description="where `captured_at` comes from: `device`, `boot-clock` or `unsure`")
    received_at: Moment
    label: str
    title: str
    score: float
    state: str
    changed: bool
    reason: str
    labels: list[Label]
    model_name: str | None
    model_version: str | None
    runtime: str
    mode: str
    waiting_ms: float | None
    inference_ms: float | None
    total_ms: float | None
    truth: str | None


class Results(Shape):
    """A page of results, the newest first. `next` is the cursor of the page after this one, null on the last."""

    results: list[Result]
    next: str | None


class Verdict(Shape):
    """One late answer as it stands in the store. Its frame's id is device/run/seq."""

    device: str
    run: str
    seq: int
    mode: Mode
    camera: str
    frame: int | None
    captured_at: Moment
    asked_at: Moment = Field(description="when the cloud got the picture")
    answered_at: Moment
    stored_at: Moment
    late_ms: float = Field(description="from the capture until the cloud had the answer, in milliseconds")
    label: str
    title: str
    score: float
    labels: list[Label]
    agrees: bool | None
    model_name: str
    model_version: str
    model_release: int
    model_digest: str
    runtime: str
    inference_ms: float
    picture_bytes: int | None
    billed_ms: int | None
    usd: float | None


class Verdicts(Shape):
    """A page of late answers, the newest in the store first. `next` is the cursor of the page after this one."""

    verdicts: list[Verdict]
    next: str | None


class FrameAnswer(Shape):
    """One answer of one picture, whoever gave it."""

    run: str
    seq: int = Field(description="of the record that asked: one picture may have been asked about more than once")
    captured_at: Moment
    stored_at: Moment
    late_ms: float = Field(description="from the capture until the cloud had the answer, in milliseconds")
    mode: Mode
    label: str
    title: str
    score: float
    labels: list[Label]
    model_name: str | None
    model_version: str | None
    model_release: int | None
    model_digest: str | None
    runtime: str
    inference_ms: float | None
    agrees: bool | None = Field(
        description="whether a late answer says what the device said; null when there is nothing to compare"
    )


class FrameAnswers(Shape):
    """All answers of one picture. The first is the best: the newest model's, then that of the way with most time."""

    device: str
    run: str
    camera: str
    frame: int | None
    answers: list[FrameAnswer]


class Counts(Shape):
    """What the store holds, and what was done with what came."""

    results: int = Field(description="results in the store, counted row by row")
    alerts: int
    received: int = Field(description="records that came, copies included")
    committed: int
    duplicates: int = Field(description="copies that were suppressed")
    refused: int = Field(description="records that will never be taken")
    quarantined: int = Field(description="messages and records set aside, also those thinned out since")
    conflicts: int = Field(description="records whose key was taken by other content")


class DeviceCounts(Counts):
    """The counts of one device."""

    device: str


class Percentiles(Shape):
    """Milliseconds; null when there is no result to measure."""

    n: int
    p50: float | None
    p95: float | None
    p99: float | None


class Latency(Shape):
    """How long the recent answers took."""

    window_s: int
    capture_to_answer_ms: Percentiles
    capture_to_cloud_ms: Percentiles
    cloud_measured_to: Literal["commit", "reception"] = Field(
        description="`commit`: until PostgreSQL had committed; `reception`: its commit times are not kept"
    )


class Summary(Shape):
    """Counts and latency over everything."""

    now: Moment
    total: Counts
    answers: dict[Mode, int] = Field(
        description="answers by mode: the results in the store, and by their tally the late answers that were kept; "
        "of one frame there may be one each way"
    )
    devices: list[DeviceCounts]
    latency: Latency


class Rate(Shape):
    """Answers per minute over one bin of the time."""

    at: Moment = Field(description="where the bin begins")
    per_minute: float


class ModeFigures(Shape):
    """How one way to an answer did over the time."""

    mode: Mode
    title: str
    about: str = Field(description="what it is, in one sentence")
    cure: str = Field(description="what to do when nothing has come that way; code stands in backquotes")
    answers: int
    bounded: bool = Field(
        description="there were more answers than are looked at: local ones are then estimated from samples of the "
        "whole time, and late ones are the newest 100,000"
    )
    per_minute: float = Field(description="over the whole time")
    latency_ms: Percentiles = Field(
        description="from the capture to the device's answer in real time, else until the cloud had the answer"
    )
    bytes_per_answer: float | None = Field(
        description="on the wire, mean: the record of a local answer, the picture for a late one"
    )
    usd: float | None = Field(description="what the priced answers cost, together")
    usd_per_1000: float | None
    priced: int = Field(description="answers whose cost is known")
    compared: int = Field(description="late answers of frames that the device had answered too")
    agreement: float | None = Field(description="part of them that said the same, 0 to 1")
    newest_at: Moment | None = Field(description="when the newest answer came, also before the time looked at")
    rates: list[Rate] = Field(description="bin by bin, the oldest first; one that has hardly begun is left out")


class Modes(Shape):
    """The four ways side by side, the quickest first."""

    now: Moment
    since: Moment
    window_s: int
    bin_s: float
    modes: list[ModeFigures]


class Refused(Shape):
    """One message or record that was set aside, and why."""

    id: int
    received_at: Moment
    topic: str
    device: str | None
    run: str | None
    seq: int | None
    code: str
    detail: str
    payload_bytes: int
    payload_start: str = Field(description="its first 256 bytes; what is no UTF-8 text is written as \\xNN")


class Quarantine(Shape):
    """A page of what was refused, the newest first. `next` is the `before` of the page after this one."""

    refused: list[Refused]
    next: int | None


class Health(Shape):
    """Whether this server can do its work."""

    status: Literal["ok", "ill"]
    database: Literal["ok", "away"]
    stream: Literal["listening", "waiting"] = Field(description="whether changes are told by the database")
    viewers: int
    version: str
    now: Moment


class Problem(Shape):
    """An error in the form of RFC 9457, with the cure."""

    type: str = Field("about:blank", description="always about:blank: `code` says which problem it is")
    title: str
    status: int
    code: str = Field(examples=["no-such-camera"])
    detail: str
    hint: str = Field(description="what to do about it")
    errors: list[dict[str, str]] | None = Field(None, description="for wrong input: each place and what is wrong there")
