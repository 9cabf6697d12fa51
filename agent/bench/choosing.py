"""From figures to the device's choice, and whether the one that is kept still holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.bench.surroundings import key_of
from agent.config import Config
from agent.core import setups
from agent.core.records import moment
from agent.core.setups import Figures, Key
from agent.errors import Broken
from agent.host.processor import workers_for
from agent.store import choice
from agent.store.choice import Choice
from models.bundle import Bundle
from models.setup import Setup


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a model is to be run, and why: `measured` where a choice says so that holds here and now.

    `missing` says why there is no such choice, empty when there is one or none is needed.
    """

    setup: Setup
    reason: str
    measured: bool = False
    missing: str = ""


def is_open(asked: Setup) -> bool:
    """Whether the configuration leaves anything to be measured."""
    return "auto" in (asked.runtime, asked.precision, asked.preprocess) or not asked.streams


def chosen(config: Config, bundle: Bundle) -> Chosen:
    """Tell how a bundle is to be run on this device: as configured, and for the rest as was measured, where it was."""
    asked = config.model.setup
    if not is_open(asked):
        return Chosen(asked, "as configured")
    try:
        kept = choice.read(config.device.state_dir)
    except Broken as error:
        return Chosen(asked, "not measured yet", missing=str(error))
    if kept is None:
        return Chosen(asked, "not measured yet", missing="nothing was measured yet")
    changed = setups.stale(kept.key, key_of(bundle, workers_for(config), asked))
    if changed:
        return Chosen(asked, "not measured yet", missing=f"since it was measured, {' and '.join(changed)}")
    return Chosen(asked.over(kept.setup), kept.reason, measured=True)


def choose(figures: Sequence[Figures], others: float, key: Key, wall_ns: int) -> Choice:
    """Judge what was measured while other work took a part of the processor, `others`.

    Raises `Broken` (``bench-nothing-runs``) when no setup can be used.
    """
    decision = setups.decide(figures, others)
    if decision is None:
        first = next((each.trouble for each in figures if each.trouble), "nothing here can run it")
        hint = "see the model's line in shelfwire-agent doctor"
        raise Broken("bench-nothing-runs", f"the model runs in no way on this device: {first}", hint)
    return Choice(key, decision.setup, decision.reason, moment(wall_ns), tuple(figures), others)


def memory_bytes(config: Config | None) -> int:
    """Give what the process that measures may take: as much as one that tries a new model."""
    return config.update.memory if config is not None else 1 << 30


def cache_of(state_dir: Path) -> Path:
    """Give the folder of compiled models, which vision uses too: what was measured starts at once."""
    return state_dir / "compiled"
