"""The life of an update on this device: one table of (state, event) -> state. Whatever changes an update asks here.

A bad model must be impossible to keep: the only way to `committed` leads through every gate, the shadow and the trial,
and from each state there is a way out that leaves the former model where it was. docs/updates.md draws the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

What = Literal["model", "config"]
State = Literal[
    "idle", "offered", "deferred", "downloading", "verified", "compiled", "golden", "shadow", "trial", "committed",
    "rejected", "failed", "rolled-back",
]  # fmt: skip
Event = Literal[
    "order", "defer", "fetch", "confirm", "verify", "compile", "match", "watch", "activate", "commit", "restart",
    "reject", "fail", "roll-back",
]  # fmt: skip
Owner = Literal["sync", "vision"]

STATES: Final[tuple[State, ...]] = get_args(State)
EVENTS: Final[tuple[Event, ...]] = get_args(Event)

_BEFORE_THE_TRIAL: Final[tuple[State, ...]] = (
    "offered", "deferred", "downloading", "verified", "compiled", "golden", "shadow",
)  # fmt: skip
_REJECTED: Final[State] = "rejected"
_FAILED: Final[State] = "failed"

TABLE: Final[Mapping[tuple[State, Event], State]] = {
    ("idle", "order"): "offered",
    ("committed", "order"): "offered",
    ("rejected", "order"): "offered",
    ("failed", "order"): "offered",
    ("rolled-back", "order"): "offered",
    ("offered", "confirm"): "committed",  # it runs already
    ("deferred", "confirm"): "committed",
    ("offered", "defer"): "deferred",
    ("deferred", "defer"): "deferred",  # for another reason
    ("downloading", "defer"): "deferred",
    ("offered", "fetch"): "downloading",
    ("deferred", "fetch"): "downloading",
    ("downloading", "verify"): "verified",
    ("offered", "verify"): "verified",  # settings came with the order
    ("deferred", "verify"): "verified",
    ("verified", "compile"): "compiled",
    ("compiled", "match"): "golden",
    ("golden", "watch"): "shadow",
    ("shadow", "activate"): "trial",
    ("verified", "activate"): "trial",  # settings have no gates but their check
    ("trial", "commit"): "committed",
    # The process that tried it ended: what it had measured is gone with it.
    ("compiled", "restart"): "verified",
    ("golden", "restart"): "verified",
    ("shadow", "restart"): "verified",
    **{(state, "reject"): _REJECTED for state in _BEFORE_THE_TRIAL},  # whoever made it must change it
    **{(state, "fail"): _FAILED for state in _BEFORE_THE_TRIAL},  # the same order may work another time
    ("trial", "roll-back"): "rolled-back",
    ("committed", "roll-back"): "rolled-back",  # by a technician
}

ONLY: Final[Mapping[tuple[State, Event], What]] = {
    ("offered", "fetch"): "model",
    ("deferred", "fetch"): "model",
    ("downloading", "defer"): "model",
    ("downloading", "verify"): "model",
    ("offered", "verify"): "config",
    ("deferred", "verify"): "config",
    ("verified", "compile"): "model",
    ("verified", "activate"): "config",
}
"""Steps that only one kind of update takes: a model cannot come to its trial but through the gates."""

OVER: Final[tuple[State, ...]] = ("idle", "committed", "rejected", "failed", "rolled-back")
"""States in which nothing is under way."""

NEW_ANSWERS: Final[tuple[State, ...]] = ("trial", "committed")
"""States in which the ordered model is the one that answers; in all others it is the one before."""


@dataclass(frozen=True, slots=True)
class Post:
    """Who alone moves an update on from a state, how long it may stay (None: for ever), and what ends it then."""

    owner: Owner
    limit_s: float | None = None
    ends: Event | None = None


DAY_S: Final = 86_400.0
POSTS: Final[Mapping[State, Post]] = {
    "idle": Post("sync"),
    "offered": Post("sync", DAY_S, "fail"),
    "deferred": Post("sync", 14 * DAY_S, "fail"),
    "downloading": Post("sync", 7 * DAY_S, "fail"),
    "verified": Post("vision", 7 * DAY_S, "fail"),
    "compiled": Post("vision", 300.0, "fail"),
    "golden": Post("vision", 300.0, "fail"),
    "shadow": Post("vision", 1_800.0, "fail"),
    "trial": Post("vision", 7_200.0, "roll-back"),
    "committed": Post("sync"),
    "rejected": Post("sync"),
    "failed": Post("sync"),
    "rolled-back": Post("sync"),
}
"""The order's own deadline ends sync's states sooner; the configuration sets the limits of shadow and trial."""


@dataclass(frozen=True, slots=True)
class Code:
    """An end of an update, or why it waits: the event it comes with, what it means, what a person does about it."""

    event: Event
    meaning: str
    cure: str


CODES: Final[Mapping[str, Code]] = {
    "update-window": Code("defer", "it waits for the hours in which it may be fetched or applied", "wait"),
    "update-space": Code(
        "defer", "the disk has no room for it", "free disk space; the device tries again by itself"
    ),
    "update-net": Code(
        "defer", "the model repository cannot be reached", "check the network: shelfwire-agent net"
    ),
    "update-pinned": Code("defer", "a technician holds the model as it is", "shelfwire-agent model unpin"),
    "update-signature": Code(
        "reject", "it is not signed by whom this device trusts", "publish it again with the fleet's keys"
    ),
    "update-digest": Code(
        "reject", "what came is not what was ordered or signed", "publish it again, and order what was published"
    ),
    "update-expired": Code(
        "reject", "the repository's signatures have run out", "shelfwire-cloud fleet refresh"
    ),
    "update-clock": Code(
        "reject", "this device's clock is wrong, so that signatures cannot be judged", "set the clock (NTP)"
    ),
    "update-rollback": Code(
        "reject", "it is older than what this device has had", "publish the old files as a new, higher release"
    ),
    "update-missing": Code("defer", "the repository does not have a file that it names", "publish it again"),
    "update-metadata": Code("defer", "the repository's metadata is not complete", "shelfwire-cloud fleet refresh"),
    "update-stopped": Code("defer", "the agent was stopped meanwhile", "none needed"),
    "update-off": Code("reject", "this device knows no repository", "set [update] repository, or [cloud] api"),
    "update-root": Code(
        "reject", "this device has no root of trust, or not that of the repository", "give it the fleet's root.json"
    ),
    "update-unlisted": Code("reject", "the repository does not offer it", "order one that is published"),
    "update-differs": Code("reject", "the repository has another bundle of that release", "order what was published"),
    "update-size": Code("reject", "it is larger than a model may be", "pack the bundle again"),
    "update-path": Code(
        "reject", "a file of the bundle lies outside it, or is a link", "pack the bundle again from clean files"
    ),
    "update-bundle": Code(
        "reject", "the bundle cannot be read", "pack the bundle again: python -m models.pack FOLDER"
    ),
    "update-incompatible": Code(
        "reject", "it does not fit this device or its alert rules", "order a bundle made for this device"
    ),
    "update-compile": Code(
        "reject", "this device cannot load the model", "try it where it is made, with the same runtime"
    ),
    "update-golden": Code(
        "reject", "it does not answer its own golden pictures as it should", "check labels and export of the model"
    ),
    "update-slow": Code("reject", "it is too slow for this device", "order a smaller model"),
    "update-memory": Code("reject", "it needs more memory than allowed", "order a smaller model"),
    "update-disagrees": Code(
        "reject", "it disagrees too often with the running model on this device's own frames",
        "look at the labels that differ; raise [update] disagreement if the new model is right",
    ),
    "update-config": Code("reject", "the settings are not valid on this device", "mend the settings and order again"),
    "update-superseded": Code("fail", "a newer order has taken its place", "none needed"),
    "update-hung": Code("reject", "the model did not come back from one of its gates", "mend the model"),
    "update-crashed": Code("reject", "the model ended its process", "mend the model"),
    "update-no-frames": Code(
        "fail", "too few frames came to judge it by", "check the cameras, then order it again"
    ),
    "update-deadline": Code("fail", "it was not done within its time", "order it again"),
    "update-unhealthy": Code(
        "roll-back", "this device did worse with it than in its own 24 hours before",
        "look into the diagnostics on the device, then mend the model",
    ),
    "update-withdrawn": Code("roll-back", "a technician went back to the model before", "ask who did it, and why"),
    "update-folder": Code("fail", "the folder of models cannot be written", "shelfwire-agent doctor disk"),
    "update-broken": Code(
        "fail", "the device could not keep it", "shelfwire-agent doctor names what is wrong with the disk"
    ),
}  # fmt: skip
"""Every code that an update can end or wait with. In a trial the end is always the way back, whatever the code."""


def after(what: What, state: State, event: Event) -> State | None:
    """Give the state that follows, or None where the event cannot happen to that kind of update."""
    if ONLY.get((state, event), what) != what:
        return None
    return TABLE.get((state, event))


def ending(state: State, code: str) -> Event:
    """Give the event that an exit code is in a state: a trial only ever ends by the way back."""
    if state in NEW_ANSWERS:
        return "roll-back"
    known = CODES.get(code)
    event: Event = known.event if known is not None else "fail"
    return event if (state, event) in TABLE else "fail"


def mermaid() -> str:
    """Draw the table for docs/updates.md: one line for each step, and who owns the states."""
    names = {state: state.replace("-", "_") for state in STATES}
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {names[state]} --> {names[into]}: {event}" for (state, event), into in TABLE.items()]
    lines += ["    classDef vision fill:#dbe9ff,stroke:#3569b0,color:#0b2545"]
    lines += [f"    class {','.join(names[s] for s in STATES if POSTS[s].owner == 'vision')} vision"]
    return "\n".join(lines)


def deadlines_table() -> str:
    """Write the states as a Markdown table for docs/updates.md."""
    rows = ["| state | owner | at most | then |", "|---|---|---|---|"]
    for state, post in POSTS.items():
        limit = "" if post.limit_s is None else _span(post.limit_s)
        rows.append(f"| {state} | {post.owner} | {limit} | {post.ends or ''} |")
    return "\n".join(rows)


def codes_table() -> str:
    """Write the codes as a Markdown table for docs/updates.md."""
    rows = ["| code | ends or waits by | because | what to do |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {code.event} | {code.meaning} | {code.cure} |" for name, code in CODES.items()]
    return "\n".join(rows)


def _span(seconds: float) -> str:
    for unit_s, unit in ((DAY_S, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds % unit_s == 0:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"
