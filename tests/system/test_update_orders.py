"""An order over a real broker: a device hears it, fetches from a signed repository, tries, keeps, and says so."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_model_command import stick, toy
from update_device import DEVICE, Device, camera
from waiting import wait_for

from cloud.broker import CLOUD, Broker
from models import Bundle
from wire import envelope, mqtt, topics
from wire.orders import ConfigOrder, Desired, ModelOrder, Reported


class Operator:
    """Gives orders, and keeps what was reported, newest last."""

    def __init__(self, broker: Broker) -> None:
        options = broker.options(CLOUD, "operator")
        self.link = mqtt.Session(
            replace(options, subscriptions=((topics.topic(DEVICE, topics.REPORTED), 1),)), random.Random(1)
        )
        self.said: list[Reported] = []
        self.link.start()
        wait_for("the operator's connection", lambda: self.link.connected)

    def order(self, desired: Desired) -> None:
        payload = envelope.seal_message("desired", envelope.CLOUD_SOURCE, desired, datetime.now(UTC))
        self.link.publish(topics.topic(DEVICE, topics.DESIRED), payload, retain=True)

    def hear(self) -> Reported | None:
        while (event := self.link.next_event(0)) is not None:
            if isinstance(event, mqtt.Message) and event.payload:
                source = envelope.device_source(DEVICE)
                self.said.append(envelope.open_message(event.payload, "reported", Reported, source)[1])
        return self.said[-1] if self.said else None

    def state(self, what: str, revision: int) -> str:
        said = self.hear()
        return next((u.state for u in (said.updates if said else ()) if (u.what, u.revision) == (what, revision)), "")

    def states(self) -> list[str]:
        found = [u.state for said in self.said for u in said.updates if u.what == "model"]
        return [state for n, state in enumerate(found) if n == 0 or state != found[n - 1]]


@pytest.fixture
def operator(broker: Broker) -> Iterator[Operator]:
    operator = Operator(broker)
    yield operator
    operator.link.publish(topics.topic(DEVICE, topics.DESIRED), b"", retain=True)
    operator.link.publish(topics.topic(DEVICE, topics.REPORTED), b"", retain=True)
    operator.link.stop()


def order_of(bundle: Bundle) -> ModelOrder:
    ref = bundle.ref
    return ModelOrder(name=ref.name, version=ref.version, release=ref.release, digest=ref.digest)


def test_an_order_and_settings_by_mqtt_offline_and_online(tmp_path: Path, broker: Broker, operator: Operator) -> None:
    link = (
        f'[cloud]\nbroker = "mqtt://127.0.0.1:{broker.port}"\nusername = "{DEVICE}"\n'
        f'password_file = "{broker.password_file(DEVICE)}"\nkeepalive = "5 s"\n'
    )
    soon = (
        'shadow_frames = 10\nshadow_every = "50 ms"\ntrial = "2 s"\ntrial_frames = 10\nsettings_trial = "1 s"\n'
        f'repository = "{tmp_path / "repository"}"\n'
    )
    running, new = toy(tmp_path / "running", 1), toy(tmp_path / "two", 2)
    device = Device(tmp_path / "d", running.folder, camera("synthetic:1?width=320&height=180"), soon, link)
    stick(tmp_path / "repository", device, new)
    at = datetime.now(UTC)
    with device.running("run"):
        wait_for("the device's first word", operator.hear)
        operator.order(Desired(revision=1, ordered_at=at, rollout="r-1", model=order_of(new)))
        wait_for("its trial", lambda: operator.state("model", 1) == "trial")
        broker.kill()  # the rest of the trial is offline
        wait_for("it to be kept", lambda: device.entry().state == "committed")
        broker.start()
        wait_for("the news at the reconnect", lambda: operator.state("model", 1) == "committed")
        said = operator.hear()
        assert said is not None
        assert said.model is not None
        assert (said.model.release, said.previous, said.pinned) == (2, None, False)
        assert said.updates[0].rollout == "r-1"
        assert said.updates[0].numbers["frames"] >= 10
        more = Desired(
            revision=2, ordered_at=at, model=order_of(new), config=ConfigOrder(text="[review]\nper_hour = 7\n")
        )
        operator.order(more)
        wait_for("the settings to be kept", lambda: operator.state("config", 2) == "committed")
        assert operator.hear().config_revision == 2  # type: ignore[union-attr]
        assert operator.state("model", 2) == "committed"
    assert operator.states()[0] in ("offered", "downloading", "verified", "compiled")
    assert "shadow" in operator.states()
