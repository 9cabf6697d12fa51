"""One frame's records, as the outbox takes them: its result, its alerts, and what goes with its picture."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from functools import partial
from typing import Any, Protocol

from agent.core import alerting, decide, records, watching
from agent.overflow import Job
from agent.ports import Clock, ClockTrust, Draft, Frame, Lane, Later, Spooled, Stamp
from models import Answer

log = logging.getLogger(__name__)

SET_NS = 10**9
"""A wall clock that has moved by so much against the boot clock was set: a clock is slewed by 0.5 ms in a second."""


class Pictures(Protocol):
    """Where last pictures are shown, as far as privacy allows."""

    def show(self, frame: Frame) -> None:
        """Show the newest picture of a camera, when it is time for a new one."""
        ...

    def thumbnail(self, frame: Frame) -> str | None:
        """Make a small JPEG in base64, or None when pictures must not leave the shop."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What was configured: when an answer counts and who must be told."""

    threshold: float
    confirm_frames: int
    top: int
    rules: tuple[alerting.Rule, ...]
    model: Mapping[str, Any]
    runtime: str


class Drafts:
    """Makes drafts. Any thread may ask."""

    def __init__(self, policy: Policy, pictures: Pictures, clock: Clock) -> None:
        self._policy = policy
        self._pictures = pictures
        self._clock = clock

    def _trust(self, captured: Stamp) -> ClockTrust:
        """Tell whether the wall clock can be believed for a frame: not when it was set since that was captured."""
        now = self._clock.now()
        moved_ns = (now.wall_ns - now.boot_ns) - (captured.wall_ns - captured.boot_ns)
        return self._clock.trust() if abs(moved_ns) < SET_NS else "unsure"

    def result(
        self, frame: Frame, answer: Answer, conclusion: decide.Conclusion, waiting_ms: float, total_ms: float
    ) -> Later:
        """Leave the record of the device's own answer to the store's thread."""
        about = (frame.camera, frame.number, frame.captured, frame.truth)
        return partial(self._result, *about, answer, conclusion, waiting_ms, total_ms)

    def _result(
        self,
        camera: str,
        number: int,
        captured: Stamp,
        truth: str | None,
        answer: Answer,
        conclusion: decide.Conclusion,
        waiting_ms: float,
        total_ms: float,
    ) -> Draft:
        trust = self._trust(captured)
        body = records.result_body(
            records.Origin(camera, number, captured.wall_ns, captured.boot_ns, trust),
            labels=answer.top,
            conclusion=conclusion,
            model=dict(self._policy.model),
            runtime=answer.runtime or self._policy.runtime,
            waiting_ms=waiting_ms,
            inference_ms=answer.inference_ms,
            total_ms=total_ms,
            truth=truth,
        )
        return Draft("result", Lane.RESULT, body, captured, trust)

    def alerts(
        self,
        frame: Frame,
        answer: Answer,
        conclusion: decide.Conclusion,
        before: Mapping[str, alerting.Watch],
    ) -> tuple[dict[str, alerting.Watch], list[Draft]]:
        """Advance every rule that looks at this camera; gives the new watches and the alerts to send."""
        watches: dict[str, alerting.Watch] = {}
        drafts: list[Draft] = []
        captured = frame.captured
        for rule in self._policy.rules:
            if rule.cameras and frame.camera not in rule.cameras:
                continue
            watches[rule.name], change = alerting.watch(
                rule,
                before.get(rule.name, alerting.Watch()),
                conclusion,
                1.0 if rule.label == decide.UNKNOWN else answer.score,
                captured.boot_ns,
                captured.wall_ns,
                bool(rule.quiet) and alerting.is_quiet(rule.quiet, _local_time(captured)),
            )
            if change is not None:
                drafts.append(self._alert(frame, answer, rule, change))
        return watches, drafts

    def _alert(self, frame: Frame, answer: Answer, rule: alerting.Rule, change: alerting.Change) -> Draft:
        trust = self._trust(frame.captured)
        log.info("camera %s: alert %s %s: %s", frame.camera, rule.name, change.state, change.reason)
        body = records.alert_body(
            _origin(frame, trust),
            rule=rule.name,
            change=change,
            label=rule.label,
            score=answer.score,
            thumbnail=self._pictures.thumbnail(frame) if change.state == "raised" else None,
        )
        return Draft("alert", Lane.ALERT, body, frame.captured, trust)

    def notice(self, frame: Frame, notice: watching.Notice) -> Draft:
        """Make the alert that says that a camera's condition has begun or ended."""
        trust = self._trust(frame.captured)
        body = records.alert_body(
            _origin(frame, trust),
            rule=notice.condition,
            change=alerting.Change(notice.state, notice.since_wall_ns, notice.text),
            label=notice.condition,
            score=1.0,
            thumbnail=self._pictures.thumbnail(frame) if notice.state == "raised" else None,
        )
        return Draft("alert", Lane.ALERT, body, frame.captured, trust)

    def picture(self, job: Job, spooled: Spooled, size: tuple[int, int]) -> Draft:
        """Make the record of a picture that lies in the spool; `size` is its width and height."""
        frame, trust = job.frame, self._trust(job.frame.captured)
        body = records.frame_body(
            _origin(frame, trust),
            size=size,
            reason=job.reason,
            answer=job.answer,
            truth=frame.truth,
        )
        return Draft("frame", job.lane, body, frame.captured, trust, spooled, job.expires_ns)

    def own_answer(self, answer: Answer, seen: str) -> dict[str, Any]:
        """Put together what a copy says of the device's own answer; `seen` is this frame's label alone."""
        runtime = answer.runtime or self._policy.runtime
        return records.own_answer(seen=seen, labels=answer.top, model=dict(self._policy.model), runtime=runtime)


def _local_time(captured: Stamp) -> time:
    return datetime.fromtimestamp(captured.wall_ns / 1e9).astimezone().time()


def _origin(frame: Frame, trust: ClockTrust) -> records.Origin:
    return records.Origin(frame.camera, frame.number, frame.captured.wall_ns, frame.captured.boot_ns, trust)
