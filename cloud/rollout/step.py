"""One step of a rollout in the store: hear what the devices have said, ask the rules, do what they say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cloud.rollout import audit, rows
from cloud.rollout.lifecycle import OVER, SAID, Part, part_after
from cloud.rollout.rows import Connection, PartRow, Rollout
from cloud.rollout.rules import Doing, Standing, Step, next_step, shop_key

CONDUCTOR: Final = "conductor"
"""Who does it, for the audit."""


def outrun(connection: Connection) -> list[str]:
    """Raise the orders of devices that have seen a higher revision than is kept here, as after a backup came back."""
    devices = [device for (device,) in connection.execute(rows.SQL["outrun"]).fetchall()]
    for device in devices:
        row = connection.execute(rows.SQL["raise"], {"device": device}).fetchone()
        if row is not None:
            connection.execute(rows.SQL["raise_part"], {"device": device, "revision": row[0]})
    return devices


def advance(connection: Connection, rollout: str, now: datetime) -> Step:
    """Move an open rollout on, in the caller's transaction."""
    one = rows.read_one(connection, rollout, hold=True)
    if one.state in OVER:
        return Step(Standing(one.state, one.batch))  # A command ended it after the conductor had looked.
    parts = {part.device: part for part in hear(connection, one, now)}
    taken = {
        shop_key(device, store)
        for device, store in connection.execute(rows.SQL["under_way_elsewhere"], {"rollout": rollout}).fetchall()
    }
    standing = Standing(one.state, one.batch, one.good_since)
    step = next_step(standing, [_doing(one, part) for part in parts.values()], one.chosen, now, taken)
    _do(connection, one, parts, step, now)
    return step


def hear(connection: Connection, one: Rollout, now: datetime) -> list[PartRow]:
    """Take what devices have said into their parts, and give these."""
    audit.hold(connection)
    heard: list[PartRow] = []
    for part in rows.read_parts(connection, one.id, now):
        told = _told(one, part)
        new = part if told is None else _after(part, told, now)
        if new is not part:
            rows.write_part(connection, one.id, new)
            if new.state != part.state:
                audit.append(
                    connection, now, part.device, new.state, one.id, devices=[part.device], old=part.state,
                    code=new.code, text=new.text,
                )  # fmt: skip
        heard.append(new)
    return heard


def _told(one: Rollout, part: PartRow) -> Mapping[str, Any] | None:
    """Find what a device last said of its order in this rollout, or of a newer one that repeats it."""
    if part.revision is None or part.reported is None:
        return None
    for update in part.reported.get("updates", ()):
        same = update["what"] == one.what and update["revision"] >= part.revision
        target = update.get("target")
        if same and (one.what == "config" or not target or target["digest"] == one.target["digest"]):
            found: Mapping[str, Any] = update
            return found
    runs, trying = part.reported.get("model") or {}, [u["state"] for u in part.reported.get("updates", ())]
    if part.state == "dropped" and runs.get("digest") == one.target.get("digest") and "trial" not in trying:
        return {"state": "committed"}  # The newer order that was to take it back is all that it still speaks of.
    return None


def _after(part: PartRow, told: Mapping[str, Any], now: datetime) -> PartRow:
    event = SAID.get(told["state"])
    into: Part | None = None if event is None else part_after(part.state, event)  # type: ignore[arg-type]
    new = replace(
        part, state=into or part.state, ended_at=now if into is not None else part.ended_at,
        update_state=told["state"], progress=told.get("progress", 0.0), code=told.get("code") or "",
        text=told.get("text", ""), numbers=told.get("numbers", {}),
    )  # fmt: skip
    return part if new == part else new


def _doing(one: Rollout, part: PartRow) -> Doing:
    return Doing(
        part.device, part.store, part.batch, part.place, part.state,  # type: ignore[arg-type]
        part.ordered_at, _told(one, part) is not None, part.online and not part.shut_out, part.busy,
    )  # fmt: skip


def _do(connection: Connection, one: Rollout, parts: dict[str, PartRow], step: Step, now: datetime) -> None:
    deadline_at = now + timedelta(seconds=one.chosen.deadline_s)
    for device in step.silent:
        text = "nothing was heard of its end by the deadline"
        rows.write_part(
            connection, one.id, replace(parts[device], state="silent", ended_at=now, code="silent", text=text)
        )
    for device in step.take_back:
        rows.take_back(connection, parts[device], now)
        rows.write_part(
            connection, one.id, replace(parts[device], state="waiting", revision=None, ordered_at=None, former=None)
        )
    for device in step.order:
        rows.write_part(connection, one.id, rows.order(connection, one, parts[device], now, deadline_at))
    for what, devices in (("silent", step.silent), ("take-back", step.take_back), ("order", step.order)):
        if devices:
            audit.append(connection, now, CONDUCTOR, what, one.id, devices=list(devices))
    _stand(connection, one, step, now)


def _stand(connection: Connection, one: Rollout, step: Step, now: datetime) -> None:
    """Write where the rollout is now, and tell the audit of every change of its state or batch."""
    into = step.standing
    if into.state != one.state and into.state in ("aborted", "finished"):
        rows.end(connection, one, into.state, step.reason, CONDUCTOR, now)
        return
    if one.state == "paused" and into.state == "paused":
        return  # The reason of whoever paused it stays.
    if (into.state, into.batch, into.good_since, step.reason) == (one.state, one.batch, one.good_since, one.reason):
        return
    connection.execute(rows.SQL["set_state"], {
        "id": one.id, "state": into.state, "batch": into.batch, "good_since": into.good_since, "reason": step.reason,
        "now": now,
    })  # fmt: skip
    if (into.state, into.batch) != (one.state, one.batch):
        said = {"old": [one.state, one.batch], "new": [into.state, into.batch], "reason": step.reason}
        audit.append(connection, now, CONDUCTOR, "move", one.id, **said)
