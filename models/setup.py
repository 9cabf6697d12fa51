"""How a model is run: by which runtime, on what, in which precision. Light, for whoever only reads or shows it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, Literal, Self, get_args

from models.errors import BundleError

Runtime = Literal["auto", "openvino", "onnxruntime"]
Device = Literal["auto", "cpu", "gpu", "npu", "any"]
Precision = Literal["auto", "fp32", "int8"]
Preprocess = Literal["auto", "graph", "host"]

MOST_STREAMS: Final = 64
_ALLOWED: Final = {
    "runtime": get_args(Runtime),
    "device": get_args(Device),
    "precision": get_args(Precision),
    "preprocess": get_args(Preprocess),
}
_CODES: Final = {"runtime": "bundle-runtime"}


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is run; "auto" leaves it open.

    `device` any lets the runtime choose among what it finds. `streams` is how many pictures are computed at once, 0 as
    many as the workers ask for. `preprocess` says where colour, mean, scale and layout are done: in the model's graph
    or by this program (host).
    """

    runtime: Runtime = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    streams: int = 0
    preprocess: Preprocess = "auto"

    def __str__(self) -> str:
        """As people read it: `openvino on cpu, int8, 2 streams, preprocessing in the graph`."""
        streams = "streams as needed" if not self.streams else f"{self.streams} stream{'s' * (self.streams > 1)}"
        place = {"graph": "in the graph", "host": "on the host"}.get(self.preprocess, "auto")
        return f"{self.runtime} on {self.device}, {self.precision}, {streams}, preprocessing {place}"

    @property
    def brief(self) -> str:
        """What matters to whoever looks at many devices: `openvino (cpu, int8)`."""
        return f"{self.runtime} ({self.device}, {self.precision})"

    def to_json(self) -> dict[str, str | int]:
        """The fields, for a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> Self:
        """Read what `to_json` gave; what is left out is open. Raises BundleError as `checked`, for strange keys too."""
        known = {field.name for field in fields(cls)}
        strange = sorted(set(said) - known)
        if strange:
            raise BundleError("model-setup", f"a setup has no {strange[0]!r}", f"known are: {', '.join(sorted(known))}")
        return cls(**said).checked()  # type: ignore[arg-type]  # checked the next moment

    def checked(self) -> Self:
        """This, if every word of it is known. Raises BundleError bundle-runtime, model-setup."""
        for name, allowed in _ALLOWED.items():
            said = getattr(self, name)
            if said not in allowed:
                code = _CODES.get(name, "model-setup")
                raise BundleError(code, f"{said!r} is no {name}", f"choose one of: {', '.join(allowed)}")
        if type(self.streams) is not int or not 0 <= self.streams <= MOST_STREAMS:
            raise BundleError("model-setup", f"streams cannot be {self.streams!r}", f"choose 0 to {MOST_STREAMS}")
        return self

    def over(self, below: "Setup") -> "Setup":
        """This, and what `below` says where this leaves something open: what is configured over what was measured."""
        open_ones = [field.name for field in fields(self) if getattr(self, field.name) in ("auto", 0)]
        return replace(self, **{name: getattr(below, name) for name in open_ones})


OPEN: Final = Setup()
"""Everything left open."""


@dataclass(frozen=True, slots=True)
class Note:
    """That a model runs otherwise than was asked for, why, and what cures it. Never silent: see `Classifier.notes`."""

    code: str
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """The fields, for a JSON object."""
        return asdict(self)
