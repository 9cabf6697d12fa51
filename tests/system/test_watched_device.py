"""The camera watch in a real device, from the camera to the cloud's store."""

from collections.abc import Callable
from pathlib import Path

import psycopg
from test_device import DEVICE, Box, stop
from waiting import wait_for

from cloud.broker import Broker
from cloud.ingest import Ingest

RULES = """
[watch]
every = "200 ms"
after = "1 s"
dark_hours = []
[[camera]]
name = "dark"
url = "synthetic:3?width=320&height=180&fault=black"
rate_fps = 8
"""


def test_a_black_camera_is_told_at_the_device_and_in_the_cloud(
    broker: Broker, ingest: Callable[..., Ingest], dsn: str, tmp_path: Path
) -> None:
    ingest()
    box = Box(tmp_path / "device", broker, cameras=1, more=RULES)
    with box.running("vision") as vision, box.running("sync") as sync:

        def told() -> list[tuple[object, ...]]:
            with psycopg.connect(dsn) as connection:
                return connection.execute("SELECT device, camera, rule, state, thumbnail IS NULL FROM alert").fetchall()

        wait_for("the notice in the cloud", told)
        status = wait_for("a report", lambda: [c for c in box.status()["vision"]["cameras"] if c["conditions"]])
        assert [(c["name"], c["phase"]) for c in status] == [("dark", "streaming")]
        assert [c["code"] for c in status[0]["conditions"]] == ["camera-black"]
        screen = box.once("status")
        assert screen.returncode == 1
        assert "streaming, BLACK" in screen.stdout
        assert "1 of 2 cameras do not show what they should: dark (black) [camera-unsound]" in screen.stdout
        assert "cure: switch the light on or free its lens" in screen.stdout
        assert stop(vision) == 0
        assert stop(sync) == 0
    # The rendered picture is all but black, and still goes with the notice: somebody may see why.
    assert told() == [(DEVICE, "dark", "camera-black", "raised", False)]
