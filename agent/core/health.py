"""Health as values: what is wrong with this device now, how bad it is, and the cure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.core.backlog import Backlog
from wire.records import HealthWarning

REPORT_TIMEOUT_S = 10.0
"""Vision reports every second or two; after this long it is taken for dead."""

SPOOL_FULL_BYTES = 1 << 20
"""With less room than for some pictures the spool is called full."""

CERTIFICATE_SOON_S = 20 * 86_400.0
"""Renewal begins 30 days before the end; with less than this left it has failed for days."""

ClockTrust = Literal["synced", "unsure"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What sync knows about the device."""

    vision_age_s: float | None
    """Seconds since vision's last report; None when it never reported or said goodbye."""
    store_trouble: str
    evicted: int
    dead: int
    clock: ClockTrust
    cameras: int
    cameras_ill: tuple[str, ...]
    cameras_unsound: tuple[str, ...] = ()
    """Cameras that give pictures and do not show what they should, each with what is wrong: see `unsound`."""
    function_down: str = ""
    """Why the cloud's function answers no frames; empty when it does, and when none is asked."""
    spool_full: bool = False
    frames_refused: int = 0
    """Frames that the cloud refused for good, or whose pictures were lost; `dead` counts them too."""
    night: Backlog | None = None
    """What waits for the night; None when nothing of it may leave."""
    wall_ns: int = 0
    certificate_left_s: float | None = None
    """How long this device's certificate counts yet; None where it has none."""
    renewal: str = ""
    """Why the last try to renew it failed; empty when it did not."""
    fallen_back: tuple[Mapping[str, str], ...] = ()
    """Where the model runs otherwise than was asked for: notes of the classifier, with code, message and hint."""
    vision_silent_s: float | None = None
    """Seconds since the last report of a vision process that is there; None when that is not long, or not known."""


def vision_runs(facts: Facts) -> bool:
    """Whether vision's last report is fresh."""
    return facts.vision_age_s is not None and facts.vision_age_s <= REPORT_TIMEOUT_S


def unsound(cameras: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Name the cameras of vision's report that do not show what they should: "door (covered, moved)"."""
    found = []
    for camera in cameras:
        codes = [condition["code"].removeprefix("camera-") for condition in camera.get("conditions", ())]
        if codes and camera["phase"] not in ("failed", "stalled"):
            found.append(f"{camera['name']} ({', '.join(codes)})")
    return tuple(found)


def warnings(facts: Facts) -> tuple[HealthWarning, ...]:
    """List what is wrong, the worst first. What follows from something listed is not listed again."""
    found = []
    if facts.vision_silent_s is not None:
        found.append(
            HealthWarning(
                code="vision-silent",
                severity="failure",
                text=f"vision's process is there, but has not reported for {facts.vision_silent_s:.0f} s",
                cure="see whether it, or sync, which shares its store, was halted; else start it anew:"
                " systemctl restart shelfwire-vision; its log may say what hangs",
            )
        )
    elif not vision_runs(facts):
        found.append(
            HealthWarning(
                code="vision-stopped",
                severity="failure",
                text="no frames are classified: vision does not run",
                cure="start it: systemctl start shelfwire-vision, or shelfwire-agent vision; its log says why it ended",
            )
        )
    elif facts.cameras_ill:
        severity: Literal["warning", "failure"] = "failure" if len(facts.cameras_ill) == facts.cameras else "warning"
        found.append(
            HealthWarning(
                code="camera-ill",
                severity=severity,
                text=f"{len(facts.cameras_ill)} of {facts.cameras} cameras give no pictures: "
                + ", ".join(facts.cameras_ill)[:160],
                cure="see each camera's own code and cure",
            )
        )
    if facts.cameras_unsound and vision_runs(facts):
        found.append(
            HealthWarning(
                code="camera-unsound",
                severity="warning",
                text=f"{len(facts.cameras_unsound)} of {facts.cameras} cameras do not show what they should: "
                + ", ".join(facts.cameras_unsound)[:160],
                cure="see each camera's own code and cure",
            )
        )
    if facts.fallen_back and vision_runs(facts):
        note, more = facts.fallen_back[0], len(facts.fallen_back) - 1
        also = f" (and {more} more: see shelfwire-agent doctor model)" if more else ""
        found.append(
            HealthWarning(
                code="model-fallback",
                severity="warning",
                text=f"the model runs otherwise than was asked for{also}: {note['message']}"[:256],
                cure=(note["hint"] or "see shelfwire-agent doctor model")[:256],
            )
        )
    if facts.store_trouble:
        found.append(
            HealthWarning(
                code="store-trouble",
                severity="failure",
                text=f"results cannot be stored: {facts.store_trouble}"[:256],
                cure="free disk space; frames are dropped and counted until then",
            )
        )
    if facts.certificate_left_s is not None:
        found += _certificate(facts.certificate_left_s, facts.renewal)
    if facts.function_down:
        found.append(
            HealthWarning(
                code="function-down",
                severity="warning",
                text=f"the cloud's function does not answer ({facts.function_down}): what this device cannot take in"
                " time waits for the night"[:256],
                cure="check [cloud] api and that shelfwire-cloud serve has its --function; it is tried again by itself",
            )
        )
    if facts.spool_full:
        found.append(
            HealthWarning(
                code="spool-full",
                severity="warning",
                text="there is no room for more pictures: frames that this device cannot take are dropped and counted",
                cure="restore the connection, free disk space, or raise [spool] max_bytes",
            )
        )
    found += _night(facts.night, facts.wall_ns) if facts.night is not None else []
    if facts.frames_refused:
        found.append(
            HealthWarning(
                code="frames-refused",
                severity="warning",
                text=f"{_many(facts.frames_refused, 'picture')} refused by the cloud for good, or lost, and set aside",
                cure="see why with shelfwire-agent outbox list --dead; once the cloud is mended: outbox retry --all",
            )
        )
    dead = facts.dead - facts.frames_refused
    if dead > 0:
        found.append(
            HealthWarning(
                code="dead-letters",
                severity="warning",
                text=f"{_many(dead, 'record')} refused by the cloud for good and set aside",
                cure="see why with shelfwire-agent outbox list --dead; once the cloud is mended: outbox retry --all",
            )
        )
    if facts.evicted:
        found.append(
            HealthWarning(
                code="outbox-evicted",
                severity="warning",
                text=f"{_many(facts.evicted, 'waiting record')} thinned out to stay within the limits",
                cure="restore the connection, or raise [outbox] max_bytes",
            )
        )
    if facts.clock == "unsure":
        found.append(
            HealthWarning(
                code="clock-unsure",
                severity="info",
                text="no time server keeps this device's clock; the cloud dates its records by their age",
                cure="allow NTP, for example systemd-timesyncd",
            )
        )
    return tuple(found)


def _certificate(left_s: float, renewal: str) -> list[HealthWarning]:
    why = renewal or "it was off, or without a network, when it should have been renewed"
    new_code = (
        "a new code from the operator (shelfwire-cloud fleet device add NAME --replace), then shelfwire-agent enroll"
    )
    if left_s <= 0:
        return [
            HealthWarning(
                code="certificate-expired",
                severity="failure",
                text=f"nothing is sent, everything is kept: this device's certificate has ended ({why})"[:256],
                cure=f"see that the clock is right; then {new_code}"[:256],
            )
        ]
    if left_s < CERTIFICATE_SOON_S:
        return [
            HealthWarning(
                code="certificate-ends-soon",
                severity="warning",
                text=f"this device's certificate ends in {left_s / 86_400:.0f} days and could not be renewed: {why}"[
                    :256
                ],
                cure=f"let the device reach [cloud] api; it tries by itself. After the end: {new_code}"[:256],
            )
        ]
    return []


def _night(night: Backlog, wall_ns: int) -> list[HealthWarning]:
    found = []
    if night.upload_is_late(wall_ns):
        files = "1 file of the night waits" if night.files == 1 else f"{night.files:,} files of the night wait"
        why = night.error or "no window was long enough, or sync did not run in it"
        found.append(
            HealthWarning(
                code="night-late",
                severity="warning",
                text=f"{files} for the upload, the oldest of {night.oldest_day}: {why}"[:256],
                cure="see shelfwire-agent nightly --list; check the network at night, [batch] window and"
                " bytes_per_second, and that shelfwire-cloud serve has its --objects",
            )
        )
    if night.sealing_is_late(wall_ns):
        pictures = "1 picture waits" if night.unsealed == 1 else f"{night.unsealed:,} pictures wait"
        found.append(
            HealthWarning(
                code="night-unsealed",
                severity="warning",
                text=f"{pictures} for the night, and nobody seals them: their day is long over",
                cure="run shelfwire-agent nightly now, and let a timer do it every night",
            )
        )
    return found


def alone(link: Mapping[str, Any], *, sync_runs: bool) -> tuple[HealthWarning, ...]:
    """Say what keeps the device from the cloud, for a person at the device: the cloud cannot be told.

    `link` is what sync last said of its connection, empty when it has said nothing.
    """
    if not sync_runs:
        return (
            HealthWarning(
                code="sync-stopped",
                severity="warning",
                text="nothing is sent, everything is kept: sync does not run",
                cure="start it: systemctl start shelfwire-sync, or shelfwire-agent sync; its log says why it ended",
            ),
        )
    if not link.get("code"):
        return ()
    text = f"nothing is sent, everything is kept: {link['message']}"
    return (
        HealthWarning(
            code=link["code"][:48], severity="warning", text=text[:256], cure=(link["hint"] or "see sync's log")[:256]
        ),
    )


def _many(n: int, what: str) -> str:
    return f"1 {what} was" if n == 1 else f"{n:,} {what}s were"
