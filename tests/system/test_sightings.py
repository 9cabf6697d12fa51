"""`snap` and `aim` beside a running vision and without one, by the real commands."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_device import Box, stop
from waiting import wait_for

from agent.camera.mask import FILL
from models.picture import decode_picture

MASK = """[[camera]]
name = "m"
url = "synthetic:3?width=640&height=360"
rate_fps = 8
mask = [[[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]]
"""
GONE = '[[camera]]\nname = "gone"\nurl = "rtsp://u:tomato77@127.0.0.1:9/x"\nopen_timeout = "1 s"\n'


def snap(box: Box, *words: str, code: int = 0) -> dict[str, Any]:
    answer = box.once("snap", *words, "--json")
    assert answer.returncode == code, answer.stderr
    pictures: list[dict[str, Any]] = json.loads(answer.stdout)["pictures"]
    return pictures[0]


def hidden_is_grey(path: Path) -> bool:
    picture = decode_picture(path.read_bytes())
    height = 360 * picture.shape[1] // 640
    zone = picture[8 : height // 2 - 8, 8 : picture.shape[1] // 2 - 8].astype(int)
    return bool((abs(zone - FILL) <= 60).all() and (abs(zone - FILL) <= 6).mean() > 0.9)


def test_snap_and_aim_beside_vision(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=1, more=MASK + GONE)
    with box.running("vision") as process:
        wait_for("answers", lambda: box.produced() > 5)
        live = snap(box, "m", "-o", str(tmp_path / "live.jpg"), "--commission")
        assert live["state"] in ("confirmed", "pending", "unknown")
        assert live["age_s"] < 5
        assert (live["width"], live["height"]) == (640, 360)
        assert hidden_is_grey(tmp_path / "live.jpg")
        kept = box.state / "commission" / "m.jpg"
        assert live["commissioned"] == str(kept)
        assert kept.stat().st_mode & 0o777 == 0o640
        assert hidden_is_grey(kept)
        assert decode_picture(kept.read_bytes()).shape == (360, 640, 3), "nothing is written on it"
        measured = json.loads(kept.with_suffix(".json").read_text())
        assert measured["sight"] == live["sight"]
        again = snap(box, "m", "-o", str(tmp_path / "again.jpg"))
        assert again["view"]["shift"] < 0.05
        lines = box.once("aim", "m", "--seconds", "1", "--json").stdout.splitlines()
        assert len(lines) >= 3
        assert len({json.loads(line)["frame"] for line in lines}) == len(lines)
        assert json.loads(lines[-1])["best"] > 0
        failing = box.once("snap", "gone")
        assert (failing.returncode, "[camera-refused]" in failing.stderr) == (3, True), failing.stderr
        assert "tomato77" not in failing.stderr
        assert not list((box.folder / "run" / "view").iterdir()), "nobody looks any more"
        assert stop(process) == 0
    assert "tomato77" not in box.log()


def test_all_cameras_without_vision_one_of_them_ill(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=0, more=MASK + GONE)
    answer = box.once("snap", "--all", "--json", "-o", str(tmp_path))
    assert answer.returncode == 1
    alone, ill = json.loads(answer.stdout)["pictures"]
    assert alone["label"] is not None
    assert alone["state"] is None
    assert hidden_is_grey(Path(alone["file"]))
    assert ill["error"]["code"] == "camera-refused"
    assert "tomato77" not in answer.stdout + answer.stderr
    assert [path.name[:2] for path in tmp_path.glob("*.jpg")] == ["m-"]


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("snap",), "which-camera", 2),
        (("snap", "cam-9"), "no-such-camera", 2),
        (("snap", "cam-0", "-o", "x.gif"), "bad-output", 2),
        (("snap", "cam-0", "-o", "/nowhere/x.jpg"), "output-folder", 4),
        (("aim", "cam-9"), "no-such-camera", 2),
        (("aim", "cam-0", "--seconds", "0"), "bad-seconds", 2),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, words: tuple[str, ...], code: str, exit_code: int) -> None:
    answer = Box(tmp_path / "d", None, cameras=1).once(*words)
    assert (answer.returncode, f"[{code}]" in answer.stderr) == (exit_code, True), answer.stderr
    assert "cure:" in answer.stderr


def test_a_dark_picture_is_not_kept_unless_forced(tmp_path: Path) -> None:
    import numpy as np

    import cv2  # isort: skip

    dark = tmp_path / "pictures"
    dark.mkdir()
    cv2.imwrite(str(dark / "1.png"), np.zeros((360, 640, 3), np.uint8))
    box = Box(tmp_path / "d", None, cameras=0, more=f'[[camera]]\nname = "dark"\nurl = "{dark}"\n')
    box.state.mkdir()
    answer = box.once("snap", "dark", "-o", str(tmp_path), "--commission")
    assert (answer.returncode, "[commission-bad]" in answer.stderr) == (2, True), answer.stderr
    assert not (box.state / "commission" / "dark.jpg").exists()
    assert box.once("snap", "dark", "-o", str(tmp_path), "--commission", "--force").returncode == 0
    assert (box.state / "commission" / "dark.jpg").exists()


def test_a_screen_on_a_terminal_is_drawn_over(tmp_path: Path) -> None:
    """By `script`, which gives the command a terminal of its own, as a phone has: narrow."""
    box = Box(tmp_path / "d", None, cameras=1)
    command = " ".join(box.command("aim", "cam-0", "--seconds", "1"))
    answer = subprocess.run(
        ["script", "-qec", f"stty cols 40 rows 24; {command}", "/dev/null"], capture_output=True, text=True,
        timeout=60, check=False, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("\x1b[H") > 2
    drawn = [line.replace("\x1b[K", "") for line in answer.stdout.split("\x1b[H")[1].splitlines()]
    assert max(len(line) for line in drawn) <= 40
    assert any(line.startswith("FOCUS") for line in drawn)
    assert "snap cam-0 --commission" in answer.stdout
    line = box.once("aim", "cam-0", "--seconds", "0.5").stdout.splitlines()[0]
    assert line.startswith("cam-0  focus ")
