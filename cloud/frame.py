"""What a device says about a picture that it sends by HTTP: the headers `X-Shelfwire-...`, read strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import Field, ValidationError

from cloud.errors import Rejected
from cloud.function.exchange import CAMERA, CAPTURED_AT, FRAME, LOCAL_LABEL, NUMBER
from cloud.store.rows import EARLIEST, LATEST, LONGEST_BOOT_NS
from wire import bounds
from wire.records import Digest, Label, Moment, Name, Part, Run, Seq, rfc3339

CLOCK, AGE_MS = "x-shelfwire-clock", "x-shelfwire-age-ms"
SHA256, DEADLINE_MS = "x-shelfwire-sha256", "x-shelfwire-deadline-ms"

MOST_DEADLINE_MS = 600_000

_FIELDS = {
    "device": FRAME, "run": FRAME, "seq": FRAME, "camera": CAMERA, "number": NUMBER, "captured_at": CAPTURED_AT,
    "clock": CLOCK, "age_ms": AGE_MS, "local_label": LOCAL_LABEL, "sha256": SHA256, "deadline_ms": DEADLINE_MS,
}  # fmt: skip
_WHOLE = ("seq", "number", "age_ms", "deadline_ms")
_HINTS = {
    FRAME: "write the frame's id as device/run/seq, for example shop-1/00000000000000aa/17",
    CAMERA: "give the camera's name: at most 64 letters, digits, dots, dashes and underscores",
    NUMBER: "give the camera's own number of the frame, from 1",
    CAPTURED_AT: "write the time as RFC 3339, for example 2026-01-31T12:00:00.000000Z",
    CLOCK: "say whether the wall clock was right: synced or unsure",
    AGE_MS: "give the frame's age now in milliseconds, by the clock since the start, or leave it out",
    LOCAL_LABEL: "give the device's own label of at most 64 characters, percent-encoded UTF-8, or leave it out",
    SHA256: "give the SHA-256 of the body in 64 hexadecimal digits, or leave it out",
    DEADLINE_MS: f"say how many milliseconds you wait, from 1 to {MOST_DEADLINE_MS}, or leave it out",
}
_DIGITS = re.compile(r"[0-9]{1,19}")


class _Headers(Part):
    device: Name
    run: Run
    seq: Seq
    camera: Name
    number: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]
    captured_at: Moment
    clock: Literal["synced", "unsure"]
    age_ms: Annotated[int, Field(ge=0, le=LONGEST_BOOT_NS // 10**6)] | None = None
    local_label: Label | None = None
    sha256: Digest | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=MOST_DEADLINE_MS)] | None = None


@dataclass(frozen=True, slots=True)
class About:
    """Which frame a picture is, and what its device made of it. `captured_at` is the time to show."""

    device: str
    run: str
    seq: int
    camera: str
    frame: int
    captured_at: datetime
    local_label: str | None

    @property
    def id(self) -> str:
        """The frame's id, as everywhere."""
        return f"{self.device}/{self.run}/{self.seq}"

    def stored(self) -> dict[str, object]:
        """Write it for a column of JSON; see `restored`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"captured_at": rfc3339(self.captured_at)}

    @classmethod
    def restored(cls, column: Mapping[str, object]) -> "About":
        """Read what `stored` wrote."""
        known = {name: column[name] for name in cls.__slots__}
        return cls(**known | {"captured_at": datetime.fromisoformat(str(column["captured_at"]))})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture's headers, read. `sha256` is what the body should have, `deadline_ms` how long its sender waits."""

    about: About
    sha256: str | None
    deadline_ms: int | None


def read(headers: Mapping[str, str], frame_id: str, now: datetime) -> Sent:
    """Read the headers, names in lower case, of the frame `frame_id` (device/run/seq) that came `now`.

    A frame whose wall clock was unsure is dated back from its arrival by its age, where that is known. Raises
    `Rejected` (``bad-frame``, ``bad-camera``, ``bad-captured-at``, ...: the header without its beginning).
    """
    device, run, seq = frame_id.split("/") if frame_id.count("/") == 2 else ("", "", "")
    given: dict[str, object] = {name: headers[header] for name, header in _FIELDS.items() if header in headers}
    given |= {"device": device, "run": run, "seq": seq}
    given |= {name: _whole(given[name]) for name in _WHOLE if name in given}
    if isinstance(label := given.get("local_label"), str):
        given["local_label"] = _label(label)
    try:
        said = _Headers.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _wrong(_FIELDS[str(first["loc"][0])], str(first["msg"]), missing=first["type"] == "missing") from None
    captured_at = said.captured_at
    if said.clock == "unsure" and said.age_ms is not None:
        captured_at = now - timedelta(milliseconds=said.age_ms)
    if not EARLIEST <= captured_at < LATEST:
        raise _wrong(CAPTURED_AT, "this is no time at which a camera could have looked")
    about = About(said.device, said.run, said.seq, said.camera, said.number, captured_at, said.local_label)
    return Sent(about, said.sha256, said.deadline_ms)


def _whole(value: object) -> object:
    """A whole number from digits; anything else stays what it is, and is refused where it is checked."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _label(encoded: str) -> str:
    try:
        label = unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise _wrong(LOCAL_LABEL, "it is not percent-encoded UTF-8") from None
    if not label.isprintable():
        raise _wrong(LOCAL_LABEL, "it has characters that cannot be seen")
    return label


def _wrong(header: str, what: str, *, missing: bool = False) -> Rejected:
    name = "-".join(part.capitalize() for part in header.split("-"))
    detail = f"{name} is missing" if missing else f"{name} cannot be taken: {what}"
    return Rejected(f"bad-{header.removeprefix('x-shelfwire-')}", detail[:300], _HINTS[header])
