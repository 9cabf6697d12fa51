"""Which setup of a model a device uses: what can be tried here, what the figures say, and how long they hold.

Which one is fastest cannot be known: INT8 is slower than FP32 on processors without the instructions for it, and each
runtime is the faster one somewhere. So all that are possible are measured in turn, on the device, and judged here.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from models.setup import Setup

ALIKE = 0.05
"""Setups whose speeds differ by less than this part count as alike: a device's other work moves figures by as much."""
SURE = 0.75
"""A setup is faster only when it was so in at least this part of the rounds."""
FAIR_ROUNDS = 4
"""Rounds that every setup gets: in one alone anything may happen on a device that has other work."""
HOPELESS = 0.6
"""A setup that then reaches less than this part of another one's speed is not measured any further."""
BUSY = 0.25
"""Part of the processor for other work above which setups are compared by processor time."""
ACCURACY_LOST = 0.01
"""The part of labelled pictures that a setup may answer wrongly beyond what FP32 does."""

PLACES = ("graph", "host")
"""Where colour, mean, scale and layout may be done; a model without any takes bytes as they come."""
NAMES: Mapping[str, str] = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "fp32": "FP32", "int8": "INT8"}


@dataclass(frozen=True, slots=True)
class Possible:
    """What can run a bundle on this device.

    `runtimes` maps each runtime that is installed and allowed to the precisions of which it can read the model's file.
    `devices` are the accelerators, beside the CPU, that are allowed and that each runtime may find here. `arithmetic`
    says whether pictures need any before the model, which could be done in its graph or by this program.
    """

    runtimes: Mapping[str, Sequence[str]]
    workers: int
    cores: int
    arithmetic: bool = False
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)


def candidates(possible: Possible, asked: Setup) -> tuple[Setup, ...]:
    """List the setups to measure: first what is used without a choice, then the others, the safest first.

    What `asked` lays down is kept. With one worker there is one picture at a time, and more streams than one could only
    share its cores.
    """
    found = [
        Setup(runtime, device, precision, streams, preprocess)  # type: ignore[arg-type]  # words of its own table
        for runtime, precisions in possible.runtimes.items()
        for precision in precisions
        for device in ("cpu", *possible.devices.get(runtime, ()))
        for streams in _streams(possible, asked, device)
        for preprocess in (PLACES if possible.arithmetic else PLACES[:1])
    ]
    fitting = sorted({setup for setup in found if asked.over(setup) == setup}, key=danger)
    most = min(possible.workers, possible.cores)
    usual = [setup for setup in fitting[:2] if setup.streams == most and way(setup) == way(fitting[0])]
    return tuple(dict.fromkeys([*usual, *fitting]))


def _streams(possible: Possible, asked: Setup, device: str) -> Sequence[int]:
    if asked.streams:
        return (asked.streams,)
    most = min(possible.workers, possible.cores)
    return (most,) if device != "cpu" else tuple(sorted({1, most}))


def way(setup: Setup) -> tuple[str, str, str]:
    """What does the arithmetic: runtime, device and precision. The rest changes no answer and crashes nothing."""
    return setup.runtime, setup.device, setup.precision


def danger(setup: Setup) -> tuple[bool, bool, bool, int, bool]:
    """Order setups by what could be held against them, when speed does not: the safer comes first."""
    return (
        setup.precision != "fp32",
        setup.device != "cpu",
        setup.runtime != "openvino",
        setup.streams,
        setup.preprocess != "graph",
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the answers compare with those of FP32: how `many` pictures have the `same` best label, the largest
    difference of a score, and where labels are known how many are `right`, with FP32 how many.
    """

    same: int
    many: int
    difference: float
    right: int | None = None
    fp32_right: int | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a setup. `trouble` says why it cannot be used, empty when it can.

    `rounds_fps`: pictures a second by all workers, round by round, the n-th beside the n-th of all others.
    `rounds_ms`: what one picture takes while there is no other. `rounds_cpu_ms`: the processor time of one picture.
    """

    setup: Setup
    rounds_fps: tuple[float, ...] = ()
    rounds_ms: tuple[float, ...] = ()
    rounds_cpu_ms: tuple[float, ...] = ()
    golden: Agreement | None = None
    pictures: Agreement | None = None
    trouble: str = ""

    @property
    def fps(self) -> float:
        """The middle of the rounds; 0 when none was made."""
        return statistics.median(self.rounds_fps) if self.rounds_fps else 0.0

    @property
    def latency_ms(self) -> float:
        """The middle of the rounds; 0 when none was made."""
        return statistics.median(self.rounds_ms) if self.rounds_ms else 0.0

    @property
    def cpu_ms(self) -> float:
        """The middle of the rounds; 0 when none was made."""
        return statistics.median(self.rounds_cpu_ms) if self.rounds_cpu_ms else 0.0

    def per_cpu(self) -> "Figures":
        """Take pictures per second of processor time for pictures per second."""
        return replace(self, rounds_fps=tuple(1000 / cpu_ms for cpu_ms in self.rounds_cpu_ms))

    def to_json(self) -> dict[str, Any]:
        """Write it for `from_json` and for people's programs."""
        rounds = {
            "rounds_fps": [round(fps, 2) for fps in self.rounds_fps],
            "rounds_ms": [round(took_ms, 3) for took_ms in self.rounds_ms],
            "rounds_cpu_ms": [round(took_ms, 3) for took_ms in self.rounds_cpu_ms],
        }
        middle = {"fps": round(self.fps, 2), "latency_ms": round(self.latency_ms, 3), "cpu_ms": round(self.cpu_ms, 3)}
        return asdict(self) | {"setup": self.setup.to_json()} | middle | rounds

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Figures":
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        golden, pictures = said["golden"], said["pictures"]
        return cls(
            Setup.from_json(said["setup"]),
            tuple(float(fps) for fps in said["rounds_fps"]),
            tuple(float(took_ms) for took_ms in said["rounds_ms"]),
            tuple(float(took_ms) for took_ms in said["rounds_cpu_ms"]),
            None if golden is None else Agreement(**golden),
            None if pictures is None else Agreement(**pictures),
            str(said["trouble"]),
        )


def ratio(one: Figures, other: Figures) -> float:
    """How many times as fast `one` is as `other`: the median over the rounds that both made; 0 when there is none."""
    pairs = zip(one.rounds_fps, other.rounds_fps, strict=False)
    ratios = [a / b for a, b in pairs if b > 0]
    return statistics.median(ratios) if ratios else 0.0


def is_faster(one: Figures, other: Figures) -> bool:
    """Whether `one` is faster beyond doubt: by more than what counts as alike, and in nearly every round."""
    pairs = list(zip(one.rounds_fps, other.rounds_fps, strict=False))
    ahead = sum(a > b for a, b in pairs)
    return ratio(one, other) > 1 + ALIKE and ahead >= SURE * len(pairs)


def is_hopeless(one: Figures, all_of_them: Sequence[Figures]) -> bool:
    """Whether a setup need not be measured any further, after its fair share of rounds: slow, and at great expense.

    What is used without a choice always goes on, for everything is compared with it; it is the first of all.
    """
    if one is all_of_them[0] and not one.trouble:
        return False
    rivals = [each for each in all_of_them if each.rounds_fps]
    slow = any(ratio(one, each) < HOPELESS for each in rivals)
    return bool(one.trouble) or (slow and any(ratio(one.per_cpu(), each.per_cpu()) < HOPELESS for each in rivals))


def faults(figures: Figures) -> str:
    """Say why a setup's answers are not good enough, in words; empty when they are."""
    golden, labelled = figures.golden, figures.pictures
    if golden is not None and golden.same < golden.many:
        return f"it answers {golden.many - golden.same} of {golden.many} golden pictures otherwise than FP32"
    if labelled is None or labelled.right is None or labelled.fp32_right is None:
        return ""
    lost = labelled.fp32_right - labelled.right
    if lost > ACCURACY_LOST * labelled.many:
        return f"it gets {lost} of {labelled.many} pictures wrong that FP32 gets right"
    return ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The setup to use, and why."""

    setup: Setup
    reason: str


def decide(measured: Sequence[Figures], others: float = 0.0) -> Decision | None:
    """Take the fastest setup whose answers are good, and of those that are alike the safest; None when none runs.

    `measured` begins with what is used so far. `others` is the part of the processor that other work took meanwhile:
    where that is much, the pictures per second say more of its luck than of a setup, and processor time decides. That
    does not tell how many streams are best, which stay as they are.
    """
    if others > BUSY and all(each.setup.device == "cpu" for each in measured):
        as_usual = [each for each in measured if each.setup.streams == measured[0].setup.streams]
        decision = decide([each.per_cpu() for each in as_usual])
        return decision and replace(decision, reason=f"{decision.reason}; by processor time, for the device was busy")
    usable = [each for each in measured if not each.trouble and each.rounds_fps]
    if not usable:
        return None
    chosen = _safest(usable)
    return Decision(chosen.setup, _reason(chosen, measured))


def _safest(usable: Sequence[Figures]) -> Figures:
    """First the safest way of running that no other beats beyond doubt, then its streams and place: the fastest, and
    of those alike the one that shares the cores least."""
    best = _fastest(usable, usable[0])
    alike = [each for each in usable if not is_faster(best, each)]
    safest = way(min((each.setup for each in alike), key=danger))
    of_it = [each for each in usable if way(each.setup) == safest]
    best = _fastest(of_it, of_it[0])
    return min((each for each in of_it if ratio(best, each) <= 1 + ALIKE), key=lambda each: danger(each.setup))


def _fastest(those: Sequence[Figures], beside: Figures) -> Figures:
    return max(those, key=lambda each: ratio(each, beside))


def _reason(chosen: Figures, measured: Sequence[Figures]) -> str:
    """Say in a sentence what made the choice, compared with what would be used without one."""
    first = measured[0]
    if first.trouble or not is_faster(chosen, first):
        return _why_nothing_else(chosen, measured)
    against = short(first.setup, beside=chosen.setup)
    text = f"{short(chosen.setup, beside=first.setup)}: {ratio(chosen, first):.1f} times the frames of {against}"
    return text + _agrees(chosen)


def _why_nothing_else(chosen: Figures, measured: Sequence[Figures]) -> str:
    others = [each for each in measured if each is not chosen]
    faster = [each for each in others if each.trouble and is_faster(each, chosen)]
    if faster:
        best = _fastest(faster, chosen)
        named = short(best.setup, beside=chosen.setup)
        return f"{short(chosen.setup)}: {named} is {ratio(best, chosen):.1f} times as fast, but {best.trouble}"
    tried = [each for each in others if not each.trouble]
    if not tried:
        return f"{short(chosen.setup)}: nothing else can run this model here"
    best = _fastest(tried, chosen)
    text = f"{short(chosen.setup)}: nothing is clearly faster"
    return text + f" ({short(best.setup, beside=chosen.setup)} gives {ratio(best, chosen):.2f} times the frames)"


def _agrees(figures: Figures) -> str:
    golden, labelled = figures.golden, figures.pictures
    text = f", answers agree on {golden.same} of {golden.many} golden pictures" if golden is not None else ""
    if labelled is None or not labelled.many:
        return text
    if labelled.right is None or labelled.fp32_right is None:
        return f"{text}, and on {labelled.same} of {labelled.many} pictures of yours"
    return f"{text}, {labelled.right} of {labelled.many} pictures right (FP32: {labelled.fp32_right})"


def short(setup: Setup, beside: Setup | None = None) -> str:
    """Name a setup as a person would, "INT8 on OpenVINO"; beside another one with what tells them apart."""
    text = f"{NAMES.get(setup.precision, setup.precision)} on {NAMES.get(setup.runtime, setup.runtime)}"
    more = []
    if setup.device != "cpu":
        more.append(f"on the {setup.device.upper()}")
    if beside is not None and setup.streams != beside.streams:
        more.append(f"{setup.streams} stream{'s' * (setup.streams != 1)}")
    if beside is not None and setup.preprocess != beside.preprocess and setup.runtime == beside.runtime:
        more.append("colours in the graph" if setup.preprocess == "graph" else "colours outside the graph")
    return ", ".join([text, *more])


@dataclass(frozen=True, slots=True)
class Key:
    """What a choice was made for. Where one of these changes, the figures mean nothing any more.

    `bundle` is the digest of its bundle.json, `cpu` model and instructions, `runtimes` the versions, `asked` what the
    configuration lays down.
    """

    bundle: str
    cpu: str
    cores: int
    runtimes: str
    workers: int
    asked: str

    def to_json(self) -> dict[str, str | int]:
        """Write it for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Key":
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        kinds: Mapping[str, type] = {"cores": int, "workers": int}
        return cls(**{field.name: kinds.get(field.name, str)(said[field.name]) for field in fields(cls)})


_CHANGES: Mapping[str, str] = {
    "bundle": "another model answers",
    "cpu": "the processor is another one",
    "cores": "the number of cores has changed",
    "runtimes": "the runtimes have other versions",
    "workers": "the number of workers has changed",
    "asked": "the configuration asks for something else",
}


def stale(made_for: Key, now: Key) -> tuple[str, ...]:
    """Say what has changed since a choice was made, in words; empty when it still holds."""
    return tuple(text for name, text in _CHANGES.items() if getattr(made_for, name) != getattr(now, name))
