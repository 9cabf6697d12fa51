"""From rows to what the Live page shows. Pure: the moment is passed in."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from pydantic import ValidationError

from cloud.store.read import AlertRow, AnsweredRow, AnswerRow, DeviceRow, LateRow, PictureRow, Reader
from cloud.web import shapes, words
from wire.records import CameraCondition, CameraStatus, Status

API = "/api/v1"

DEVICE_STALE_AFTER_S = 45.0
"""A device tells its status every 10 seconds, even when nothing changes; this is four times missed and a bit."""

PICTURE_OLDEST = timedelta(minutes=5)
"""Longest way of a last picture that a device's clock is believed for."""

ANSWER_STALE_AFTER_S = 10.0
"""An older answer is not the present any more, unless the camera is slower than that."""

SLOW_FRAMES = 3
"""A slow camera's answer is stale after this many of its own pauses."""

RECENT_ALERTS = timedelta(days=1)

ANSWERED_WINDOW = timedelta(minutes=5)
"""Which way answers how much is told over this time: long enough for a rare way, short enough to see a change."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read of some devices, or of all."""

    devices: Sequence[DeviceRow]
    answers: Sequence[AnswerRow]
    pictures: Sequence[PictureRow]
    late: Sequence[LateRow] = ()
    answered: Sequence[AnsweredRow] = ()


def read_rows(reader: Reader, devices: Sequence[str] | None = None, answered: Sequence[AnsweredRow] = ()) -> Rows:
    """Read devices, answers and pictures of the devices named, or of all. `answered` is passed through."""
    return Rows(
        reader.devices(devices), reader.answers(devices), reader.pictures(devices), reader.late(devices), answered
    )


def read_answered(reader: Reader, now: datetime) -> list[AnsweredRow]:
    """Read which way gave how many of each device's latest answers."""
    return reader.answered(now - ANSWERED_WINDOW)


def read_alerts(reader: Reader, stores: Mapping[str, str], now: datetime) -> shapes.Alerts:
    """Read the alerts that stand and those that ended within the last day; `stores` gives each device's store."""
    return shapes.Alerts(
        open=[_alert(row, stores) for row in reader.open_alerts()],
        recent=[_alert(row, stores) for row in reader.cleared_alerts(now - RECENT_ALERTS)],
    )


def cameras(rows: Rows, now: datetime) -> list[shapes.Camera]:
    """Put every camera together that has answered, sent a picture or is named in its device's status."""
    answers = {(row.device, row.camera): row for row in rows.answers}
    pictures = {(row.device, row.camera): row for row in rows.pictures}
    devices = {row.device: row for row in rows.devices}
    statuses = {name: read_status(row) for name, row in devices.items()}
    last = heard(rows)
    seen = {name: presence(row, last[name], now) for name, row in devices.items()}
    told = {(name, camera.name): camera for name, status in statuses.items() if status for camera in status.cameras}
    late: dict[tuple[str, str], list[shapes.Late]] = defaultdict(list)
    for row in rows.late:
        late[row.device, row.camera].append(_late(row))
    found = []
    for key in sorted({*answers, *pictures, *told}):
        device = devices.get(key[0])
        status = statuses.get(key[0])
        trouble = words.camera_trouble(seen.get(key[0], "unknown"), status, told.get(key))
        parts = (answers.get(key), late.get(key, []), pictures.get(key), trouble)
        made = _camera(key, device, status, told.get(key), *parts)
        if not _was_removed(made, status, key not in told, now):
            found.append(made)
    return found


def devices(rows: Rows, now: datetime) -> list[shapes.Device]:
    """Put every device together."""
    last = heard(rows)
    answered: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows.answered:
        answered[row.device][row.mode] = row.n
    return [_device(row, last[row.device], answered.get(row.device, {}), now) for row in rows.devices]


def read_status(row: DeviceRow | None) -> Status | None:
    """Read a device's last status; None for none, or for one of a later version that we cannot read."""
    if row is None or row.status is None:
        return None
    try:
        return Status.model_validate_json(json.dumps(row.status))  # strict types as JSON knows them
    except ValidationError:
        return None


def presence(row: DeviceRow | None, heard_at: datetime | None, now: datetime) -> words.Presence:
    """Tell whether a device is there. One that says nothing for long is stale, whatever it last said."""
    if row is None or heard_at is None or row.state not in ("online", "offline"):
        return "unknown"
    if row.state == "offline":
        return "offline"
    return "stale" if (now - heard_at).total_seconds() > DEVICE_STALE_AFTER_S else "online"


def heard(rows: Rows) -> dict[str, datetime]:
    """When each device was last heard: by its status, or by an answer when that came later."""
    last = {row.device: row.seen_at for row in rows.devices}
    for row in rows.answers:
        if row.device in last:
            last[row.device] = max(last[row.device], row.received_at)
    return last


def stale_after_s(rate_fps: float) -> float:
    """Seconds after which a camera's answer is not the present any more."""
    return max(ANSWER_STALE_AFTER_S, SLOW_FRAMES / rate_fps if rate_fps > 0 else 0.0)


def label(item: Mapping[str, object]) -> shapes.Label:
    """Make one label of what stands in a `labels` column."""
    name, score = item.get("label"), item.get("score")
    known = score if isinstance(score, int | float) else 0.0
    return shapes.Label(label=str(name), title=words.title(str(name)), score=known)


def _camera(
    key: tuple[str, str],
    device: DeviceRow | None,
    status: Status | None,
    told: CameraStatus | None,
    answer: AnswerRow | None,
    late: list[shapes.Late],
    picture: PictureRow | None,
    trouble: words.Trouble | None,
) -> shapes.Camera:
    rate_fps = told.rate_fps if told else 0.0
    unsure = status is not None and status.state == "online" and status.clock == "unsure"
    return shapes.Camera(
        device=key[0],
        camera=key[1],
        store=device.store if device else "",
        kind=told.kind if told else "",
        phase=told.phase if told else "unknown",
        rate_fps=rate_fps,
        stale_after_s=stale_after_s(rate_fps),
        answer=_answer(answer, unsure=unsure) if answer else None,
        late=late,
        picture=_picture(picture) if picture else None,
        trouble=shapes.Trouble.model_validate(trouble) if trouble else None,
        conditions=[_condition(told, one) for one in told.conditions] if told else [],
    )


def _condition(camera: CameraStatus, one: CameraCondition) -> shapes.Condition:
    text = words.without_name(camera, one.message) or words.title(one.code)
    return shapes.Condition(code=one.code, text=text, cure=one.cure, since=one.since)


def _was_removed(made: shapes.Camera, status: Status | None, unnamed: bool, now: datetime) -> bool:
    """A camera that its running device no longer names, and that is silent, has been taken out of its configuration."""
    if not unnamed or status is None or not status.cameras or status.vision != "running":
        return False
    heard = [part.received_at for part in (made.answer, made.picture) if part]
    return all((now - at).total_seconds() > DEVICE_STALE_AFTER_S for at in heard)


def _answer(row: AnswerRow, *, unsure: bool) -> shapes.Answer:
    labels = [label(item) for item in row.labels]
    scores = {item.label: item.score for item in labels}
    return shapes.Answer(
        run=row.run,
        seq=row.seq,
        frame=row.frame,
        label=row.label,
        title=words.title(row.label),
        score=scores.get(row.label, row.score),
        state=row.state,
        mode=row.mode,
        labels=labels,
        model=shapes.Model(name=row.model_name, version=row.model_version or "") if row.model_name else None,
        total_ms=row.total_ms,
        truth=row.truth,
        truth_title=words.title(row.truth) if row.truth else None,
        correct=row.label == row.truth if row.truth else None,
        captured_at=row.captured_at,
        received_at=row.received_at,
        # A clock that nobody keeps says nothing about the age; and nothing is captured after it was received.
        as_of=row.received_at if unsure else min(row.captured_at, row.received_at),
        late_ms=None if row.mode == "real-time" else late_ms(row.captured_at, row.received_at),
    )


def late_ms(captured_at: datetime, stored_at: datetime) -> float:
    """Milliseconds from the capture until the cloud had the answer; never less than none."""
    return max(0.0, (stored_at - captured_at).total_seconds() * 1000)


def _late(row: LateRow) -> shapes.Late:
    return shapes.Late(
        run=row.run,
        seq=row.seq,
        frame=row.frame,
        mode=words.mode(row.mode),
        label=row.label,
        title=words.title(row.label),
        score=row.score,
        agrees=row.agrees,
        model=shapes.Model(name=row.model_name, version=row.model_version),
        captured_at=row.captured_at,
        stored_at=row.stored_at,
        late_ms=late_ms(row.captured_at, row.stored_at),
    )


def _picture(row: PictureRow) -> shapes.Picture:
    path = f"{API}/cameras/{quote(row.device, safe='')}/{quote(row.camera, safe='')}/picture.jpg"
    return shapes.Picture(
        url=f"{path}?at={int(row.received_at.timestamp() * 1e6)}",
        frame=row.frame,
        width=row.width,
        height=row.height,
        captured_at=_when_pictured(row),
        received_at=row.received_at,
    )


def _when_pictured(row: PictureRow) -> datetime:
    """A device sends a last picture within a minute or never: one that claims another day has a wrong clock."""
    believed = timedelta() <= row.received_at - row.captured_at <= PICTURE_OLDEST
    return row.captured_at if believed else row.received_at


def _device(row: DeviceRow, heard_at: datetime, answered: Mapping[str, int], now: datetime) -> shapes.Device:
    status = read_status(row)
    seen = presence(row, heard_at, now)
    told: Iterable[CameraStatus] = status.cameras if status else ()
    # A last will is written before the device knows anything: what it says of clock and vision are only defaults.
    spoke = status is not None and (status.state == "online" or status.outbox is not None)
    working = sum(camera.phase == "streaming" and not camera.conditions for camera in told) if seen == "online" else 0
    return shapes.Device(
        device=row.device,
        store=row.store,
        presence=seen,
        presence_since=heard_at if seen == "stale" else row.changed_at,
        last_heard_at=heard_at,
        stale_after_s=DEVICE_STALE_AFTER_S,
        reason=status.reason if status else "",
        agent=row.agent,
        runtime=status.runtime if status else "",
        vision=status.vision if status and spoke else "unknown",
        clock=status.clock if status and spoke else "unknown",
        model=shapes.Model(name=status.model.name, version=status.model.version) if status and status.model else None,
        cameras_working=working,
        cameras_total=len(status.cameras) if status else 0,
        outbox=shapes.Outbox.model_validate(status.outbox) if status and status.outbox else None,
        frames=shapes.Frames.model_validate(status.frames) if status and status.frames else None,
        answered=[shapes.Answered(mode=mode, n=answered[mode]) for mode in words.MODES if answered.get(mode)],
        warnings=[shapes.Trouble.model_validate(warning, from_attributes=True) for warning in _warnings(status)],
    )


def _warnings(status: Status | None) -> list[words.Trouble]:
    return [words.Trouble(w.code, w.severity, w.text, w.cure) for w in (status.warnings if status else ())]


def _alert(row: AlertRow, stores: Mapping[str, str]) -> shapes.Alert:
    over = row.state == "cleared"
    url = None
    if row.picture_run is not None:
        url = f"{API}/alerts/{quote(row.device, safe='')}/{row.picture_run}/{row.picture_seq}/thumbnail.jpg"
    return shapes.Alert(
        device=row.device,
        run=row.run,
        seq=row.seq,
        camera=row.camera,
        store=stores.get(row.device, ""),
        rule=row.rule,
        state="cleared" if over else "raised",
        label=row.label,
        title=words.title(row.label),
        score=row.score,
        reason=row.reason,
        since=min(row.since, row.captured_at),
        raised_at=None if over else row.captured_at,
        ended_at=row.captured_at if over else None,
        received_at=row.received_at,
        thumbnail_url=url,
    )
