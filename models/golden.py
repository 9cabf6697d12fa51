"""The golden inputs: pictures whose scores are known, which a model must give wherever and however it runs."""

from collections.abc import Callable, Mapping

from models.bundle import Bundle, GoldenInput
from models.errors import BundleError
from models.picture import decode_picture
from models.prepare import Pixels
from models.runtimes import Scores
from models.setup import Setup

UNEXPECTED = 1e-3
"""A label that a golden input does not name may score this much, or the tolerance where that is more."""


def check(bundle: Bundle, setup: Setup, scores_of: Callable[[Pixels], Scores]) -> None:
    """Have every golden picture scored. Raises BundleError bundle-golden at the first wrong score."""
    allowed = bundle.manifest.golden.allowed(setup.precision, setup.device)
    for item in bundle.manifest.golden.inputs:
        scores = scores_of(decode_picture(bundle.read(item.path)))
        expected = expected_of(item, setup.precision)
        for label, score in zip(bundle.manifest.labels, map(float, scores), strict=True):
            if abs(score - expected.get(label, 0.0)) > (allowed if label in expected else max(allowed, UNEXPECTED)):
                raise BundleError(
                    "bundle-golden",
                    f"{item.path}: {label} scores {score:.4f}, not {expected.get(label, 0.0):.4f}",
                    "this model does not run as it did where it was made: try the other runtime, or roll back",
                )


def expected_of(item: GoldenInput, precision: str) -> Mapping[str, float]:
    """The scores that a golden input must get in this precision; INT8 without its own is held against FP32's."""
    return item.expected_int8 or item.expected if precision == "int8" else item.expected
