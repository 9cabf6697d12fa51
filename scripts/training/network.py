"""The network that is trained: a small residual network of 3x3 convolutions, quick on one CPU core."""

import torch
from torch import Tensor, nn

WIDTHS = (24, 48, 96, 176, 256)
"""Channels of the stem and of the four stages (each halves the picture)."""


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

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        stem, one, two, three, four = WIDTHS
        self.stem = ConvNorm(3, stem, 3, 2)
        self.start = ConvNorm(stem, one, 3, 2)
        self.blocks = nn.ModuleList(
            [
                Block(one, one, 1),
                Block(one, two, 2),
                Block(two, two, 1),
                Block(two, three, 2),
                Block(three, three, 1),
                Block(three, four, 2),
            ]
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(four, classes)
        for block in self.blocks:  # every block starts as its shortcut, which makes the first epochs steadier
            nn.init.zeros_(block.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = torch.relu(self.start(torch.relu(self.stem(x))))
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean(dim=(2, 3))))
