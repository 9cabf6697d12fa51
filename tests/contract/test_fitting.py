"""Whether a bundle fits this device at all: agent, runtime, accelerator, memory, and the labels of its alert rules."""

from pathlib import Path

import pytest
import toy_bundles

from agent import config
from agent.app.fitting import fits, terms_of
from agent.errors import Rejected
from models.bundle import Limits

OWN = '[device]\nid = "d"\n[[camera]]\nname = "a"\nurl = "synthetic:1"\ndeadline = "80 ms"\n'
ALERT = '[[alert]]\nname = "red"\nlabel = "reddish"\n'


def test_one_that_fits(tmp_path: Path) -> None:
    fits(config.parse(OWN + ALERT), toy_bundles.bundle(tmp_path / "toy"))


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"labels": ("blueish", "greenish", "crimson")}, "update-incompatible", "reddish"),
        ({"minimum_agent": "9.1.0"}, "update-incompatible", "9.1.0"),
        ({"limits": Limits(runtimes=("openvino",), devices=("gpu",))}, "update-incompatible", "gpu"),
        ({"limits": Limits(runtimes=("onnxruntime",))}, "update-incompatible", "openvino"),
        ({"limits": Limits(runtimes=("openvino",), memory_bytes=1 << 45)}, "update-memory", "MB"),
    ],
)
def test_one_that_does_not(tmp_path: Path, changes: dict[str, object], code: str, says: str) -> None:
    own = config.parse(OWN + ALERT + '[model]\nruntime = "openvino"\n')
    with pytest.raises(Rejected) as error:
        fits(own, toy_bundles.bundle(tmp_path / "toy", **changes))
    assert error.value.code == code
    assert says in str(error.value)
    assert error.value.hint


def test_the_shortest_deadline_is_the_measure_of_speed() -> None:
    assert terms_of(config.parse(OWN)).deadline_ms == 80.0
