"""What the API tells of asynchronous jobs."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from cloud.web.shapes import Label, Model, Moment, Shape

State = Literal["queued", "running", "done", "failed", "dead"]


class JobResult(Shape):
    """The answer."""

    label: str = Field(description="the decision; `unknown` when no label reached the model's threshold")
    title: str
    known: bool
    score: float = Field(description="of the best label, 0 to 1")
    top: list[Label] = Field(description="the five best labels, the best first")
    prepare_ms: float
    inference_ms: float


class JobError(Shape):
    """Why there is no answer, and the cure."""

    code: str
    detail: str
    hint: str


class Delivery(Shape):
    """One attempt of a notice."""

    attempt: int
    at: Moment
    code: str = Field(examples=["delivered", "callback-refused"])
    detail: str
    took_ms: float


class Notice(Shape):
    """How the sender is told; `id` is the webhook's message id and part of the mail's Message-ID."""

    id: UUID
    way: Literal["webhook", "email"]
    target: str
    state: Literal["waiting", "sent", "dead"]
    attempts: int
    deliveries: list[Delivery]


class Job(Shape):
    """One job. `error` of a job that is queued or running is that of its attempt before."""

    id: UUID
    url: str
    state: State
    name: str = Field(description="the file's name, without folders and without what cannot be seen")
    kind: str = Field(description="`jpeg`, `png`, `webp` or `bmp`")
    width: int
    height: int
    bytes: int
    sha256: str
    submitted_by: str
    frame: str | None = Field(description="`device/run/seq` of the frame, when a device asks for its answer")
    idempotency_key: str | None
    callback: str | None
    email: str | None
    attempts: int
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    waited_ms: float | None = Field(description="from the submission to the start of the last run")
    took_ms: float | None = Field(description="from the submission to the end")
    result: JobResult | None
    model: Model | None
    error: JobError | None
    picture_url: str | None = Field(description="a thumbnail, once the picture has been decoded")
    notices: list[Notice]


class JobList(Shape):
    """A page of jobs, the newest first. `next` is the cursor of the page after this one, null on the last."""

    jobs: list[Job]
    next: str | None


class JobCounts(Shape):
    """How many jobs are in each state."""

    now: Moment
    queued: int
    running: int
    done: int
    failed: int
    dead: int
