"""Everything that runs, started and stopped in order; what dies is started again, as the service manager would."""

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from cloud.broker import CLOUD, Broker
from cloud.demo import capacity, counts, models
from cloud.demo.child import LOOK_EVERY_S, Child, children_of, rss_bytes
from cloud.demo.device import DEVICE, Places, Sights, configuration, name_of, small_configuration, store_of
from cloud.errors import Broken, Rejected
from cloud.fleet import Authority
from cloud.fleet.broker_config import tls_of

log = logging.getLogger(__name__)

START_S = 60.0
FIRST_ANSWER_S = 30.0
DRAIN_S = 60.0
NIGHT_S = 600.0
ANSWERS_S = 60.0
"""How long the last late answers may take to come back once all else is done."""
USUAL_PORT = 8000
FUNCTION_WORKERS = 2
HOSTS = ("127.0.0.1", "localhost")
"""Names of the demo's servers in their certificates."""
CANNOT_START = (2, 4)
"""Exit codes of the device that a person must act on: wrong input, broken installation."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo shows, and where it lives."""

    folder: Path
    port: int | None = None
    sights: Sights = field(default_factory=Sights)
    tls: bool = False
    """Broker and API with TLS, and devices that are enrolled by codes, as in a shop."""
    devices: int = 1
    """From two on there is a repository of models too, to roll a model out to them."""


class Demo:
    """Broker, function host, cloud, worker, one device with four cameras, and further small ones."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = options.folder
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config = self._folder / "device.toml"
        self.broker = self._make_broker()
        self._port = options.port if options.port is not None else usual_or_free_port()
        self._function_port = free_port()
        self._device_port = free_port()
        self._local_port = free_port()
        self._cloud: list[Child] = []
        self._device: Child | None = None
        self._others: list[Child] = []
        self._root: Path | None = None
        self._peak_rss_bytes = 0

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def _numbers(self) -> range:
        return range(1, self._options.devices + 1)

    def _make_broker(self) -> Broker:
        folder = self._folder / "broker"
        if not self._options.tls:
            return Broker(folder, [name_of(number) for number in self._numbers])
        authority = Authority.in_data(self._folder / "cloud")
        return Broker(folder, tls=tls_of(authority, HOSTS, (), datetime.now(UTC)))

    # -- start ---------------------------------------------------------------------------------------------------

    def start(self, say: Callable[[str], None]) -> None:
        """Start everything; returns when the page answers. Raises with the cure when something does not start."""
        say("starting the broker")
        self.broker.start()
        if self._options.devices > 1:
            say("signing two models for the repository")
            self._root = models.prepare(self._folder, self._run_json)
        say("starting the cloud: PostgreSQL, ingest, web, function host, worker")
        self._start_cloud()
        self._write_configurations()
        for number in self._numbers if self._options.tls else ():
            self._enrol(number, say)
        say(f"starting {'the device' if self._options.devices == 1 else 'the devices'}: vision and sync")
        self._device = self._make_device(say)
        self._others = [self._device_child(number) for number in self._numbers[1:]]
        for child in (self._device, *self._others):
            child.start()
        say("waiting for the first answer")
        self._wait_for_answer()

    def _start_cloud(self) -> None:
        function = self._child(
            "function", "cloud", "function", "--port", str(self._function_port),
            "--concurrency", str(FUNCTION_WORKERS), "--idle", "15",
        )  # fmt: skip
        serve = self._child(
            "cloud", "cloud", "serve", "--port", str(self._port), "--data", str(self._folder / "cloud"),
            "--broker", f"mqtt://{CLOUD}@127.0.0.1:{self.broker.options(CLOUD).port}",
            "--password-file", str(self.broker.password_file(CLOUD)),
            "--function", f"http://127.0.0.1:{self._function_port}/", *self._for_devices(),
        )  # fmt: skip
        # It uses the PostgreSQL that the cloud has started.
        worker = self._child("worker", "cloud", "worker", "--data", str(self._folder / "cloud"))
        self._cloud = [function, serve, worker]
        function.start()
        serve.start()
        self._wait_for_page(serve)
        worker.start()

    def _for_devices(self) -> list[str]:
        """What `serve` is told of the port for devices."""
        if not self._options.tls:
            return []
        hosts = [word for host in HOSTS for word in ("--device-host", host)]
        return [
            "--device-port", str(self._device_port), "--device-listen", "127.0.0.1", *hosts,
            "--device-broker", f"mqtts://127.0.0.1:{self.broker.port}", "--broker-folder", str(self._folder / "broker"),
        ]  # fmt: skip

    def _enrol(self, number: int, say: Callable[[str], None]) -> None:
        """Enrol a device as a technician does: a code from the cloud, typed on the device."""
        if (self._folder / f"{self._config_of(number).stem}" / "identity" / "enrolled.toml").exists():
            return  # the demo goes on in a folder of before
        say(f"enrolling {name_of(number)} by a one-time code")
        words = ("fleet", "device", "add", name_of(number), "--store", store_of(number), "--replace")
        given = self._run_json("cloud", *words, "--data", str(self._folder / "cloud"), "--json", timeout_s=START_S)
        enrol = ("enroll", given["url"], "--code", given["code"], "--no-restart")
        told = self._agent(*enrol, timeout_s=START_S, config=self._config_of(number))
        for step in told["steps"]:
            say(f"  {step['step']:<12} {step['text']}")
        if not told["heard"]:
            raise Broken("demo-enrol", "the enrolled device does not reach its cloud", f"see {self._folder}/*.log")

    def _child(self, name: str, package: str, *words: str) -> Child:
        command = [sys.executable, "-m", f"{package}.cli", *words]
        return Child(name, command, self._folder / f"{name}.log")

    def _make_device(self, say: Callable[[str], None]) -> Child:
        sights = self._options.sights
        cores: frozenset[int] = frozenset()
        if sights.overload is not None:
            # A small device: one core of its own. The others are the cloud's.
            core = max(os.sched_getaffinity(0))
            cores = frozenset({core})
            fps = capacity.of_core(core)
            say(f"one core answers {fps:.0f} frames/s; the cameras give {sights.overload:g} times as many")
            sights = sights.with_capacity(fps)
        self._write_configuration(sights)
        device = self._device_child(1)
        device.cores = cores
        return device

    def _device_child(self, number: int) -> Child:
        config = self._config_of(number)
        return self._child(config.stem, "agent", "run", "--config", str(config), "--drain", str(int(DRAIN_S)))

    def _config_of(self, number: int) -> Path:
        return self._config if number == 1 else self._config.with_stem(f"device-{number}")

    def _places(self, number: int) -> Places:
        password_file, api = self.broker.password_file(name_of(number)), f"http://127.0.0.1:{self._port}"
        local_port = self._local_port if number == 1 else 0
        return Places(
            self._folder, self.broker.port, password_file, api, self._options.tls, local_port, number, self._root,
            updates=self._options.devices > 1,
        )  # fmt: skip

    def _write_configuration(self, sights: Sights) -> None:
        self._config.write_text(configuration(sights, self._places(1)), encoding="utf-8")

    def _write_configurations(self) -> None:
        self._write_configuration(self._options.sights)
        for number in self._numbers[1:]:
            self._config_of(number).write_text(small_configuration(self._places(number)), encoding="utf-8")

    def _wait_for_page(self, serve: Child) -> None:
        deadline_s = time.monotonic() + START_S
        pause = threading.Event()
        while time.monotonic() < deadline_s:
            if serve.exit_code is not None:
                raise Broken("demo-cloud", f"the cloud did not start:\n    {serve.last_words()}",
                             "do what its last lines say")  # fmt: skip
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}healthz", timeout=2).ok:
                    return
            pause.wait(0.1)
        raise Broken("demo-cloud", f"the page did not come up within {START_S:.0f} s", f"see {serve.log_file}")

    def _wait_for_answer(self) -> None:
        """Wait until an answer is in the cloud; a camera that gives none must not keep the page closed for long."""

        def answered() -> bool:
            self.look_after()
            with contextlib.suppress(requests.RequestException):
                return bool(requests.get(f"{self.url}api/v1/summary", timeout=5).json()["total"]["results"])
            return False

        if not _wait(answered, FIRST_ANSWER_S):
            words = self._device.last_words() if self._device else ""
            text = "no answer after %.0f s; the page says what is wrong. The device said:\n    %s"
            log.warning(text, FIRST_ANSWER_S, words)

    # -- while it runs -------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Start again what has died, and note how much memory the device takes."""
        self._look_after_cloud()
        if self._device is not None:
            self._refuse_to_repeat(self._device)
            self._device.look_after()
        for other in self._others:
            self._refuse_to_repeat(other)
            other.look_after()
        self._peak_rss_bytes = max(self._peak_rss_bytes, self._device_rss_bytes())

    def _refuse_to_repeat(self, device: Child) -> None:
        """A device that says that its input or installation is wrong would say the same again."""
        if device.exit_code in CANNOT_START:
            raise Broken("demo-device", f"the device did not start:\n    {device.last_words()}", "do what it says")

    def _look_after_cloud(self) -> None:
        if not self.broker.running:
            log.warning("the broker ended; it starts again")
            self.broker.start()
        for child in self._cloud:
            child.look_after()

    def _device_rss_bytes(self) -> int:
        """Resident memory of vision and sync together; pages that both use count twice."""
        process = self._device.process if self._device else None
        return sum(rss_bytes(pid) for pid in children_of(process.pid)) if process is not None else 0

    def progress(self) -> str:
        """One line about how it goes."""
        try:
            total = requests.get(f"{self.url}api/v1/summary", timeout=2).json()["total"]
            devices = requests.get(f"{self.url}api/v1/devices", timeout=2).json()["devices"]
        except (requests.RequestException, ValueError):
            return "the cloud does not answer just now"
        shares = counts.shares(devices[0].get("frames") if devices else None)
        return f"{total['results']:,} results and {total['alerts']:,} alerts in the cloud{shares}"

    # -- the night -----------------------------------------------------------------------------------------------

    def night(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Close the day now: seal what waits, send it, and have the batch answer it. Gives what the batch said."""
        say("night: sealing the day into shards")
        sealed = self._agent("nightly", "--now", timeout_s=NIGHT_S)
        if not sealed["sealed"]:
            say("night: nothing was kept or deferred, so there is nothing to score")
            return sealed
        say("night: sending the shards to the cloud")
        if not self._wait_for(lambda: not self._agent("nightly", "--list")["shards"], NIGHT_S):
            raise Broken("demo-night", "the shards did not reach the cloud", f"see {self._folder / 'device.log'}")
        days = sorted({shard["day"] for shard in sealed["sealed"]})
        for day in days:
            say(f"night: scoring {day}")
            data = str(self._folder / "cloud")
            scored = self._run_json("cloud", "batch", "run", day, "--data", data, "--json", timeout_s=NIGHT_S)
            say(f"night: {scored['answered']:,} of {scored['rows']:,} frames answered in {scored['took_s']:.1f} s")
            say(f"night: the report is at {self.url}batch/{day}")
        return scored

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self, say: Callable[[str], None], *, night: bool) -> dict[str, Any]:
        """Stop the cameras, wait until every frame has its answer in the cloud and on the device, and count.

        Frames that were deferred have theirs only after the night, which is run for them, and with `night` in any case.
        """
        if self._device is None:
            raise Rejected("demo-not-started", "the device was never started", "start the demo again")
        say("stopping the cameras and waiting until the cloud has everything")
        for child in (self._device, *self._others):
            child.stop(DRAIN_S + 30, self._look_after_cloud)
        others = {name_of(n): self._agent("status", config=self._config_of(n)) for n in self._numbers[1:]}
        self._others = []
        # Sync goes on alone: vision is dead, and what is on its way still arrives.
        self._device = self._child("sync", "agent", "sync", "--config", str(self._config))
        self._device.start()
        scored = self.night(say) if night or self.status()["unanswered"] else None
        say("waiting for the last late answers")
        if not self._wait_for(self._all_answered, ANSWERS_S):
            log.warning("some answers have not come back within %.0f s", ANSWERS_S)
        self._device.stop(20, self._look_after_cloud)
        window = {"window_s": 86_400, "same_clock": True}
        summary = requests.get(f"{self.url}api/v1/summary", params=window, timeout=30).json()
        return counts.report(self.status(), counts.of_one(summary, DEVICE, others), scored, self._peak_rss_bytes)

    def _all_answered(self) -> bool:
        status = self.status()
        copied = status["frames"]["copied"]
        asked = copied.get("uncertain", 0) + copied.get("audit", 0)
        waits = status["unanswered"] or status["outbox"]["waiting"] or status["answers"]["asynchronous"] < asked
        return not waits

    def _wait_for(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        def look() -> bool:
            self.look_after()
            return holds()

        return _wait(look, timeout_s)

    def status(self) -> dict[str, Any]:
        """What the device itself says."""
        return self._agent("status")

    def _agent(self, *words: str, timeout_s: float = 30, config: Path | None = None) -> dict[str, Any]:
        return self._run_json("agent", *words, "--json", "--config", str(config or self._config), timeout_s=timeout_s)

    def _run_json(self, package: str, *words: str, timeout_s: float) -> dict[str, Any]:
        command = [sys.executable, "-m", f"{package}.cli", *words]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        try:
            said: dict[str, Any] = json.loads(answer.stdout)
        except ValueError:
            said = {"error": {"message": answer.stderr[-2000:]}}
        if "error" in said:
            name = " ".join(words[:2])
            raise Broken("demo-command", f"{package} {name} failed: {said['error']['message']}", "do what it says")
        return said

    def stop(self) -> None:
        """Stop everything, the device first and the broker last."""
        for child in (self._device, *self._others, *reversed(self._cloud)):
            if child is not None:
                child.stop(20)
        self.broker.stop()

    def addresses(self) -> dict[str, str]:
        """Where everything is, for a person who wants to look behind the page."""
        data = f"--data {self._folder / 'cloud'}"
        rollout = {
            "fleet": f"{self.url}fleet",
            "rollout": f"shelfwire-cloud fleet rollout start produce --batch 1 --batch all --soak 10s {data}",
            "abort": f"shelfwire-cloud fleet rollout abort produce-2 {data}",
        }  # fmt: skip
        return {
            "page": self.url,
            "jobs": f"{self.url}jobs",
            "modes": f"{self.url}modes",
            "batch": f"{self.url}batch",
            "API": f"{self.url}api/v1/docs",
            "function": f"http://127.0.0.1:{self._function_port}/meter   (what its calls have cost)",
            "broker": f"mosquitto_sub -p {self.broker.options(CLOUD).port} -u {CLOUD} "
            f"-P $(cat {self.broker.password_file(CLOUD)}) -t 'shelfwire/v1/#'   (package mosquitto-clients)",
            "local": f"http://127.0.0.1:{self._local_port}/   (the device's own page and API)",
            "device": f"shelfwire-agent status --config {self._config}",
            "submit": f"shelfwire-agent submit PICTURE --wait --config {self._config}",
            **(rollout if self._options.devices > 1 else {}),
            "logs": f"{self._folder}/*.log",
        }

    def remove(self) -> None:
        """Delete the demo's folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _wait(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until it holds; False when the time is over. For what happens in other processes, which tell nobody."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        pause.wait(LOOK_EVERY_S)
    return True


def usual_or_free_port() -> int:
    """Give port 8000 when nobody has it, else a free one."""
    for port in (USUAL_PORT, 0):
        with contextlib.suppress(OSError):
            return free_port(port)
    raise Broken("demo-port", "no port is free", "close some programs")


def free_port(port: int = 0) -> int:
    """Give a port of this machine that nobody has now: `port` itself, or any. Raises OSError when it is taken."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])
