"""`scripts/bench watch`: how surely the camera watch tells what is wrong, how soon, and how often it errs.

Cameras are rendered, or made from the pictures of a folder: each picture trembles, drifts in its light, is noisy and
compressed, and parts of it are exchanged for parts of others, as when a shelf is filled. Looks come once a second of a
clock that does not wait.
"""

import logging
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import time as clock
from functools import partial
from pathlib import Path
from typing import Any

from agent.camera import synthetic_faults as faults
from agent.camera.looking import COMPARE_EVERY
from agent.camera.synthetic import Scene
from agent.camera.synthetic_sprites import Pixels
from agent.camera.watch import Watch
from agent.config import Camera, WatchRules
from agent.core import watching
from agent.ports import Frame, Stamp

import cv2  # isort: skip
import numpy as np

WIDTH, HEIGHT = 640, 360
WARM_LOOKS = 60
FAULT_LOOKS = 110
FAULT_FROZEN_LOOKS = 200
AFTER_S = 60.0
START_NS = int(datetime(2027, 1, 15).astimezone().timestamp()) * 10**9
RESTOCK_LOOKS = 180
PLAIN_SHIFTS = (0.01, 0.02, 0.06, 0.08)
"""Shifts, in parts of the width, that must be told or must not be: larger ones leave too little to be found again."""
LOOK_MS = 10.0
"""What a look may take: with one a second, a hundredth of a core."""
DAY_EVERY_S = 5
"""Seconds between looks of the day without faults."""

Fault = Callable[[Pixels, int], Pixels]
"""Does something to a picture; the number counts the looks since it began."""
Show = Callable[[int], Pixels]
"""Gives the picture of a look."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing done to a camera. `expected` is what should be told, None for nothing; `strength` is for the table.

    What lies between may be told or not: then `between` holds.
    """

    name: str
    strength: str
    expected: str | None
    fault: Fault
    between: bool = False


class Player:
    """Shows pictures to a watch, one a second, and keeps what it tells."""

    def __init__(self, every_s: float = 1.0, dark_hours: tuple[tuple[clock, clock], ...] = ()) -> None:
        self.told: list[tuple[float, str, str]] = []
        camera = Camera(name="c", url="synthetic:1")
        terms = watching.Terms(after_s=AFTER_S, dark_hours=dark_hours)
        self._watch = Watch([camera], terms, every_s, self._tell, Path("/nonexistent"), lambda _: None, lambda: None)
        self._every_s = every_s
        self._looks = 0

    def _tell(self, frame: Frame, notices: Sequence[watching.Notice], facts: Mapping[str, str]) -> bool:
        del facts
        at_s = (frame.captured.boot_ns - START_NS) / 1e9
        self.told += [(at_s, notice.condition, notice.state) for notice in notices]
        return True

    def show(self, picture: Pixels) -> None:
        """Show one picture."""
        self._looks += 1
        now_ns = START_NS + round(self._looks * self._every_s * 1e9)
        self._watch.see(Frame("c", self._looks, picture, Stamp(now_ns, now_ns)))


def rendered(seed: int) -> Show:
    """A rendered shelf: its crate is emptied and filled with another product every three minutes."""
    scene = Scene(seed, WIDTH, HEIGHT)

    def show(look: int) -> Pixels:
        turn, within = divmod(look, RESTOCK_LOOKS)
        return scene.render(turn * scene.dwell_frames + within % scene.dwell_frames)[0]

    return show


def photographed(pictures: Sequence[Pixels], which: int) -> Show:
    """A camera that looks at a photo; a part of it is exchanged for another photo's every 100 looks."""
    rng = np.random.default_rng(which)
    own, others = pictures[which], [p for n, p in enumerate(pictures) if n != which]

    def show(look: int) -> Pixels:
        turn = look // 100
        picture = own
        if turn and others:
            box = np.random.default_rng((which, turn))
            top, left = int(box.integers(0, HEIGHT // 2)), int(box.integers(0, WIDTH // 2))
            other = others[int(box.integers(len(others)))]
            picture = own.copy()
            part = (slice(top, top + HEIGHT // 2), slice(left, left + WIDTH // 2))
            picture[part] = other[part]
        picture = np.roll(picture, (round(1.2 * math.sin(look / 5)), round(1.6 * math.sin(look / 7))), (0, 1))
        gain = 1 + 0.1 * math.sin(look / 90) + 0.01 * math.sin(look * 1.7)
        noisy = picture * gain + rng.normal(0, 2.5, picture.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    return show


def read_pictures(folder: Path, most: int) -> list[Pixels]:
    """Read some pictures of a folder, evenly spread, cut to the bench's shape."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    found = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        picture = cv2.imread(str(path))
        if picture is None:
            continue
        scale = max(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
        size = (max(WIDTH, round(picture.shape[1] * scale)), max(HEIGHT, round(picture.shape[0] * scale)))
        fitting = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        found.append(np.ascontiguousarray(fitting[:HEIGHT, :WIDTH], np.uint8))
    return found


def _plain(fault: Callable[..., Pixels], *strength: float) -> Fault:
    """Give a fault that does the same at every look."""
    return lambda picture, _: fault(picture, *strength)


def _jpeg(picture: Pixels, _: int, *, quality: int) -> Pixels:
    _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def _noise(picture: Pixels, look: int, *, deviation: float) -> Pixels:
    noise = np.random.default_rng((7, look)).standard_normal(picture.shape, np.float32)
    return np.clip(picture + deviation * noise, 0, 255).astype(np.uint8)


def _less_light(picture: Pixels, look: int, *, gain: float, deviation: float) -> Pixels:
    darker = faults.darken(picture, gain)
    return _noise(darker, look, deviation=deviation) if deviation else darker


def _covered(picture: Pixels, look: int, *, part: float) -> Pixels:
    """Cover a part; every sensor is noisy, also where nothing but a hand is to be seen."""
    return _noise(faults.cover(picture, part, 3), look, deviation=1.5)


class _Frozen:
    """Shows the first picture for ever; with a clock that runs, when the camera writes one into its pictures."""

    def __init__(self, *, clock: bool) -> None:
        self._clock = clock
        self._kept: Pixels | None = None

    def __call__(self, picture: Pixels, look: int) -> Pixels:
        if look == 0 or self._kept is None:
            self._kept = picture
        still = self._kept.copy()
        if self._clock:
            text = f"2027-01-15 08:{look // 60:02d}:{look % 60:02d}"
            cv2.putText(still, text, (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        return still


def _person(picture: Pixels, look: int) -> Pixels:
    """A customer stands close before the camera for 20 seconds of every 60."""
    return faults.cover(picture, 0.7, look // 60) if look % 60 < 20 else picture


def cases() -> list[Case]:
    """Everything that is done to cameras, from nothing to hopeless."""
    found = [Case("nothing wrong", "", None, lambda p, _: p), Case("customer close by", "20 of 60 s", None, _person)]
    for gain in (0.3, 0.1, 0.02):
        expected = watching.BLACK if gain <= 0.02 else None
        found.append(Case("less light", f"x {gain:g}", expected, partial(_less_light, gain=gain, deviation=0.0)))
        if gain in (0.3, 0.1):
            found.append(Case("less light, noisy", f"x {gain:g}", None, partial(_less_light, gain=gain, deviation=4.0)))
    for gain in (1.3, 1.6, 3.0, 5.0, 8.0):
        expected = watching.BLINDED if gain >= 3 else None
        found.append(Case("more light", f"x {gain:g}", expected, _plain(faults.burn, gain), gain == 3))
    for part in (0.2, 0.4, 0.6, 0.75, 0.9, 1.0):
        expected = watching.COVERED if part >= 0.6 else None
        found.append(Case("covered", f"{part:.0%}", expected, partial(_covered, part=part), part == 0.6))
    for sigma in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0):
        expected = watching.BLURRED if sigma >= 1.5 else None
        found.append(Case("out of focus", f"{sigma:g} px", expected, _plain(faults.blur, sigma), 1.5 <= sigma < 4))
    for shift in (0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2):
        expected = watching.MOVED if shift >= 0.04 else None
        found.append(Case("shifted", f"{shift:.0%}", expected, _plain(faults.move, shift), shift not in PLAIN_SHIFTS))
    for turn in (2.0, 4.0, 6.0, 10.0):
        expected = watching.MOVED if turn >= 4 else None
        found.append(Case("turned", f"{turn:g} degrees", expected, _plain(faults.move, 0.0, turn), 4 <= turn < 10))
    found += [Case("JPEG quality", f"{q}", None, partial(_jpeg, quality=q)) for q in (30, 10)]
    found += [Case("noise", f"{d}", None, partial(_noise, deviation=d)) for d in (10, 20)]
    found.append(Case("frozen", "", watching.FROZEN, _Frozen(clock=False)))
    found.append(Case("frozen, clock runs", "", watching.FROZEN, _Frozen(clock=True)))
    return found


def play(case: Case, pictures: Sequence[Pixels]) -> list[tuple[float, str]]:
    """Show a camera as it is, then with the fault; gives what was told, each with the seconds since it began."""
    player = Player()
    for picture in pictures[:WARM_LOOKS]:
        player.show(picture)
    looks = FAULT_FROZEN_LOOKS if case.expected == watching.FROZEN else FAULT_LOOKS
    for look, picture in enumerate(pictures[WARM_LOOKS : WARM_LOOKS + looks]):
        player.show(case.fault(picture, look))
    return [(at_s - WARM_LOOKS, condition) for at_s, condition, state in player.told if state == "raised"]


def measure_cases(found: Sequence[Case], shows: Sequence[Show]) -> Iterator[dict[str, Any]]:
    """Play all cases, camera by camera, so that each picture is made once."""
    told: dict[int, list[list[tuple[float, str]]]] = {n: [] for n in range(len(found))}
    for show in shows:
        pictures = [show(look) for look in range(WARM_LOOKS + FAULT_FROZEN_LOOKS)]
        for n, case in enumerate(found):
            told[n].append(play(case, pictures))
    for n, case in enumerate(found):
        yield _summary(case, told[n])


def _summary(case: Case, told: Sequence[Sequence[tuple[float, str]]]) -> dict[str, Any]:
    hits = [[at_s for at_s, condition in one if condition == case.expected] for one in told]
    delays = [one[0] for one in hits if one]
    wrong = Counter(condition for one in told for condition in {c for _, c in one if c != case.expected})
    return {
        "case": case.name, "strength": case.strength, "expected": case.expected, "between": case.between,
        "cameras": len(told),
        "told": len(delays), "delay_s": statistics.median(delays) if delays else None, "else_told": dict(wrong),
    }  # fmt: skip


def measure_day(seed: int, hours: float = 24.0) -> dict[str, Any]:
    """Watch a rendered camera through a day: dawn, lamps, dusk, restocking and customers close by; no fault."""
    scene, player = Scene(seed, WIDTH, HEIGHT), Player(DAY_EVERY_S, WatchRules().dark_hours)
    rng = np.random.default_rng(seed)
    close_until = 0
    for look in range(round(hours * 3600 / DAY_EVERY_S)):
        hour = look * DAY_EVERY_S / 3600
        sun = max(0.0, math.sin((hour - 6) / 12 * math.pi))
        lamps = 0.8 if 7 <= hour < 21 else 0.04
        picture = scene.render(look)[0]
        if rng.random() < DAY_EVERY_S / 240:  # every four minutes somebody comes close, for up to half a minute
            close_until = look + int(rng.integers(1, 7))
        if look < close_until:
            picture = faults.cover(picture, float(rng.uniform(0.3, 0.9)), look)
        player.show(faults.darken(picture, min(1.0, lamps + 0.35 * sun)))
    return {"hours": hours, "told": player.told}


def measure_cost(show: Show) -> dict[str, float]:
    """Time one look, on one thread, in milliseconds; the comparison of views is spread over its looks."""
    player = Player()
    pictures = [cv2.resize(show(look), (1920, 1080)) for look in range(4)]
    for look in range(2 * COMPARE_EVERY):
        player.show(pictures[look % 4])
    rounds = 20 * COMPARE_EVERY
    began_s = time.thread_time()
    for look in range(rounds):
        player.show(pictures[look % 4])
    return {"look_ms_1080p": (time.thread_time() - began_s) / rounds * 1000}


def run(pictures: Path | None, cameras: int, say: Callable[[str], None], *, days: int = 1) -> list[dict[str, Any]]:
    """Measure everything, case by case."""
    logging.getLogger("agent.camera.watch").setLevel(logging.ERROR)  # it would say each condition as it begins
    if pictures is None:
        shows: list[Show] = [rendered(seed) for seed in range(1, cameras + 1)]
    else:
        read = read_pictures(pictures, cameras)
        shows = [photographed(read, n) for n in range(len(read))]
    found = [measure_cost(shows[0]), *measure_cases(cases(), shows)]
    for seed in range(1, days + 1) if pictures is None else ():
        say(f"  day {seed} of {days}")
        found.append(measure_day(seed))
    return found


def is_met(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every plain fault was told on every camera, and nothing else on any."""
    return all(_is_right(one) for one in found)


def _is_right(one: Mapping[str, Any]) -> bool:
    if "look_ms_1080p" in one:
        return bool(one["look_ms_1080p"] < LOOK_MS)
    if "hours" in one:
        return not one["told"]
    told = one["expected"] is None or one["between"] or one["told"] == one["cameras"]
    return told and not one["else_told"]


def line(found: Mapping[str, Any]) -> str:
    """Write one measurement as a line."""
    if "look_ms_1080p" in found:
        return f"    one look at 1920 x 1080: {found['look_ms_1080p']:.1f} ms of one core"
    if "hours" in found:
        told = ", ".join(f"{c} {s} at {at_s / 3600:.1f} h" for at_s, c, s in found["told"]) or "nothing"
        return f"    a day without a fault: told {told}"
    wanted = found["expected"] or "nothing"
    wanted = f"({wanted})" if found["between"] else wanted
    told = f"{found['told']}/{found['cameras']}" if found["expected"] else "-"
    delay = f"{found['delay_s']:.0f} s" if found["delay_s"] is not None else ""
    other = ", ".join(f"{c} {n}" for c, n in found["else_told"].items())
    return f"    {found['case']:<20}{found['strength']:>12}  {wanted:<18}{told:>7}{delay:>8}  {other}".rstrip()
