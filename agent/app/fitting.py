"""What a new model is measured against on this device: the configured limits, and whether it fits at all."""

from importlib.metadata import version

from agent.app.using import make_rules
from agent.config import Config
from agent.core.gates import Terms
from agent.errors import Rejected
from models import Bundle, BundleError
from models.runtimes import choose


def terms_of(config: Config) -> Terms:
    """Give the limits as configured."""
    update = config.update
    deadlines_s = [camera.deadline or config.placement.deadline for camera in config.camera]
    return Terms(
        deadline_ms=1000 * min(deadlines_s, default=config.placement.deadline),
        memory_bytes=update.memory,
        disagreement=update.disagreement,
        shadow_frames=update.shadow_frames,
        shadow_every_s=update.shadow_every,
        shadow_limit_s=update.shadow_limit,
        trial_s=update.trial,
        trial_limit_s=max(update.trial_limit, 2 * update.trial),
        trial_frames=update.trial_frames,
    )


def fits(config: Config, bundle: Bundle) -> None:
    """Check a bundle against agent, runtime, accelerator and memory of this device, and the labels of its alert rules.

    Raises `Rejected` (``update-incompatible``, ``update-memory``).
    """
    manifest = bundle.manifest
    mine = version("shelfwire")
    if _number(manifest.minimum_agent) > _number(mine):
        raise _unfit(f"it needs agent {manifest.minimum_agent}, this is {mine}", "update the agent first")
    if "cpu" not in manifest.limits.devices:
        kinds = ", ".join(manifest.limits.devices)
        raise _unfit(f"it was made for {kinds}, and this device has a CPU", "order one that was made for a CPU")
    try:
        choose(config.model.runtime, manifest)
    except BundleError as error:
        raise _unfit(str(error), error.hint) from None
    free_bytes = _available_bytes()
    if manifest.limits.memory_bytes > free_bytes > 0:
        text = f"it declares {manifest.limits.memory_bytes / 1e6:.0f} MB, free are {free_bytes / 1e6:.0f} MB"
        raise Rejected("update-memory", text, "order a smaller model")
    try:
        make_rules(config, manifest.labels)
    except Rejected as error:
        raise _unfit(str(error), "order a model that keeps this label, or change the alert first") from None


def _unfit(text: str, hint: str) -> Rejected:
    return Rejected("update-incompatible", text, hint)


def _number(text: str) -> tuple[int, ...]:
    """Read a version as numbers, as far as it has any: 1.10.0rc1 is 1, 10, 0."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _available_bytes() -> int:
    """Memory that could be taken now; 0 where the kernel does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - one read, no path work
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
