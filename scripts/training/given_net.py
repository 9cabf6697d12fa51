"""A network that somebody names: what it was up to its answer, a new head, and the same door as our own."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from training.network import MEAN_BGR, SCALE, Network
from training.onnx_graph import OPSET, Head, Looks, body_of, whole
from training.onnx_net import OnnxBody, as_array

DROPOUT: Final = 0.2
Export = Callable[[nn.Module, Looks, Head, int], bytes]


class GivenNet(Network):
    """`body`, from (N, 3, H, W) or (N, H, W, 3) as `layout` says to (N, F), with a head for `classes`.

    It takes what every network here takes, and turns it into what `looks` says that the body expects.
    """

    def __init__(self, body: nn.Module, width: int, classes: int, looks: Looks, layout: str, export: Export) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(width))  # the first answers are the same for all
        nn.init.zeros_(self.head.bias)
        self._looks, self._layout, self._export = looks, layout, export

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """No maps, and the vector."""
        x = as_expected(x, self._looks)
        return [], self.body(x.permute(0, 2, 3, 1) if self._layout == "nhwc" else x)

    def given(self) -> list[nn.Parameter]:
        """All weights of the body that its maker left free to be changed."""
        return [weights for weights in self.body.parameters() if weights.requires_grad]

    def onnx(self, size_px: int) -> bytes:
        """The whole as an ONNX file: bytes (N, size_px, size_px, 3) BGR in, probabilities (N, classes) out."""
        head = Head(as_array(self.head.weight), as_array(self.head.bias))
        return self._export(self.body, self._looks, head, size_px)


def as_expected(x: Tensor, looks: Looks) -> Tensor:
    """What a body that looks as `looks` says gets, from (N, 3, H, W) BGR as every network here takes it."""
    order = slice(None, None, -1 if looks.colour == "rgb" else 1)
    was = torch.tensor(MEAN_BGR[order], device=x.device)
    mean, scale = (torch.tensor(three, device=x.device) for three in (looks.mean, looks.scale))
    shape = (1, 3, 1, 1)
    turned = x.flip(1) if looks.colour == "rgb" else x
    return turned * (1 / (SCALE * scale)).view(shape) + ((was - mean) / scale).view(shape)


def export_onnx(body: nn.Module, looks: Looks, head: Head, size_px: int) -> bytes:
    """The graph that was given, with the weights as they are now."""
    assert isinstance(body, OnnxBody)
    sides = (1, size_px, size_px, 3) if body.body.entry.layout == "nhwc" else (1, 3, size_px, size_px)
    with torch.no_grad():
        maps = body.leaves(torch.zeros(sides)).ndim == 4
    return whole(body.body, body.learnt(), looks, head, size_px, maps)


def export_torch(body: nn.Module, looks: Looks, head: Head, size_px: int) -> bytes:
    """A torch module by torch's exporter that traces, for any number of pictures of this side.

    The other one of torch 2.13 (dynamo) took 40 times as long for the same graph and needs a package more.
    """
    written = io.BytesIO()
    quiet = contextlib.redirect_stdout(io.StringIO())  # it prints the whole graph before it raises
    with warnings.catch_warnings(action="ignore"), quiet:
        torch.onnx.export(
            body.cpu().eval(),
            (torch.zeros(2, 3, size_px, size_px),),
            written,
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["vector"],
            dynamic_axes={"x": {0: "N"}},
        )
    graph = body_of(written.getvalue(), "what torch exported", headless=True)
    return whole(graph, {}, looks, head, size_px)


class Pooled(nn.Module):
    """A torch network without its head: a vector (N, F), whether it gives one or maps (N, F, h, w)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        given = self.inner(x)
        return given.mean(dim=(2, 3)) if given.ndim == 4 else given
