"""The demo with several devices: their configurations are valid and apart, and so are their books."""

import pathlib

import pytest

from agent import config
from cloud.demo.counts import of_one
from cloud.demo.device import Places, Sights, configuration, name_of, small_configuration, store_of


def places(folder: pathlib.Path, number: int, *, enrolled: bool = False) -> Places:
    password = folder / f"password-{number}"
    password.write_text("secret\n")
    password.chmod(0o600)
    root = folder / "root.json"
    return Places(folder, 1883, password, "http://127.0.0.1:8000", enrolled, 0, number, root, updates=True)


def test_two_devices_stand_in_each_shop() -> None:
    assert [name_of(n) for n in (1, 2, 3)] == ["demo-device", "demo-device-2", "demo-device-3"]
    assert [store_of(n) for n in (1, 2, 3, 4, 5)] == [
        "demo store", "demo store", "demo store 2", "demo store 2", "demo store 3",
    ]  # fmt: skip


def test_every_device_has_a_configuration_of_its_own_that_the_agent_takes(tmp_path: pathlib.Path) -> None:
    texts = [configuration(Sights(), places(tmp_path, 1)), small_configuration(places(tmp_path, 2))]
    read = []
    for n, text in enumerate(texts):
        file = tmp_path / f"{n}.toml"
        file.write_text(text)
        read.append(config.load(file))
    assert [one.device.id for one in read] == ["demo-device", "demo-device-2"]
    assert read[0].device.state_dir != read[1].device.state_dir
    for one in read:
        assert one.update.root_file == tmp_path / "root.json"
        assert one.repository == "http://127.0.0.1:8000/repository"
        assert one.update.trial == 20.0


@pytest.mark.parametrize("number", [1, 2])
def test_an_enrolled_device_names_no_broker_itself(tmp_path: pathlib.Path, number: int) -> None:
    text = small_configuration(places(tmp_path, number, enrolled=True))
    assert "broker" not in text
    assert "root_file" not in text


def test_the_books_of_several_devices_are_kept_apart() -> None:
    rows = [{"device": "demo-device", "results": 10}, {"device": "demo-device-2", "results": 4}]
    summary = {"total": {"results": 14}, "devices": rows}
    others = {"demo-device-2": {"results": {"produced": 5}}}
    made = of_one(summary, "demo-device", others)
    assert made["total"]["results"] == 10
    assert made["others"] == {"demo-device-2": {"results_committed": 5, "results_in_cloud": 4}}
    assert of_one(summary, "demo-device", {}) == summary
