"""Larger networks that the small one learns from: their scores, and what layers hold, for every view anew."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino.preprocess import PrePostProcessor

from models.runtimes.openvino import with_colours_turned
from training import views
from training.errors import TrainError

STRIDES = (8, 16, 32)

CHUNK = 8
"""Pictures that one request takes: what its layers hold stays in the cache."""

LEAST = np.float32(1e-7)
"""The least probability of which a logarithm is taken."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Said:
    """The teachers' word on a batch: log probabilities (N, classes), maps (N, C, h, w) per stride, a vector (N, F)."""

    scores: Floats
    maps: tuple[Floats, ...]
    vector: Floats | None


class Teachers:
    """One larger classifier or several, whose log probabilities are averaged: where one is wrong the others seldom are
    in the same way, and the mean says less surely what they do not agree on (Hinton et al. 2015). One whose scores were
    sharpened, as those of every bundle, would outweigh the others: `level` them.

    Each is an ONNX file that gives logits or probabilities of the same labels, and takes RGB, x / 127.5 - 1, float32
    (N, 3, S, S), or bytes as the files that this training writes: BGR, (N, S, S, 3).

    Beside the scores the first gives the last residual sum at each of STRIDES and what its last matrix product takes
    (Romero et al. 2015, FitNets), as far as its graph has them.
    """

    def __init__(self, paths: Sequence[Path], classes: int) -> None:
        """Raises TrainError teacher-missing, teacher-broken, teacher-labels."""
        self._all = [_Teacher(path, classes, layers=not number) for number, path in enumerate(paths)]
        self.side_px = self._all[0].side_px
        self.weights = [1.0] * len(self._all)
        """By what the log probabilities of each are multiplied before the mean."""

    def level(self, sharpness: Sequence[float]) -> None:
        """Let all be as unsure as the one that is the least sure of what it knows.

        `sharpness` is for each the factor for its logits with which it is as sure as it is right.
        """
        self.weights = [factor / max(sharpness) for factor in sharpness]

    def each(self, pictures: npt.NDArray[np.uint8]) -> list[Floats]:
        """What each says by itself about `pictures` (N, side_px, side_px, 3) BGR: log probabilities (N, classes)."""
        return [teacher.ask(pictures).scores for teacher in self._all]

    def ask(self, pictures: npt.NDArray[np.uint8]) -> Said:
        """What they say about `pictures` (N, side_px, side_px, 3) BGR."""
        said = [teacher.ask(pictures) for teacher in self._all]
        if len(said) == 1:
            return said[0]
        mean = np.mean([weight * one.scores for weight, one in zip(self.weights, said, strict=True)], axis=0)
        return Said(_log_softmax(mean), said[0].maps, said[0].vector)


class _Teacher:
    """One of them; it speaks of its layers if it is to give `layers`."""

    def __init__(self, path: Path, classes: int, layers: bool) -> None:
        if not path.is_file():
            raise TrainError(
                "teacher-missing", f"{path} does not exist", "leave --teacher away to learn from labels alone"
            )
        try:
            graph = ov.Core().read_model(str(path))
            takes_bytes = graph.input(0).element_type == ov.Type.u8
            self.side_px = int(graph.input(0).partial_shape[1 if takes_bytes else 2].get_length())
            sides = (self.side_px, self.side_px)
            graph.reshape(ov.PartialShape([-1, *sides, 3] if takes_bytes else [-1, 3, *sides]))
            given = int(graph.output(0).partial_shape[1].get_length())
        except (RuntimeError, IndexError) as broken:
            hint = "give an ONNX file that takes (N, 3, S, S), or one that this training wrote"
            raise TrainError("teacher-broken", f"{path} is no picture classifier: {broken}", hint) from None
        if given != classes:
            raise TrainError(
                "teacher-labels",
                f"{path} gives {given} scores for {classes} labels",
                "give one of the same labels",
            )
        maps = _maps(graph, self.side_px) if layers else []
        vector = _vector(graph) if layers else None
        extra = maps + ([vector] if vector is not None else [])
        if extra:
            graph.add_outputs(extra)
        self._maps = len(maps)
        self._has_vector = vector is not None
        cores = len(os.sched_getaffinity(0))
        settings = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
        self._compiled = ov.Core().compile_model(graph if takes_bytes else _with_bytes(graph), "CPU", settings)

    def ask(self, pictures: npt.NDArray[np.uint8]) -> Said:
        pictures = views.resized(pictures, self.side_px)
        requests = []
        for start in range(0, len(pictures), CHUNK):
            requests.append(self._compiled.create_infer_request())
            requests[-1].start_async({0: np.ascontiguousarray(pictures[start : start + CHUNK])})
        parts: list[list[Floats]] = []
        for request in requests:
            request.wait()
            parts.append([np.array(tensor.data, np.float32) for tensor in request.output_tensors])
        answers = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
        maps = tuple(answers[1 : 1 + self._maps])
        return Said(_log_probabilities(answers[0]), maps, answers[-1] if self._has_vector else None)


def _with_bytes(graph: ov.Model) -> ov.Model:
    """The graph that takes BGR bytes (N, S, S, 3) and does the arithmetic itself, on all cores."""
    change = PrePostProcessor(graph)
    entry = change.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout("NCHW"))
    entry.preprocess().convert_element_type(ov.Type.f32).mean([127.5] * 3).scale([127.5] * 3)
    return with_colours_turned(change.build())


def _maps(graph: ov.Model, side_px: int) -> list[ov.Output]:
    """For each stride the last sum of two computed maps, where the graph has one."""
    found: dict[int, ov.Output] = {}
    for node in graph.get_ordered_ops():
        shape = node.output(0).partial_shape if node.get_output_size() else None
        if node.get_type_name() != "Add" or shape is None or shape.rank.get_length() != 4:
            continue
        if any(part.partial_shape != shape for part in node.input_values()):  # a bias, spread over the map
            continue
        for stride in STRIDES:
            if int(shape[2].get_length()) == -(-side_px // stride):
                found[stride] = node.output(0)
    return [found[stride] for stride in STRIDES if stride in found]


def _vector(graph: ov.Model) -> ov.Output | None:
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return products[-1].input_value(0) if products else None


def _log_probabilities(given: Floats) -> Floats:
    """Logarithms of the softmax of `given`, or of `given` where its rows already are probabilities."""
    if given.min() >= 0 and np.allclose(given.sum(axis=1), 1, atol=1e-2):
        return np.log(np.maximum(given, LEAST))
    return _log_softmax(given)


def _log_softmax(given: Floats) -> Floats:
    given = given - given.max(axis=1, keepdims=True)
    return np.asarray(given - np.log(np.exp(given).sum(axis=1, keepdims=True)), np.float32)
