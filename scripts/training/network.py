"""What a network must have to be trained here, and the one that is trained from nothing.

That is a residual network of plain 3x3 convolutions, which every runtime runs well in INT8.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

MEAN_BGR = (103.5, 116.3, 123.7)
SCALE = 1 / 58.0
"""A pixel's value enters a network as (value - mean) * SCALE; the same constants for every channel order."""

STEM = 24
WIDTHS = (32, 80, 160, 320)
DEPTHS = (1, 2, 3, 2)
"""Channels and blocks of the four stages; each halves the picture, the first at a quarter of its side."""

LAST = 640
"""Channels that are averaged over the picture and from which the answer is made."""


class Network(nn.Module):
    """Pictures (N, 3, H, W), BGR, (value - MEAN_BGR) * SCALE, to logits (N, classes).

    This is all that the loop, the choices on val and the export know of a network.
    """

    head: nn.Linear
    """From the vector of `features` to the logits."""
    dropout: nn.Module
    """What stands between the two while it learns."""

    widths: ClassVar[Mapping[int, int]] = {}
    """Channels of the maps that `features` gives, by their stride; none where the layers are not known."""

    kind: str = "A network"
    """What the card calls it."""
    any_side: bool = True
    """Whether it takes pictures of other sides than the one that it was opened with."""

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps (N, channels, H / s, W / s) in the order of `widths`, and the vector (N, F) that `head` takes."""
        raise NotImplementedError

    def given(self) -> list[nn.Parameter]:
        """The weights that came with it, which are changed more gently than new ones."""
        return []

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.dropout(self.features(x)[1]))


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation; folded into one at export."""

    def __init__(self, given: int, gives: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, gives, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(gives)

    def forward(self, x: Tensor) -> Tensor:
        """(N, given, H, W) -> (N, gives, H / stride, W / stride)."""
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Two convolutions beside a shortcut; the shortcut averages and widens where the block does."""

    def __init__(self, given: int, gives: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(given, gives, 3, stride)
        self.second = ConvNorm(gives, gives, 3, 1)
        self.pool = nn.AvgPool2d(2) if stride == 2 else None
        self.widen = ConvNorm(given, gives, 1, 1) if given != gives or stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, given, H, W) -> (N, gives, H / stride, W / stride)."""
        short = x if self.pool is None else self.pool(x)
        short = short if self.widen is None else self.widen(short)
        return torch.relu(self.second(torch.relu(self.first(x))) + short)


class ShelfNet(Network):
    """The network that is trained from nothing; H and W are multiples of 32."""

    widths: ClassVar = dict(zip((4, 8, 16, 32), WIDTHS, strict=True))
    kind = "A residual network of 3x3 convolutions"

    def __init__(self, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.start = ConvNorm(STEM, WIDTHS[0], 3, 2)
        self.stages = nn.ModuleList()
        given = WIDTHS[0]
        for number, (gives, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            strides = [2 if number else 1] + [1] * (depth - 1)
            blocks = [Block(given if turn == 0 else gives, gives, stride) for turn, stride in enumerate(strides)]
            self.stages.append(nn.Sequential(*blocks))
            given = gives
        self.last = ConvNorm(given, LAST, 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(LAST, classes)
        for stage in self.stages:
            for block in stage:  # every block starts as its shortcut, which makes the first epochs steadier
                nn.init.zeros_(block.second.norm.weight)

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the stages give, for strides of 4, 8, 16, 32, and the average (N, LAST)."""
        x = torch.relu(self.start(torch.relu(self.stem(x))))
        given = []
        for stage in self.stages:
            x = stage(x)
            given.append(x)
        return given, torch.relu(self.last(x)).mean(dim=(2, 3))
