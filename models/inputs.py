"""What a model looks at, as its bundle describes it. Apart, because sync reads bundles and needs no pictures."""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Side = Annotated[int, Field(ge=16, le=1024)]
Triple = tuple[float, float, float]


class Input(BaseModel):
    """What a model looks at. A picture is cut, resized to width x height, and (value - mean) / scale is taken.

    `fit` crop takes the middle square-to-shape part, squash takes all of the picture. Mean and scale are per
    channel in the order of `colour`; a uint8 model takes bytes as they are, its graph does the arithmetic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: Side
    height: Side
    fit: Literal["crop", "squash"] = "crop"
    resize: Literal["linear"] = "linear"
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    colour: Literal["bgr", "rgb"] = "bgr"
    mean: Triple = (0.0, 0.0, 0.0)
    scale: Triple = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _arithmetic_is_possible(self) -> Self:
        if any(not math.isfinite(value) for value in (*self.mean, *self.scale)) or any(s == 0 for s in self.scale):
            raise ValueError("mean and scale must be finite, and no scale zero")
        if self.dtype == "uint8" and (self.mean != (0.0, 0.0, 0.0) or self.scale != (1.0, 1.0, 1.0)):
            raise ValueError("a uint8 input takes bytes as they are: mean must be 0 and scale 1")
        return self
