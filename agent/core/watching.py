"""What is wrong with what a camera shows: rules over measured numbers, with time and hysteresis. No pictures here.

One look at a camera gives a verdict for each condition: bad, good, or unsure (between two thresholds, or not to be
told from this look). A condition begins when looks were bad long enough, none of them good, and ends when they were
good long enough, none of them bad:

    clear --bad--> suspected --bad, long enough--> present --good--> mending --good, long enough--> clear
             suspected --good--> clear                        mending --bad--> present
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import time
from typing import Literal

Condition = Literal[
    "camera-black", "camera-covered", "camera-blinded", "camera-blurred", "camera-moved", "camera-frozen"
]
Verdict = Literal["bad", "good", "unsure"]
Phase = Literal["clear", "suspected", "present", "mending"]

BLACK: Condition = "camera-black"
COVERED: Condition = "camera-covered"
BLINDED: Condition = "camera-blinded"
BLURRED: Condition = "camera-blurred"
MOVED: Condition = "camera-moved"
FROZEN: Condition = "camera-frozen"
CONDITIONS: tuple[Condition, ...] = (BLACK, COVERED, BLINDED, BLURRED, MOVED, FROZEN)

BLACK_BAD, BLACK_GOOD = 0.95, 0.85
"""Part of the picture darker than 16: from the first on it is black, below the second it is not."""
DIM = 0.4
LIT = 0.7
"""Part of the normal brightness from which on the lights are on, also in dark hours."""
DIM_UNKNOWN = 40.0
"""Part of the normal brightness, and brightness while that is not known: below it lost detail is darkness, no cover."""
COVERED_BAD, COVERED_GOOD = 0.4, 0.6
"""Part of the normal detail that is left: up to the first it is covered, from the second on it is not."""
BARE_BAD = 0.1
"""The same as part of the whole picture, for a camera whose normal detail is not known yet."""
BLINDED_BAD, BLINDED_MORE, BLINDED_EASE = 0.4, 0.3, 0.15
"""Part of the picture that is white: at least the first, and by the second more than normal; the third less is good."""
BLURRED_BAD, BLURRED_GOOD = 0.6, 0.75
"""Sharpness as part of the normal one."""
MOVED_BAD, MOVED_GOOD = 0.04, 0.025
"""Shift in parts of the picture's width that most of the view agrees on."""
TURNED_BAD_DEG, TURNED_GOOD_DEG = 4.0, 2.5
"""How far the view is turned about its middle, which shifts little there."""
MOVED_AGREED = 0.2
"""Part of the view that must be found again, in place or moved, before anything is said of its place."""

LOOKS_LEAST = 3
"""Looks that a condition takes to begin and to end, however slow the camera is."""
MEND_S = 15.0
"""A condition ends when all looks were good for this long."""
FROZEN_TIMES = 2.0
"""A frozen picture must last this many times longer: a well compressed still scene repeats itself for some seconds."""
FLAP_S = 3600.0
"""A condition that comes back within this time after its end takes twice as long to begin, at most 16 times."""
FLAPS_MOST = 4

LEARNED_LOOKS = 30
"""Good looks after which a camera's normal counts."""
LEARNING_LOOKS = 1800
"""How many looks the normal remembers: half an hour at one a second."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a camera, in numbers; see `agent.camera.sight` for the first five."""

    brightness: float
    contrast: float
    sharpness: float
    dark: float
    bright: float
    detail: float
    """Part of the camera's normal detail that is there, 0 to 1; of the whole picture while none is known."""
    repeated: bool = False
    """The picture is the same as before, bit by bit, but for a small part that may be a clock."""
    shift: float | None = None
    """How far the view has moved, in parts of its width; None when this look does not tell."""
    turn_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class Normal:
    """What this camera's pictures are like when nothing is wrong, learned from good looks."""

    brightness: float = 0.0
    sharpness: float = 0.0
    bright: float = 0.0
    looks: int = 0
    focus: float = 0.0
    """Sharpness of the commissioning picture; 0 without one."""

    @property
    def known(self) -> bool:
        """Whether enough good looks were seen."""
        return self.looks >= LEARNED_LOOKS


@dataclass(frozen=True, slots=True)
class Course:
    """How far one condition is on one camera. The boot clock counts; the wall time is for people."""

    phase: Phase = "clear"
    since_boot_ns: int = 0
    """When the phase began."""
    looks: int = 0
    """Looks that have carried this phase towards the next."""
    bad_boot_ns: int = 0
    """When a look was bad last."""
    since_wall_ns: int = 0
    """When the condition was first seen."""
    flaps: int = 0
    ended_boot_ns: int | None = None

    @property
    def holds(self) -> bool:
        """Whether the condition has begun and not ended."""
        return self.phase in ("present", "mending")


@dataclass(frozen=True, slots=True)
class Notice:
    """A condition that has begun or ended."""

    condition: Condition
    state: Literal["raised", "cleared"]
    since_wall_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What was configured. `gap_s`: after a longer pause between looks, what is only suspected starts anew."""

    conditions: tuple[Condition, ...] = CONDITIONS
    after_s: float = 60.0
    dark_hours: tuple[tuple[time, time], ...] = ()
    gap_s: float = 10.0


def judge(look: Look, normal: Normal) -> dict[Condition, Verdict]:
    """Give this look's verdict for each condition.

    What cannot be seen because of another condition is unsure: a black picture is neither blurred nor moved.
    """
    dim = _is_dim(look, normal)
    lost = _lost_detail(look, normal)
    black: Verdict = "unsure"
    if look.dark >= BLACK_BAD or (dim and lost == "bad"):
        black = "bad"
    elif look.dark < BLACK_GOOD and not (dim and lost == "unsure"):
        black = "good"
    blinded = _blinded(look, normal)
    covered: Verdict = "unsure" if black == "bad" or blinded == "bad" else lost
    seeing = black == "good" and covered == "good" and not dim
    return {
        BLACK: black,
        COVERED: covered,
        BLINDED: blinded,
        BLURRED: _blurred(look, normal) if seeing else "unsure",
        MOVED: _moved(look) if seeing else "unsure",
        FROZEN: ("bad" if look.repeated else "good") if black == "good" and covered != "bad" else "unsure",
    }


def in_dark_hours(verdicts: Mapping[Condition, Verdict], look: Look, normal: Normal) -> dict[Condition, Verdict]:
    """Take darkness for what it should be, at a time when the shop is dark.

    Cameras then look by emergency lights, or by infrared lamps of their own, which shine back from glass and are in
    focus elsewhere. So nothing is said of glare and focus, and of a cover only when it is as light as by day.
    """
    silent = (BLINDED, BLURRED) if is_lit(look, normal) else (BLINDED, BLURRED, COVERED)
    eased: dict[Condition, Verdict] = {c: "unsure" if v == "bad" and c in silent else v for c, v in verdicts.items()}
    return {**eased, BLACK: "good"}


def is_lit(look: Look, normal: Normal) -> bool:
    """Tell whether it is as light as by day."""
    return normal.known and look.brightness >= LIT * normal.brightness


def _is_dim(look: Look, normal: Normal) -> bool:
    return look.brightness < (DIM * normal.brightness if normal.known else DIM_UNKNOWN)


def _lost_detail(look: Look, normal: Normal) -> Verdict:
    if not normal.known:
        return "bad" if look.detail < BARE_BAD else "good"
    if look.detail <= COVERED_BAD:
        return "bad"
    return "good" if look.detail >= COVERED_GOOD else "unsure"


def _blinded(look: Look, normal: Normal) -> Verdict:
    least = max(BLINDED_BAD, normal.bright + BLINDED_MORE)
    if look.bright >= least:
        return "bad"
    return "good" if look.bright < least - BLINDED_EASE else "unsure"


def _blurred(look: Look, normal: Normal) -> Verdict:
    usual = max(normal.sharpness, normal.focus)
    if not normal.known or usual == 0:
        return "unsure"
    if look.sharpness < BLURRED_BAD * usual:
        return "bad"
    return "good" if look.sharpness >= BLURRED_GOOD * usual else "unsure"


def _moved(look: Look) -> Verdict:
    if look.shift is None:
        return "unsure"
    if look.shift >= MOVED_BAD or abs(look.turn_deg) >= TURNED_BAD_DEG:
        return "bad"
    return "good" if look.shift <= MOVED_GOOD and abs(look.turn_deg) <= TURNED_GOOD_DEG else "unsure"


def is_blind(verdicts: Mapping[Condition, Verdict], look: Look) -> Condition | None:
    """Name what keeps this look from showing anything to be concluded from, also in dark hours and at once."""
    if look.dark >= BLACK_BAD:
        return BLACK
    return next((c for c in (BLACK, COVERED, BLINDED) if verdicts[c] == "bad"), None)


def advance(
    before: Course, verdict: Verdict, boot_ns: int, wall_ns: int, begin_s: float, patience_s: float = 30.0
) -> Course:
    """Advance one condition by one look; it has begun or ended when `holds` differs.

    Bad looks with more than `patience_s` between them, in which all looks were unsure, are not one and the same thing.
    """
    if verdict == "unsure":
        return before
    begun = replace(
        before, phase="suspected", since_boot_ns=boot_ns, since_wall_ns=wall_ns, looks=1, bad_boot_ns=boot_ns
    )
    match before.phase, verdict:
        case "clear", "bad":
            return begun
        case "suspected", "good":
            return replace(before, phase="clear", looks=0)
        case "suspected", "bad":
            if boot_ns - before.bad_boot_ns > patience_s * 1e9:
                return begun
            flaps = _flaps(before)
            if _is_long(before, boot_ns, begin_s * 2**flaps):
                # By the wall clock of now: it may have been set since the first bad look.
                began_ns = max(0, wall_ns - (boot_ns - before.since_boot_ns))
                return replace(
                    before, phase="present", since_boot_ns=boot_ns, since_wall_ns=began_ns, looks=0, flaps=flaps
                )
            return replace(before, looks=before.looks + 1, bad_boot_ns=boot_ns)
        case "present", "good":
            return replace(before, phase="mending", since_boot_ns=boot_ns, looks=1)
        case "mending", "bad":
            return replace(before, phase="present", since_boot_ns=boot_ns, looks=0)
        case "mending", "good":
            if _is_long(before, boot_ns, MEND_S):
                return Course(flaps=before.flaps + 1, ended_boot_ns=boot_ns)
            return replace(before, looks=before.looks + 1)
    return before


def _is_long(course: Course, boot_ns: int, least_s: float) -> bool:
    return course.looks + 1 >= LOOKS_LEAST and boot_ns - course.since_boot_ns >= least_s * 1e9


def _flaps(course: Course) -> int:
    """How often the condition came back of late; forgotten when it stayed away long enough."""
    if course.ended_boot_ns is None or course.since_boot_ns - course.ended_boot_ns > FLAP_S * 1e9:
        return 0
    return min(course.flaps, FLAPS_MOST)


def begin_s(condition: Condition, terms: Terms) -> float:
    """Give how long looks must be bad before a condition begins."""
    return terms.after_s * (FROZEN_TIMES if condition == FROZEN else 1.0)


def patience_s(begin_s: float, between_s: float) -> float:
    """Give how far apart bad looks may be, with so many seconds from look to look: the view is compared seldom."""
    return max(begin_s / 2, 15 * between_s)


def after_a_gap(courses: Mapping[Condition, Course]) -> dict[Condition, Course]:
    """Take up a camera again that gave no pictures for a while: what was only suspected, is no longer."""
    return {
        c: replace(course, phase="clear") if course.phase == "suspected" else course for c, course in courses.items()
    }


def set_up(normal: Normal, look: Look | None) -> Normal:
    """Begin anew with the picture of how the camera was set up; None: there is none any more."""
    if look is None:
        return replace(normal, focus=0.0)
    return Normal(look.brightness, look.sharpness, look.bright, LEARNED_LOOKS, look.sharpness)


def learn(normal: Normal, look: Look, verdicts: Mapping[Condition, Verdict]) -> Normal:
    """Take one more good look into what is normal; a look with anything wrong or unsure in it teaches nothing."""
    if not teaches(normal, look, verdicts):
        return normal
    weight = 1.0 / min(normal.looks + 1, LEARNING_LOOKS)

    def mix(old: float, new: float) -> float:
        return old + weight * (new - old)

    return Normal(
        mix(normal.brightness, look.brightness),
        mix(normal.sharpness, look.sharpness),
        mix(normal.bright, look.bright),
        normal.looks + 1,
        normal.focus,
    )


def teaches(normal: Normal, look: Look, verdicts: Mapping[Condition, Verdict]) -> bool:
    """Whether a look shows the camera as it should be, by day. What is not judged at every look does not count."""
    spoils: Iterable[Condition] = (BLACK, COVERED, BLINDED, BLURRED)
    if any(verdicts[c] == "bad" for c in spoils) or look.dark >= BLACK_GOOD:
        return False
    if not normal.known:
        return True
    return verdicts[BLURRED] == "good" and verdicts[COVERED] == "good"


def explain(condition: Condition, camera: str, look: Look, normal: Normal) -> tuple[str, str]:
    """Say for a person what is wrong with a camera, and the cure."""
    aim, commission = f"shelfwire-agent aim {camera}", f"shelfwire-agent snap --commission {camera}"
    match condition:
        case "camera-black":
            said = "it sees nothing but darkness"
            cure = (
                "switch the light on or free its lens; if the shop is dark at this time, say so in [watch] dark_hours"
            )
        case "camera-covered":
            said = (
                f"it is covered by something: {100 * (1 - look.detail):.0f} % of what it normally shows cannot be seen"
            )
            cure = "take away what stands or sticks before its lens, and clean the lens"
        case "camera-blinded":
            said = f"it is blinded by light: {100 * look.bright:.0f} % of its picture is white"
            cure = "keep sun and lamps from shining into it, or turn its exposure down"
        case "camera-blurred":
            part = look.sharpness / (max(normal.sharpness, normal.focus) or 1.0)
            said = f"it is out of focus: {100 * part:.0f} % of its usual sharpness is left"
            cure = f"clean its lens and set its focus: {aim} shows it live"
        case "camera-moved":
            turned = f" and turned by {abs(look.turn_deg):.0f} degrees" if abs(look.turn_deg) >= 1 else ""
            said = f"it looks elsewhere: its view has moved by {100 * (look.shift or 0):.0f} % of its width{turned}"
            cure = f"turn it back ({aim} shows it live), or keep the new view: {commission}"
        case "camera-frozen":
            said = "it shows the same picture again and again"
            cure = "switch the camera off and on; if it comes back, put newer software into the camera"
    return f"camera {camera}: {said}", cure
