"""The network that is trained: a residual network of plain 3x3 convolutions, which every runtime runs well in INT8."""

import torch
from torch import Tensor, nn

STEM = 24
WIDTHS = (32, 80, 160, 320)
DEPTHS = (1, 2, 3, 2)
"""Channels and blocks of the four stages; each halves the picture, the first at a quarter of its side."""

LAST = 640
"""Channels that are averaged over the picture and from which the answer is made."""


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


class ShelfNet(nn.Module):
    """Pictures (N, 3, H, W), BGR, about -2..2, to logits (N, classes); H and W are multiples of 32."""

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
        """What the stages give, (N, channels, H / s, W / s) for s of 4, 8, 16, 32, and the average (N, LAST)."""
        x = torch.relu(self.start(torch.relu(self.stem(x))))
        given = []
        for stage in self.stages:
            x = stage(x)
            given.append(x)
        return given, torch.relu(self.last(x)).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.dropout(self.features(x)[1]))
