"""The Fleet page and its API: every device, every rollout, and a hand on the brake."""

from collections import Counter
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from cloud.rollout import words as said
from cloud.rollout.lifecycle import after
from cloud.rollout.rows import DeviceRow, PartRow, Rollout, Rollouts
from cloud.store.rows import AHEAD_S
from cloud.web import fleet_shapes as shapes
from cloud.web import live, pages, problems
from cloud.web.jobs_intake import refuse_foreign_pages
from cloud.web.parts import Shared
from cloud.web.shapes import Presence, Trouble
from wire.records import Status

WHO: Final = "page"
"""Who did it, for the audit: the page is for whoever has a login on the server's machine."""
ROLLOUTS_SHOWN: Final = 10

Action = Literal["pause", "resume", "abort"]
ACTIONS: Final[tuple[Action, ...]] = ("pause", "resume", "abort")

router = APIRouter(tags=["fleet"])
page_router = APIRouter()


def _rollouts(request: Request) -> Rollouts:
    kept = request.app.state.rollouts
    assert isinstance(kept, Rollouts)
    return kept


Kept = Annotated[Rollouts, Depends(_rollouts)]
Name = Annotated[str, Path(max_length=64)]


# -- the API -------------------------------------------------------------------------------------------------------


@router.get("/fleet", responses=problems.documented())
def fleet(rollouts: Kept, shared: Shared) -> shapes.FleetView:
    """All devices with their versions, queues and warnings, and the newest rollouts."""
    now = shared.now()
    return shapes.FleetView(
        now=now,
        devices=[device_shape(row, now) for row in rollouts.devices()],
        rollouts=[rollout_shape(one, rollouts.parts(one.id, now)) for one in rollouts.all(ROLLOUTS_SHOWN)],
    )


@router.get("/fleet/devices/{device}/why", responses=problems.documented(HTTPStatus.NOT_FOUND))
def why(device: Name, rollouts: Kept, shared: Shared) -> shapes.FleetWhy:
    """Why a device has what it has, in a sentence, and the steps that it has told."""
    found = rollouts.devices(device)
    if not found:
        raise problems.not_found("device-unknown", f"no device is called {device!r}", "see /api/v1/fleet")
    text = said.why(found[0], rollouts.history(device), shared.now())
    steps = [shapes.FleetStep.model_validate(step) for step in rollouts.steps(device)]
    return shapes.FleetWhy(device=device, why=text, steps=steps)


@router.get("/fleet/rollouts/{rollout}", responses=problems.documented(HTTPStatus.BAD_REQUEST))
def rollout_with_parts(rollout: Name, rollouts: Kept, shared: Shared) -> shapes.FleetRolloutParts:
    """A rollout with each of its devices."""
    now = shared.now()
    one, parts = rollouts.one(rollout), rollouts.parts(rollout, now)
    told = [shapes.FleetPart.model_validate(part) for part in parts]
    return shapes.FleetRolloutParts(**rollout_shape(one, parts).model_dump(), now=now, parts=told)


@router.post(
    "/fleet/rollouts/{rollout}/{action}",
    dependencies=[Depends(refuse_foreign_pages)],
    responses=problems.documented(HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN),
)
def change(rollout: Name, action: Action, rollouts: Kept, shared: Shared) -> shapes.FleetRollout:
    """Pause, resume or abort a rollout. An abort takes back the orders of devices that are not on trial yet."""
    now = shared.now()
    rollouts.change(rollout, action, "" if action == "resume" else "from the Fleet page", WHO, now)
    return rollout_shape(rollouts.one(rollout), rollouts.parts(rollout, now))


# -- rows into shapes ----------------------------------------------------------------------------------------------


def device_shape(row: DeviceRow, now: datetime) -> shapes.FleetDevice:
    """Put one device together, from its status and from what it reports of its updates."""
    status, reported = _status(row), row.reported or {}
    running = reported.get("model") or (status.model.model_dump() if status and status.model else None)
    spoke = status is not None and (status.state == "online" or status.outbox is not None)
    return shapes.FleetDevice(
        device=row.device,
        store=row.store,
        labels=row.labels,
        presence=_presence(row, now),
        last_heard_at=row.seen_at,
        agent=row.agent or "",
        model=None if running is None else shapes.FleetModel(**_named(running)),
        previous=None if not reported.get("previous") else shapes.FleetModel(**_named(reported["previous"])),
        pinned=bool(reported.get("pinned")),
        updates=[_update(update) for update in reported.get("updates", ())],
        desired_revision=row.revision,
        rows=status.outbox.rows if status and status.outbox else None,
        oldest_age_s=status.outbox.oldest_age_s if status and status.outbox else None,
        clock=status.clock if status and spoke else "unknown",
        clock_ahead_s=(row.status or {}).get(AHEAD_S),
        disk_free_bytes=status.host.disk_free_bytes if status and status.host else None,
        disk_bytes=status.host.disk_bytes if status and status.host else None,
        temperature_c=status.host.temperature_c if status and status.host else None,
        warnings=[
            Trouble(code=w.code, severity=w.severity, text=w.text, cure=w.cure)
            for w in (status.warnings if status else ())
        ],
    )


def _status(row: DeviceRow) -> Status | None:
    try:
        return None if row.status is None else Status.model_validate(row.status, strict=False)
    except ValidationError:
        return None


def _named(model: dict[str, Any]) -> dict[str, Any]:
    return {key: model[key] for key in ("name", "version", "release")}


def _update(update: dict[str, Any]) -> shapes.FleetUpdate:
    return shapes.FleetUpdate(
        what=update["what"], revision=update["revision"], rollout=update.get("rollout") or "", state=update["state"],
        code=update.get("code") or "", text=update.get("text") or "", progress=update.get("progress") or 0.0,
    )  # fmt: skip


def _presence(row: DeviceRow, now: datetime) -> Presence:
    if row.state not in ("online", "offline") or row.seen_at is None:
        return "unknown"
    if row.state == "offline":
        return "offline"
    return "stale" if (now - row.seen_at).total_seconds() > live.DEVICE_STALE_AFTER_S else "online"


def rollout_shape(one: Rollout, parts: list[PartRow]) -> shapes.FleetRollout:
    """Put one rollout together."""
    batches = []
    for number, batch in enumerate(one.chosen.batches):
        counts = Counter(part.state for part in parts if part.batch == number)
        batches.append(
            shapes.FleetBatch(batch=str(batch), open=number <= one.batch, devices=counts.total(), counts=counts)
        )
    return shapes.FleetRollout(
        id=one.id, what=one.what, title=one.title, state=one.state, reason=one.reason, reverts=one.reverts,
        made_by=one.made_by, made_at=one.made_at, batches=batches, counts=one.counts, devices=len(parts),
        offline=sum(part.state in ("waiting", "ordered") and not part.online for part in parts),
        may=[action for action in ACTIONS if after(one.state, action)],
    )  # fmt: skip


# -- the page ------------------------------------------------------------------------------------------------------


@page_router.get("/fleet", response_class=HTMLResponse, include_in_schema=False)
async def fleet_page(shared: Shared) -> HTMLResponse:
    """The Fleet page."""
    html = pages.render("fleet.html", version=shared.version, api=live.API)
    return HTMLResponse(html, headers={"Cache-Control": "no-cache"})
