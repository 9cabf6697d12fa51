"""Models run by ONNX Runtime: everywhere, and the second opinion that keeps the first one honest."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.errors import BundleError
from models.onnx_arithmetic import with_arithmetic
from models.prepare import Input, arithmetic
from models.runtimes import (
    EngineFault,
    Model,
    Scores,
    cores,
    device_error,
    does_no_arithmetic,
    shape_error,
    streams_for,
)
from models.runtimes.providers import CPU, Provider, kind_of, shares, short, wanted
from models.setup import Device, Note, Preprocess, Setup

ort.disable_telemetry_events()  # `models` has seen to it already, but on Windows the system collects
ort.set_default_logger_severity(4)  # what goes wrong is raised
_KINDS = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeRequest:
    """A view on the shared session with a buffer of its own; sessions may be run from several threads."""

    def __init__(self, session: ort.InferenceSession, spec: Input, setup: Setup) -> None:
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._session = session
        self._spec = spec
        self._entry = session.get_inputs()[0].name
        self._given = self.buffer[None] if setup.preprocess == "graph" else None

    def run(self) -> Scores:
        """See Request."""
        given = arithmetic(self.buffer, self._spec) if self._given is None else self._given
        try:
            return np.asarray(self._session.run(None, {self._entry: given})[0], np.float32).reshape(-1)
        except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
            raise EngineFault(_reason(broken)) from None


class OnnxRuntimeEngine:
    """A loaded session."""

    def __init__(
        self, session: ort.InferenceSession, spec: Input, outputs: int, setup: Setup, notes: tuple[Note, ...]
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._spec = spec
        self.outputs = outputs
        self.setup = setup
        self.notes = notes

    def request(self) -> OnnxRuntimeRequest:
        """See Engine."""
        if self._session is None:
            raise RuntimeError("the classifier is closed")
        return OnnxRuntimeRequest(self._session, self._spec, self.setup)

    def close(self) -> None:
        """See Engine."""
        self._session = None


def open_engine(setup: Setup, model: Model, workers: int, cache_dir: Path | None) -> OnnxRuntimeEngine:
    """Load for `workers` threads. On the CPU there is nothing worth keeping in `cache_dir`."""
    outputs, entry = _look(model)
    place = _place(setup, model)
    content = _graph(model, entry) if place == "graph" else model.content
    streams = streams_for(setup, workers)
    session, device, notes = _load(setup, model, content, max(1, cores() // streams), cache_dir)
    done = replace(setup, device=device, streams=streams, preprocess=place)
    return OnnxRuntimeEngine(session, model.spec, outputs, done, (*notes, *_elsewhere(setup, place)))


def _load(
    setup: Setup, model: Model, content: bytes, threads: int, cache_dir: Path | None
) -> tuple[ort.InferenceSession, Device, tuple[Note, ...]]:
    """Load by the first provider that can be had. Raises BundleError model-load, model-device."""
    cache = str(cache_dir) if cache_dir is not None else ""
    providers = wanted(setup.device, ort.get_available_providers(), model.devices, cache)
    if not providers:
        kind = setup.device.upper()
        raise device_error(f"the ONNX Runtime that is installed was built without any use of the {kind}")
    failed: list[str] = []
    for provider in providers:
        try:
            session = _session(model, content, provider, threads)
            return session, kind_of(provider), (*_missed(failed), *_partly(session, provider))
        except BundleError as error:
            if error.code != "model-device":
                raise
            failed.append(str(error))
    raise device_error("; ".join(failed))


def _missed(failed: list[str]) -> tuple[Note, ...]:
    """Say which accelerators ONNX Runtime has that cannot be used here."""
    if not failed:
        return ()
    return (Note("device-missing", "; ".join(failed), "install its driver, or set [model] device to what is there"),)


def _place(setup: Setup, model: Model) -> Preprocess:
    """Where the arithmetic is done. A model whose weights lie beside it is read from its file, which stays as it is."""
    if does_no_arithmetic(model.spec):
        return "graph"
    return "host" if setup.preprocess != "graph" or model.path is not None else "graph"


def _elsewhere(setup: Setup, place: Preprocess) -> tuple[Note, ...]:
    if setup.preprocess != "graph" or place == "graph":
        return ()
    text = "the model's weights lie beside its file, so its preprocessing is done on the host"
    return (Note("preprocess-host", text, "set [model] preprocess to auto, or pack the model with its weights inside"),)


def _graph(model: Model, entry: str) -> bytes:
    return model.content if does_no_arithmetic(model.spec) else with_arithmetic(model.content, model.spec, entry)


def _session(
    model: Model, content: bytes, provider: Provider, threads: int, *, plain: bool = False
) -> ort.InferenceSession:
    """Load the model; `plain` without the optimisation that takes most of the time.

    Raises BundleError model-load, and model-device where the provider cannot be had: ONNX Runtime then takes the CPU
    without a word, because a driver is missing or the device is not there.
    """
    name, options = provider
    try:
        # Its own fallback, at loading and at running, is the silent kind.
        session = ort.InferenceSession(
            str(model.path) if model.path else content,
            _options(threads, plain=plain),
            providers=[provider] if name == CPU else [(name, options), (CPU, {})],
            enable_fallback=0,
        )
    except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
        if name != CPU:
            raise device_error(f"{short(provider)} cannot be used here: {_reason(broken)}") from None
        raise _not_loaded(broken) from None
    if session.get_providers()[:1] != [name]:
        raise device_error(f"{short(provider)} is built into ONNX Runtime, but cannot be used here")
    return session


def _options(threads: int, *, plain: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; its own log lines would only repeat it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _partly(session: ort.InferenceSession, provider: Provider) -> tuple[Note, ...]:
    """Say how much of the model the accelerator leaves to the CPU. Raises BundleError model-device for all of it."""
    if provider[0] == CPU:
        return ()
    steps: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        steps[part.ep_name] += len(part.get_nodes())
    on_cpu, whole = shares(steps)
    if on_cpu == whole:
        raise device_error(f"{short(provider)} takes no part of this model")
    if not on_cpu:
        return ()
    text = f"{short(provider)} leaves {on_cpu} of {whole} steps of the model to the CPU"
    return (Note("device-partly", text, "measure with `shelfwire-agent bench` whether the CPU alone is faster"),)


def _reason(broken: Exception) -> str:
    """Its sentence, without the place in a source that is not ours."""
    text = (str(broken).strip().splitlines() or [type(broken).__name__])[0]
    return re.sub(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(/\S+\.cc:\d+ .*?\) )?", "", text)[:300]


def _not_loaded(broken: Exception) -> BundleError:
    return BundleError("model-load", f"ONNX Runtime cannot load the model: {_reason(broken)}", "check the model file")


def _look(model: Model) -> tuple[int, str]:
    """How many numbers the model gives and what its input is called, found by running it once on the CPU.

    Raises BundleError model-load, and bundle-input when it takes something else than its bundle says.
    """
    session = _session(model, model.content, (CPU, {}), 1, plain=True)
    entries = session.get_inputs()
    if len(entries) != 1 or len(session.get_outputs()) != 1:
        raise shape_error(f"{len(entries)} inputs and gives {len(session.get_outputs())} outputs", model)
    given = entries[0]
    shape = [side if isinstance(side, int) else None for side in given.shape]
    wanted_shape = [1, *model.expected_shape]
    fits = len(shape) == len(wanted_shape) and all(a in (None, b) for a, b in zip(shape, wanted_shape, strict=True))
    if given.type != _KINDS[model.spec.dtype] or not fits:
        raise shape_error(f"{given.type} {given.shape}", model)
    try:
        answer = session.run(None, {given.name: np.zeros(wanted_shape, np.dtype(model.spec.dtype))})[0]
    except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
        raise _not_loaded(broken) from None
    return int(np.asarray(answer).size), given.name
