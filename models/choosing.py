"""Which ways of running a model are tried, in which order. Pure: what is installed is passed in."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, cast

from models.bundle import RUNTIMES, Manifest
from models.errors import BundleError
from models.setup import Device, Note, Precision, Runtime, Setup

FALLS_BACK: Final = frozenset({"model-load", "model-device", "model-run", "bundle-golden", "model-output"})
"""Codes after which the next way is tried. What is wrong with the bundle itself is wrong in every way."""

Installed = Callable[[str], bool]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Ways to run a model, the first the one meant; `notes` say where that is not what was asked for."""

    tries: tuple[Setup, ...]
    notes: tuple[Note, ...]


def plan(asked: Setup, manifest: Manifest, installed: Installed) -> Plan:
    """List what is tried: as asked, then on the CPU, then FP32 instead of INT8, then the other runtime.

    An open precision is fp32 where the bundle has it, an open device the CPU. Raises BundleError bundle-runtime when
    the bundle was not made for the runtime asked for, or when none is installed that can run it.
    """
    _check_allowed(asked, manifest)
    able = [pair for pair in _pairs(asked, manifest) if installed(pair[0])]
    if not able:
        raise _nothing_installed(asked, manifest)
    device, notes = _device(asked, manifest)
    first = _setup(asked, able[0], device)
    on_cpu = [pair for pair in able if pair[1] in (first.precision, "fp32")]
    tries = dict.fromkeys([first, *(_setup(asked, pair, "cpu") for pair in on_cpu)])
    return Plan(tuple(tries), (*_why_other(asked, first, manifest), *notes))


def _pairs(asked: Setup, manifest: Manifest) -> list[Pair]:
    """Runtime and precision, the best first; only what the bundle has and allows."""
    runtimes = [name for name in RUNTIMES if name in manifest.limits.runtimes]
    runtimes.sort(key=lambda name: name != asked.runtime)
    precisions = sorted(manifest.models, key=lambda name: name != asked.precision)
    pairs = [(runtime, precision) for runtime in runtimes for precision in precisions]
    if asked.runtime == "auto":
        pairs.sort(key=lambda pair: precisions.index(pair[1]))
    able = [pair for pair in pairs if pair[0] == "openvino" or not manifest.models[pair[1]].is_ir]
    return sorted(able, key=lambda pair: pair[0] != able[0][0])


def _setup(asked: Setup, pair: Pair, device: Device) -> Setup:
    runtime, precision = cast(Runtime, pair[0]), cast(Precision, pair[1])
    return replace(asked, runtime=runtime, precision=precision, device=device)


def _device(asked: Setup, manifest: Manifest) -> tuple[Device, tuple[Note, ...]]:
    if asked.device in ("auto", "cpu"):
        return "cpu", ()
    if asked.device == "any" or asked.device in manifest.limits.devices:
        return asked.device, ()
    text = f"the bundle was not made for a {asked.device.upper()}, so the CPU runs it"
    return "cpu", (Note("device-unfit", text, f"set [model] device to one of: {', '.join(manifest.limits.devices)}"),)


def _check_allowed(asked: Setup, manifest: Manifest) -> None:
    allowed = [name for name in RUNTIMES if name in manifest.limits.runtimes]
    if asked.runtime != "auto" and asked.runtime not in allowed:
        raise BundleError(
            "bundle-runtime",
            f"this bundle was not made for {asked.runtime}",
            f"set the runtime to auto or {' or '.join(allowed)}",
        )


def _nothing_installed(asked: Setup, manifest: Manifest) -> BundleError:
    able = list(dict.fromkeys(runtime for runtime, _ in _pairs(asked, manifest))) or list(manifest.limits.runtimes)
    return BundleError("bundle-runtime", f"none of {', '.join(able)} is installed", f"pip install {able[0]}")


def _why_other(asked: Setup, first: Setup, manifest: Manifest) -> tuple[Note, ...]:
    notes = []
    if asked.runtime not in ("auto", first.runtime):
        if all(file.is_ir for file in manifest.models.values()):
            why, hint = "the model is in OpenVINO's own format", "set [model] runtime to openvino or auto"
        else:
            why, hint = f"{asked.runtime} is not installed", f"pip install {asked.runtime}, or set runtime to auto"
        notes.append(Note("runtime-missing", f"{why}, so {first.runtime} runs the model", hint))
    if asked.precision not in ("auto", first.precision):
        missing = f"the bundle has no {asked.precision.upper()} model for {first.runtime}"
        text = f"{missing}, so {first.precision.upper()} answers"
        hint = f"set [model] precision to auto or {first.precision}, or order a bundle that has both"
        notes.append(Note("precision-missing", text, hint))
    return tuple(notes)
