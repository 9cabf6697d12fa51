"""Prometheus metrics of the fleet, from each device's last status: one scrape of the cloud sees every store."""

from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.store.read import Reader
from cloud.web import live, shapes
from cloud.web.hub import AWAY, Hub

MOST_DEVICES = 1_000
MOST_CAMERAS = 5_000
"""Labels come from devices; a scrape stays bounded whatever they send."""


class Fleet(Collector):
    """Collects at each scrape; what exceeds the bounds is counted and left out."""

    def __init__(self, reader: Reader, hub: Hub, now: Callable[[], datetime]) -> None:
        self._reader = reader
        self._hub = hub
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Give nothing: registering must not ask the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the devices and give their gauges."""
        yield GaugeMetricFamily("shelfwire_live_viewers", "Open streams of the Live page.", self._hub.viewers)
        yield CounterMetricFamily("shelfwire_live_events", "Events told to viewers.", self._hub.pushes)
        yield CounterMetricFamily("shelfwire_live_dropped_viewers", "Viewers who were too slow.", self._hub.dropped)
        now = self._now()
        up = GaugeMetricFamily("shelfwire_store_up", "Whether the database answers.")
        try:
            rows = live.read_rows(self._reader)
        except AWAY:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        devices, cameras = live.devices(rows, now), live.cameras(rows, now)
        left_out = max(0, len(devices) - MOST_DEVICES) + max(0, len(cameras) - MOST_CAMERAS)
        yield GaugeMetricFamily("shelfwire_series_left_out", "Devices and cameras beyond the bounds.", left_out)
        yield from _of_devices(devices[:MOST_DEVICES], now)
        yield from _of_cameras(cameras[:MOST_CAMERAS], now)


def scrape(registry: CollectorRegistry) -> bytes:
    """Write the fleet's metrics and those of this process, ingest among them when it runs here."""
    return generate_latest(REGISTRY) + generate_latest(registry)


def _of_devices(devices: Iterable[shapes.Device], now: datetime) -> Iterable[Metric]:
    online = GaugeMetricFamily("shelfwire_device_online", "1 online, 0 not.", labels=("device",))
    heard = GaugeMetricFamily("shelfwire_device_heard_seconds", "Since the last status.", labels=("device",))
    rows = GaugeMetricFamily("shelfwire_device_outbox_rows", "Records waiting on the device.", labels=("device",))
    age = GaugeMetricFamily("shelfwire_device_outbox_oldest_age_seconds", "Age of the oldest.", labels=("device",))
    dead = GaugeMetricFamily("shelfwire_device_outbox_dead", "Records refused for good.", labels=("device",))
    for device in devices:
        name = (device.device,)
        online.add_metric(name, float(device.presence == "online"))
        heard.add_metric(name, max(0.0, (now - device.last_heard_at).total_seconds()))
        if device.outbox is not None:
            rows.add_metric(name, device.outbox.rows)
            age.add_metric(name, device.outbox.oldest_age_s)
            dead.add_metric(name, device.outbox.dead)
    return online, heard, rows, age, dead


def _of_cameras(cameras: Iterable[shapes.Camera], now: datetime) -> Iterable[Metric]:
    labels = ("device", "camera")
    rate = GaugeMetricFamily("shelfwire_camera_fps", "Frames per second that the device takes.", labels=labels)
    streaming = GaugeMetricFamily("shelfwire_camera_streaming", "1 while pictures come.", labels=labels)
    age = GaugeMetricFamily("shelfwire_camera_answer_age_seconds", "Age of the newest answer.", labels=labels)
    for camera in cameras:
        name = (camera.device, camera.camera)
        rate.add_metric(name, camera.rate_fps)
        streaming.add_metric(name, float(camera.phase == "streaming" and camera.trouble is None))
        if camera.answer is not None:
            age.add_metric(name, max(0.0, (now - camera.answer.as_of).total_seconds()))
    return rate, streaming, age
