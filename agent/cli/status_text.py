"""The status for a person on a ladder: what needs them first, numbers that line up, every trouble with its cure."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.common import table
from agent.config import Config
from agent.core import tallies
from agent.store.inspect import Snapshot
from wire.records import HealthWarning

Lines = list[str]

WIDTH = 100
"""Columns after which a sentence goes on in the next line."""

WAYS = {"serverless": "by the cloud's function", "asynchronous": "by a job of the cloud", "batch": "in the night"}


def write(
    config: Config, snapshot: Snapshot, wrong: Sequence[HealthWarning], now_wall_ns: int, silent_s: float | None
) -> str:
    """Give the whole screen. `now_wall_ns` is the wall clock's time, `silent_s` what `Snapshot.silent_s` gives."""
    device = config.device.id + (f", store {config.device.store}" if config.device.store else "")
    parts: list[tuple[str, Lines]] = [
        ("device", [device]),
        ("state", [_state(wrong)]),
        ("vision", [_vision(snapshot, silent_s)]),
        *_tuning(snapshot, silent_s),
        *_page(snapshot, silent_s),
        ("sync", [_sync(config, snapshot)]),
        ("outbox", [_outbox(snapshot, now_wall_ns)]),
        ("frames", _frames(snapshot.frames)),
    ]
    counters = snapshot.counters
    if config.frames_may_leave or counters["frame:produced"] or any(counters[f"answers:{m}"] for m in tallies.MODES):
        parts += [
            ("answers", _answers(snapshot)),
            ("pictures", _pictures(config, snapshot)),
            ("function", [_function(config, snapshot)]),
        ]
    rows = [(name if n == 0 else "", line) for name, lines in parts for n, line in enumerate(lines)]
    return "\n".join([table(rows), *_cameras(snapshot, silent_s), *_wrong(wrong, snapshot)])


def oldest_age_s(snapshot: Snapshot, now_wall_ns: int) -> float:
    """How long the oldest record that should be on its way has waited, in seconds; 0 when none does."""
    if snapshot.oldest_wall_ns is None:
        return 0.0
    return round(max(0.0, (now_wall_ns - snapshot.oldest_wall_ns) / 1e9), 1)


def _state(wrong: Sequence[HealthWarning]) -> str:
    serious = [warning.code for warning in wrong if warning.severity != "info"]
    if not serious:
        return "all is well"
    return f"{'1 THING NEEDS' if len(serious) == 1 else f'{len(serious)} THINGS NEED'} YOU, see below: " + ", ".join(
        serious
    )


def _tuning(snapshot: Snapshot, silent_s: float | None) -> list[tuple[str, Lines]]:
    """Say how the model runs, and why so."""
    tuning = snapshot.vision.get("tuning")
    if not tuning or not snapshot.vision_runs or silent_s is not None:
        return []
    why = tuning["missing"] + (", it is being measured now" if tuning["measuring"] else "")
    lines = [str(tuning["setup"]), why or str(tuning["reason"])]
    return [("setup", [*lines, *([f"NOT MEASURED: {tuning['trouble']}"] if tuning["trouble"] else [])])]


def _page(snapshot: Snapshot, silent_s: float | None) -> list[tuple[str, Lines]]:
    """Say where the device's own page is, while somebody serves it."""
    page = snapshot.vision.get("page", "")
    return [("page", [page])] if page and snapshot.vision_runs and silent_s is None else []


def _vision(snapshot: Snapshot, silent_s: float | None) -> str:
    if not snapshot.vision_runs:
        return "NOT RUNNING"
    if silent_s is not None:
        return f"NOT REPORTING for {duration(silent_s)}"
    vision = snapshot.vision
    if not vision or vision["stopped"]:
        return "starting"
    model = vision["model"]
    rate = sum(camera["rate_fps"] for camera in vision["cameras"])
    how = vision.get("setup") or vision["runtime"]
    text = f"running, {rate:.1f} frames/s, model {model['name']} {model['version']} on {how}"
    return text + (f"; CANNOT STORE: {vision['store_trouble']}" if vision["store_trouble"] else "")


def _sync(config: Config, snapshot: Snapshot) -> str:
    link = snapshot.sync
    if not snapshot.sync_runs:
        return "NOT RUNNING; everything is kept until it does" if config.cloud.broker else "no broker is configured"
    if not link:
        return "starting"
    if link["connected"]:
        return f"connected to {link['broker']}" + (f", BUT {link['message']} [{link['code']}]" if link["code"] else "")
    reason = f": {link['message']} [{link['code']}]" if link["code"] else ""
    return f"NOT CONNECTED to {link['broker']}{reason}"


def _outbox(snapshot: Snapshot, now_wall_ns: int) -> str:
    if not snapshot.waiting:
        text = "empty"
    else:
        waited = duration(oldest_age_s(snapshot, now_wall_ns))
        text = f"{snapshot.waiting:,} records wait ({size(snapshot.waiting_bytes)}), the oldest for {waited}"
    return text + (f"; {snapshot.dead:,} set aside" if snapshot.dead else "")


def _frames(frames: tallies.Frames) -> Lines:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in frames.dropped.items())
    rows = [(frames.captured, "captured, of these:"), (frames.classified, "answered here")]
    rows += [(frames.serverless, "left to the cloud's function")] if frames.serverless else []
    rows += [(frames.deferred, "left to the night")] if frames.deferred else []
    rows.append((sum(frames.dropped.values()), "dropped" + (f" ({reasons})" if reasons else "")))
    return _numbers(rows)


def _answers(snapshot: Snapshot) -> Lines:
    """Late ones are verdicts: second looks at frames answered here, and submitted pictures, are among them."""
    frames = snapshot.frames
    rows = [(frames.classified, "here, in real time")]
    rows += [(snapshot.counters[f"answers:{mode}"], f"{how} ({mode})") for mode, how in WAYS.items()]
    rows.append((frames.unanswered, "not yet, of the frames left to the cloud"))
    return _numbers(rows)


def _pictures(config: Config, snapshot: Snapshot) -> Lines:
    sealed = snapshot.night
    night = "wait for the night"
    if sealed.files:
        files = "1 file" if sealed.files == 1 else f"{sealed.files:,} files"
        night += f", {sealed.rows:,} of them in {files} to upload, the oldest of {sealed.oldest_day}"
    rows = [(snapshot.waiting_frames, "on their way to the cloud"), (snapshot.for_the_night, night)]
    rows += [(snapshot.dead_frames, "set aside: refused, or lost")] if snapshot.dead_frames else []
    lost = tallies.by_reason(snapshot.counters, "frame:dropped:")
    rows += [(n, f"given up ({reason})") for reason, n in lost.items()]
    rows.append((snapshot.counters["frame:delivered"], "delivered"))
    used = size(snapshot.counters["pictures:bytes"])
    lines = [*_numbers(rows), f"{used} of {size(config.spool.max_bytes)} used"]
    if not config.frames_may_leave:
        lines.append('NONE LEAVES this device: that needs [cloud] api and [privacy] pictures = "frames"')
    return lines


def _function(config: Config, snapshot: Snapshot) -> str:
    function = snapshot.function
    if not config.frames_may_leave:
        return "not asked: pictures may not leave this device"
    if not snapshot.sync_runs:
        return "not asked: sync does not run"
    if not function:
        return "not known yet"
    said = {"up": "ready", "probing": "TRIED AGAIN", "busy": "busy, asked no more for now", "down": "DOES NOT ANSWER"}
    text = said[function["health"]]
    text += f" [{function['reason']}]" if function["reason"] else ""
    closed = snapshot.vision.get("placement", {}).get("function", "")
    if snapshot.vision_runs and closed and function["health"] == "up":
        text += f", but gets no frames now [{closed}]"
    if function["health"] == "up" and function["latency_ms"] is not None:
        text += f", {function['latency_ms']:,.0f} ms per call"
    if function["health"] == "up" and function["usd_per_call"] is not None:
        text += f", {1000 * function['usd_per_call']:.4f} USD per 1,000 calls"
    return text


def _cameras(snapshot: Snapshot, silent_s: float | None) -> Lines:
    cameras = snapshot.vision.get("cameras", [])
    if not cameras:
        return []
    rows = [("camera", "state", "rate", "captured", "dropped")]
    rows += [
        (c["name"], _camera_state(c), f"{c['rate_fps']:.1f}/s",
         f"{c['captured']:,}", f"{c['dropped']:,}")
        for c in cameras
    ]  # fmt: skip
    when = [] if snapshot.vision_runs and silent_s is None else ["when vision last reported:"]
    return ["", *when, *table(rows).splitlines()]


def _camera_state(camera: Mapping[str, Any]) -> str:
    """Give a camera's phase and what is wrong with what it shows; in capitals what needs somebody."""
    phase = camera["phase"].upper() if camera["code"] else camera["phase"]
    wrong = [condition["code"].removeprefix("camera-").upper() for condition in camera.get("conditions", ())]
    return ", ".join([phase, *wrong])


def _wrong(wrong: Sequence[HealthWarning], snapshot: Snapshot) -> Lines:
    lines = []
    for warning in wrong:
        lines += ["", *_wrapped(f"{warning.severity.upper()}: {warning.text} [{warning.code}]")]
        if warning.code == "camera-ill":
            for camera in snapshot.cameras_ill:
                lines += _wrapped(f"  {camera['name']}: {camera['message']} [{camera['code']}]")
                lines += _wrapped(f"    cure: {camera['hint']}")
        elif warning.code == "camera-unsound":
            for condition in (c for camera in snapshot.vision["cameras"] for c in camera.get("conditions", ())):
                lines += _wrapped(f"  {condition['message'].removeprefix('camera ')} [{condition['code']}]")
                lines += _wrapped(f"    cure: {condition['hint']}")
        else:
            lines += _wrapped(f"  cure: {warning.cure}")
    return lines


def _wrapped(line: str) -> Lines:
    """Break a long line, what follows under its text; paths and addresses stay whole."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _numbers(rows: Sequence[tuple[int, str]]) -> Lines:
    """Line numbers up at their right."""
    width = max(len(f"{n:,}") for n, _ in rows)
    return [f"{n:>{width},}  {what}" for n, what in rows]


def size(n_bytes: int) -> str:
    """Write a size for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes} B"


def duration(s: float) -> str:
    """Write how long something took, for people: no more exact than it matters."""
    for unit, unit_s, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if s < most * unit_s:
            return f"{s / unit_s:.0f} {unit}"
    return f"{s / 86_400:.0f} days"
