"""From one frame's scores to a decision, with the reason kept: threshold, then n in a row."""

from typing import Literal

from agent.core.value import value

UNKNOWN = "unknown"

State = Literal["confirmed", "pending", "unknown"]


@value
class Standing:
    """What a camera's decision rests on between two frames: the confirmed label, and the one on its way."""

    confirmed: str | None = None
    candidate: str | None = None
    streak: int = 0


@value
class Conclusion:
    """What one frame led to. `label` is the confirmed one as long as another is only on its way."""

    label: str
    state: State
    changed: bool
    reason: str


def hold(standing: Standing, seen: str, score: float, why: str) -> tuple[Standing, Conclusion]:
    """Conclude nothing from a frame whose camera sees nothing; `why` is what is wrong with it."""
    label = standing.confirmed or UNKNOWN
    reason = f"not counted, for {why}: this frame alone would be {seen} ({score:.2f})"
    return Standing(standing.confirmed), Conclusion(label, "pending", changed=False, reason=reason)


def decide(
    standing: Standing, seen: str, score: float, threshold: float, confirm_frames: int
) -> tuple[Standing, Conclusion]:
    """Weigh the best label of one frame; `seen` is `UNKNOWN` when its score was below the threshold.

    A new label must be seen `confirm_frames` times in a row before it is confirmed, `UNKNOWN` like any other.
    """
    known = f"{score:.2f}" if seen != UNKNOWN else f"{score:.2f} is below {threshold:.2f}"
    if seen == standing.confirmed:
        state: State = "unknown" if seen == UNKNOWN else "confirmed"
        return Standing(seen), Conclusion(seen, state, changed=False, reason=f"{seen} as before ({known})")
    streak = standing.streak + 1 if seen == standing.candidate else 1
    if streak >= confirm_frames:
        state = "unknown" if seen == UNKNOWN else "confirmed"
        reason = f"{seen} in {streak} frames in a row ({known})"
        return Standing(seen), Conclusion(seen, state, changed=True, reason=reason)
    still = f"; still {standing.confirmed}" if standing.confirmed else ""
    reason = f"{seen} in {streak} of {confirm_frames} frames ({known}){still}"
    label = standing.confirmed or seen
    return Standing(standing.confirmed, seen, streak), Conclusion(label, "pending", changed=False, reason=reason)
