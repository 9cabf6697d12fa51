"""A device that is killed 200 times on its way through updates has a verified model after each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from agent.core import lifecycle

HERE = Path(__file__).parent
KILLS = 220


def test_two_hundred_kills_leave_no_device_without_a_verified_model(tmp_path: Path) -> None:
    paths = [str(HERE.parents[1]), str(HERE.parent / "core"), str(HERE)]
    done = subprocess.run(
        [sys.executable, str(HERE / "update_torture.py"), str(tmp_path), str(KILLS), "1"],
        capture_output=True, text=True, timeout=110, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    print(seen)
    assert seen["kills"] == KILLS
    assert seen["kept"] > 10
    assert set(seen["states"]) >= set(lifecycle.STATES) - {"idle", "rejected", "failed"}
