"""A device that is given models: its folder, its configuration, its vision, and orders laid into its store by hand."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
from waiting import PATIENCE_S, wait_for

from agent.core.updates import Entry, When, begin
from agent.host.clock import SystemClock, boot_id
from agent.store.models import Models
from models import Bundle
from models.bundle import MANIFEST
from wire.orders import ConfigOrder, Desired, ModelOrder

DEVICE = "shop-1"


def now() -> When:
    stamp = SystemClock().now()
    return When(wall_ns=stamp.wall_ns, boot_ns=stamp.boot_ns, boot=boot_id())


class Device:
    """One device. `more` is further configuration; `bundle` the configured model."""

    def __init__(self, folder: Path, bundle: Path | str, cameras: str, update: str = "", more: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "device.toml"
        self.models = Models(self.state / "models")
        self.config.write_text(
            f'[device]\nid = "{DEVICE}"\nstate_dir = "{self.state}"\nruntime_dir = "{folder / "run"}"\n'
            f'[model]\nbundle = "{bundle}"\n{cameras}\n[update]\n{update}\n{more}\n'
        )

    @contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        words = words or ("vision",)
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "agent.cli", *words, "--config", str(self.config)]
            process = subprocess.Popen(command, stderr=log, env=dict(os.environ))
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def bring(self, bundle: Bundle, revision: int) -> None:
        """Do what sync does: lay the files of an order into the store and hand it over."""
        for file in bundle.manifest.files:
            shutil.copyfile(bundle.folder / file.path, self.models.blob(file.sha256))
        ref = bundle.ref
        model = ModelOrder(name=ref.name, version=ref.version, release=ref.release, digest=ref.digest)
        order = Desired(revision=revision, ordered_at=datetime.now(UTC), model=model)
        self.models.journal.keep_newest(order)
        with self.models.journal.turn():
            self.models.assemble((bundle.folder / MANIFEST).read_bytes())
            verified = begin(order, "model", now()).step("fetch", now())
            done = {"bundle": ref.digest[:16], "former": self.models.links()}
            self.models.journal.write(verified.step("verify", now(), **done))

    def bring_settings(self, text: str, revision: int) -> None:
        """Do what sync does with ordered settings that it found valid."""
        order = Desired(revision=revision, ordered_at=datetime.now(UTC), config=ConfigOrder(text=text))
        self.models.journal.keep_newest(order)
        with self.models.journal.turn():
            self.models.journal.write(begin(order, "config", now()).step("verify", now()))

    def settings(self) -> Entry:
        entry = self.models.journal.read("config")
        assert entry is not None
        return entry

    def entry(self) -> Entry:
        entry = self.models.journal.read("model")
        assert entry is not None
        return entry

    def over(self, revision: int, timeout_s: float = PATIENCE_S) -> Entry:
        """Wait until the update has ended."""
        wait_for(
            f"the end of update {revision}, {self.log()[-2000:]}",
            lambda: self.entry().revision == revision and self.entry().over,
            timeout_s,
        )
        return self.entry()

    def results(self) -> list[dict[str, Any]]:
        """All results in the outbox, oldest first."""
        with apsw.Connection(str(self.state / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY) as db:
            db.set_busy_timeout(5000)
            rows = list(db.execute("SELECT body FROM outbox WHERE kind = 'result' ORDER BY seq"))
        return [json.loads(body) for (body,) in rows]

    def counters(self) -> Counter[str]:
        with apsw.Connection(str(self.state / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY) as db:
            db.set_busy_timeout(5000)
            return Counter({str(name): int(n) for name, n in db.execute("SELECT name, n FROM counter")})

    def report(self) -> dict[str, Any]:
        """Vision's last report; empty while there is none."""
        try:
            with apsw.Connection(str(self.state / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY) as db:
                db.set_busy_timeout(5000)
                rows = list(db.execute("SELECT value FROM fact WHERE name = 'vision'"))
        except apsw.Error:
            return {}
        return json.loads(rows[0][0]) if rows else {}


def camera(url: str, rate_fps: float = 20, name: str = "shelf") -> str:
    return f'[[camera]]\nname = "{name}"\nurl = "{url}"\nrate_fps = {rate_fps}\nloop = true\n'
