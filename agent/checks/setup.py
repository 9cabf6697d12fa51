"""Was it measured how the model runs best on this device, for the model, processor and runtimes that are here now?"""

from collections.abc import Iterator
from typing import Any

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check

PATIENCE_S = 900.0
"""How long vision may wait for a calm minute, after its start, before somebody should see to it."""


def check(context: Context) -> Iterator[Finding]:
    """Compare the choice that is kept with what is here, and look how vision gets on with making one."""
    from agent.bench.choosing import chosen, is_open
    from agent.checks.model import in_force

    config = context.config
    if config is None or context.state_hidden:
        return
    if not is_open(config.model.setup):
        yield fine("model", f"the model runs as configured: {config.model.setup}")
        return
    try:
        found = chosen(config, in_force(config))
    except (OSError, ValueError):
        return  # what is wrong with the model's files is told by another check
    if found.measured:
        yield fine("model", f"how it runs best was measured: {found.setup}", found.reason)
    snapshot = context.vision_reports()
    said = snapshot.vision.get("tuning", {}) if snapshot is not None else {}
    yield from _vision(said, found.missing, PATIENCE_S if config.model.bench_after else 0.0)


def _vision(said: dict[str, Any], missing: str, patience_s: float) -> Iterator[Finding]:
    """What vision does about it. It says nothing when it does not run, or is of another version."""
    if said.get("trouble"):
        yield wrong("model", "MOD-10", str(said["trouble"]))
    elif missing and said and float(said["waited_s"]) < patience_s:
        yield skipped("model", "how it runs best", f"{missing}; vision does it once all frames are in time for a while")
    elif missing:
        yield wrong("model", "MOD-9", missing)


CHECK = Check("setup", "model", "whether it was measured how the model runs best here", check)
