"""Is the model's bundle whole, is it what vision runs, by the runtime meant, and fast enough?"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.config import Config


def check(context: Context) -> Iterator[Finding]:
    """Look at the bundle's files, and at what vision says of the model that it runs."""
    if context.config is None:
        yield skipped("model", "model", "there is no configuration that names it")
        return
    from models.errors import BundleError

    try:
        bundle = in_force(context.config)
    except BundleError as error:
        yield wrong("model", "MOD-1", f"{error} [{error.code}]", cure=error.hint)
        return
    except OSError as error:
        yield wrong("model", "MOD-1", str(error))
        return
    found = [*_fallen_back(context.config), *_running(context, context.config, bundle)]
    yield from found
    if not found:
        size = f"{len(bundle.manifest.files)} files as they were packed"
        yield fine("model", f"{bundle.ref.name} {bundle.ref.version}, {size}", f"digest {bundle.ref.digest[:12]}")


def in_force(config: Config) -> Any:
    """Load the bundle that answers, or would: the one that came by an update, else the configured.

    Raises `models.BundleError`, `OSError`.
    """
    from models.bundle import Bundle, resolve

    return _updates(config).current() or Bundle.load(resolve(config.model.bundle))


def _updates(config: Config) -> Any:
    from agent.store.models import Models  # with what it needs to read bundles

    return Models(config.device.state_dir / "models")


def _fallen_back(config: Config) -> Iterator[Finding]:
    """An updated model whose files are not whole any more gives way to the configured one."""
    updates = _updates(config)
    named = updates.links().current
    if named is not None and updates.current() is None:
        yield wrong("model", "MOD-1", f"the model {named} of the last update is not whole, so another one answers")


def _running(context: Context, config: Config, bundle: Any) -> Iterator[Finding]:
    snapshot = context.vision_reports()
    if snapshot is None:
        return
    report = snapshot.vision
    running = report["model"]
    if running["digest"] != bundle.ref.digest:
        meant = f"{bundle.ref.name} {bundle.ref.version}"
        yield wrong("model", "MOD-6", f"vision runs {running['name']} {running['version']}, {meant} is in force")
    yield from fallen_back(report.get("notes", ()))
    if not report.get("notes"):
        yield from _runtime(config, bundle, str(report["runtime"]))
    yield from _speed(config, float(report.get("placement", {}).get("service_ms") or 0.0))


def fallen_back(notes: Iterable[Mapping[str, str]]) -> Iterator[Finding]:
    """Tell where the model runs otherwise than was asked for."""
    for note in notes:
        code = "MOD-5" if note["code"].startswith("runtime-") else "MOD-8"
        yield wrong("model", code, f"{note['message']} [{note['code']}]", cure=note["hint"])


def _runtime(config: Config, bundle: Any, used: str) -> Iterator[Finding]:
    from agent.bench.choosing import chosen
    from models.errors import BundleError
    from models.runtimes import choose

    try:
        meant = choose(chosen(config, bundle).setup.runtime, bundle.manifest)
    except BundleError as error:
        yield wrong("model", "MOD-5", f"{error} [{error.code}]", cure=error.hint)
        return
    if used != meant:
        yield wrong("model", "MOD-5", f"vision uses {used}, {meant} is meant")


def _speed(config: Config, service_ms: float) -> Iterator[Finding]:
    """Compare the time that one frame takes a worker with the deadlines, and with what all cameras ask for."""
    deadline_ms = 1000 * min((c.deadline or config.placement.deadline for c in config.camera), default=1e9)
    if service_ms > deadline_ms:
        yield wrong("model", "MOD-4", f"one frame takes {service_ms:.0f} ms, the deadline is {deadline_ms:.0f} ms")
        return
    asked_fps = sum(camera.rate_fps for camera in config.camera)
    cores = len(os.sched_getaffinity(0))
    if asked_fps * service_ms / 1000 > 1.5 * cores:
        able_fps = 1000 * cores / service_ms
        yield wrong("model", "MOD-4", f"about {able_fps:.0f} of {asked_fps:.0f} frames a second")


CHECK = Check("model", "model", "the bundle's files, the model and runtime that vision uses, its speed", check)
