"""The demo as a stranger runs it: one command, everything real, counts that agree, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from waiting import wait_for

from agent.camera.synthetic import Scene

import cv2  # isort: skip - after ours, which set the decoder's limits

KEYS = {
    "answers",
    "deferred",
    "dropped",
    "unanswered",
    "placed",
    "frames_captured",
    "frames_classified",
    "frames_dropped",
    "results_committed",
    "results_in_cloud",
    "duplicates_suppressed",
    "capture_to_answer_ms",
    "capture_to_cloud_ms",
    "device_rss_mb",
    "first_answer_s",
}


def start(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cloud.cli", "demo", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_running(folder: Path) -> list[str]:
    """Processes that still have the demo's folder in their command line."""
    commands = [b" ".join(words).decode() for _, words in processes()]
    return [command for command in commands if str(folder) in command]


def process_of(folder: Path, command: str) -> int:
    """Process id of the `shelfwire-cloud COMMAND` that the demo has started in this folder."""
    demo = next(p for p in processes() if b"demo" in p[1] and str(folder).encode() in p[1])[0]
    children = Path(f"/proc/{demo}/task/{demo}/children").read_text().split()
    return next(pid for pid, words in processes() if str(pid) in children and command.encode() in words)


def processes() -> list[tuple[int, list[bytes]]]:
    """Process id and command line of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")))
            except OSError:
                continue
    return found


def results(port: int) -> int:
    try:
        summary = requests.get(f"http://127.0.0.1:{port}/api/v1/summary", timeout=5).json()
    except (requests.RequestException, ValueError):
        return 0
    return int(summary["total"]["results"])


def submit(config: Path, picture: Path) -> str:
    """Give the device a picture by hand, and wait: the way by which its answer came."""
    cv2.imwrite(str(picture), Scene(3).render(1)[0])
    command = [sys.executable, "-m", "agent.cli", "submit", str(picture), "--config", str(config), "--wait", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return str(json.loads(answer.stdout)["pictures"][0]["answer"]["mode"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_books_balance(counted: dict[str, Any]) -> None:
    """Every frame has one place, and every frame with a place has its answer, here and in the cloud."""
    placed, answers = counted["placed"], counted["answers"]
    assert counted["frames_captured"] == sum(placed.values())
    assert placed["local"] == counted["frames_classified"] == answers["real-time"]
    assert placed["deferred"] == counted["deferred"]
    assert placed["dropped"] == counted["frames_dropped"] == sum(counted["dropped"].values())
    assert counted["unanswered"] == 0
    assert counted["results_committed"] == counted["results_in_cloud"] == counted["frames_classified"]
    assert counted["answers_in_cloud"] == answers
    assert counted["alerts_committed"] == counted["alerts_in_cloud"]
    assert counted["results_waiting"] == 0


def test_headless_with_the_broker_killed_in_the_middle(tmp_path: Path) -> None:
    port = free_port()
    demo = start("--seconds", "12", "--json", "--keep", str(tmp_path / "d"), "--port", str(port))
    try:
        wait_for("results in the cloud", lambda: results(port) > 5)
        assert submit(tmp_path / "d" / "device.toml", tmp_path / "shelf.png") == "asynchronous"
        os.kill(int((tmp_path / "d" / "broker" / "broker.pid").read_text()), signal.SIGKILL)
        out, err = demo.communicate(timeout=150)
    finally:
        demo.kill()
    assert demo.returncode == 0, err
    counted = json.loads(out)
    assert set(counted) >= KEYS
    assert counted["results_in_cloud"] > 20
    assert counted["answers"]["asynchronous"] >= 1
    assert_books_balance(counted)
    for name in ("capture_to_answer_ms", "capture_to_cloud_ms"):
        assert 0 < counted[name]["p50"] <= counted[name]["p95"] <= counted[name]["p99"]
    assert "the broker ended; it starts again" in err
    assert left_running(tmp_path / "d") == []


def test_overload_and_the_night_with_processes_of_the_cloud_killed_in_the_middle(tmp_path: Path) -> None:
    port = free_port()
    words = ["--seconds", "12", "--overload", "4", "--night", "--tls", "--json"]
    demo = start(*words, "--keep", str(tmp_path / "d"), "--port", str(port))
    try:
        wait_for("results in the cloud", lambda: results(port) > 5)
        # The function's host and the worker: what they had in hand is asked again.
        for command in ("function", "worker"):
            os.kill(process_of(tmp_path / "d", command), signal.SIGKILL)
        out, err = demo.communicate(timeout=300)
    finally:
        demo.kill()
    assert demo.returncode == 0, err
    counted = json.loads(out)
    assert set(counted) >= KEYS
    assert_books_balance(counted)
    answers = counted["answers"]
    assert min(answers["real-time"], answers["serverless"], answers["asynchronous"], answers["batch"]) > 0, answers
    assert counted["deferred"] > 0
    assert counted["batch"]["answered"] == counted["batch"]["rows"] > 0
    assert "function ended with code -9; it starts again" in err
    assert "worker ended with code -9; it starts again" in err
    assert left_running(tmp_path / "d") == []


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    port = free_port()
    demo = start("--keep", str(tmp_path / "d"), "--port", str(port))
    try:
        wait_for("results in the cloud", lambda: results(port) > 5)
        page = requests.get(f"http://127.0.0.1:{port}/", timeout=5)
        assert page.status_code == 200
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=100)
    finally:
        demo.kill()
    assert demo.returncode == 0, err
    assert f"Open http://127.0.0.1:{port}/" in err
    assert "Nothing was lost" in out
    assert left_running(tmp_path / "d") == []


def test_a_wrong_folder_and_a_taken_port_are_said_at_once(tmp_path: Path) -> None:
    _, err = start("--frames", str(tmp_path / "none")).communicate(timeout=30)
    assert "[demo-frames]" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        demo = start("--port", str(taken.getsockname()[1]), "--keep", str(tmp_path / "d"))
        _, err = demo.communicate(timeout=90)
    assert demo.returncode not in (0, None)
    assert "port" in err
    assert "cure:" in err
    assert left_running(tmp_path / "d") == []
