"""The device's choice of a setup, in a file beside the store: what was measured, what it was measured for, and why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.core.setups import Figures, Key
from agent.durable import write_file
from agent.errors import Broken
from models.setup import Setup

NAME: Final = "choice.json"
FORMAT: Final = "shelfwire-choice/1"
MOST_BYTES: Final = 1 << 20
AGAIN: Final = "shelfwire-agent bench"
"""The command that measures anew."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A setup with its reason. `measured_at` is wall time in RFC 3339, for people.

    `others` is the part of the processor that other work took meanwhile.
    """

    key: Key
    setup: Setup
    reason: str
    measured_at: str
    figures: Sequence[Figures] = ()
    others: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Write it for `from_json` and for people's programs."""
        return {
            "format": FORMAT,
            "setup": self.setup.to_json(),
            "reason": self.reason,
            "measured_at": self.measured_at,
            "others": round(self.others, 3),
            "key": self.key.to_json(),
            "figures": [each.to_json() for each in self.figures],
        }

    @classmethod
    def from_json(cls, said: Any) -> "Choice":
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        if said["format"] != FORMAT:
            raise ValueError(f"the format is {said['format']!r}, not {FORMAT}")
        figures = tuple(Figures.from_json(each) for each in said["figures"])
        setup = Setup.from_json(said["setup"])
        key, others = Key.from_json(said["key"]), float(said["others"])
        return cls(key, setup, str(said["reason"]), str(said["measured_at"]), figures, others)


def read(state_dir: Path) -> Choice | None:
    """Read the choice; None where there is none. Raises `Broken` (``choice-unreadable``) when the file is no such."""
    path = state_dir / NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has over {MOST_BYTES} bytes")
        return Choice.from_json(json.loads(content))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise Broken("choice-unreadable", f"{path} cannot be read: {wrong}", f"run {AGAIN}") from None


def write(state_dir: Path, choice: Choice) -> None:
    """Keep a choice durably. Raises `Broken` (``choice-unwritable``)."""
    content = json.dumps(choice.to_json(), indent=1).encode() + b"\n"
    try:
        write_file(state_dir / NAME, content)
    except OSError as error:
        hint = "run it as the agent's user, or free disk space"
        raise Broken("choice-unwritable", f"{state_dir / NAME}: {error.strerror}", hint) from None
