"""What the doctor looks at: one check per file, each an independent function that gives findings.

They work with the daemons dead, without a configuration, without root and without a network, and change nothing.
"""

from collections.abc import Collection

from agent.checks import (
    camera,
    certificates,
    clock,
    config,
    disk,
    golden,
    heat,
    invariants,
    load,
    log,
    memory,
    model,
    network,
    outbox,
    processes,
    setup,
    units,
)
from agent.checks.context import Context
from agent.checks.finding import Finding, exit_code, spoken
from agent.checks.runner import CHECK_S, Check, choose, run_checks
from agent.core.codes import AREAS

__all__ = ["AREAS", "CHECKS", "CHECK_S", "Check", "Context", "Finding", "examine", "exit_code", "spoken"]

CHECKS = (
    config.CHECK,
    camera.CHECK,
    model.CHECK,
    golden.CHECK,
    setup.CHECK,
    network.CHECK,
    certificates.CHECK,
    clock.CHECK,
    outbox.CHECK,
    invariants.CHECK,
    disk.CHECK,
    memory.CHECK,
    heat.CHECK,
    load.CHECK,
    processes.CHECK,
    units.CHECK,
    log.CHECK,
)


def examine(context: Context, areas: Collection[str] = (), deadline_s: float = 10.0) -> list[Finding]:
    """Make the checks of some `areas` (empty: all), side by side; give what they found within `deadline_s` seconds."""
    return run_checks(choose(CHECKS, areas, quick=context.quick), context, deadline_s)
