"""Values of which every frame makes several."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(made: type[T]) -> type[T]:
    """A data class whose fields nobody sets again. The type checker sees to that, not Python.

    A frozen data class sets each of its fields by a call of its own, which made a twentieth of what a frame costs
    beside the model.
    """
    return dataclass(slots=True, unsafe_hash=True)(made)
