"""The vision process: cameras -> pipeline -> outbox. It has no way to the internet and needs none."""

import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

from agent.app import Stop
from agent.app.lives import Lives
from agent.app.local import LocalSide, open_local
from agent.app.updating import Updating, take_settings_back
from agent.app.using import Noted, bundle_in_use, configured_bundle, make_rules, open_classifier
from agent.camera.encode import lower_priority, to_jpeg
from agent.camera.health import CameraState
from agent.camera.last import LastPictures
from agent.camera.mailboxes import Mailboxes
from agent.camera.reader import CameraReader, stop_all
from agent.camera.showing import Showing
from agent.camera.sources import open_source
from agent.camera.watch import Watch, Watched
from agent.config import Camera, Config
from agent.core import review, watching
from agent.core.budget import Budget
from agent.core.decide import Conclusion
from agent.core.placement import NOT_ALLOWED
from agent.core.pulse import Pulse, vision_sentence
from agent.core.records import moment
from agent.errors import Rejected, ShelfwireError
from agent.host import heap
from agent.host.clock import SystemClock, boot_id
from agent.host.metrics import Metrics, Sample
from agent.host.notify import Notifier
from agent.host.process import age_s, rss_bytes
from agent.host.processor import at_once_for, share_cores, workers_for
from agent.overflow import Overflow
from agent.pipeline import Offload, Pipeline
from agent.ports import Frame
from agent.standing import load_states
from agent.store.facts import FactReader
from agent.store.recorder import Recorder
from agent.store.writer import Limits, Writer
from agent.ways import Terms, Ways
from models import Answer, Classifier

log = logging.getLogger(__name__)

REPORT_EVERY_S = 1.0
STOP_FRAMES_S = 4.0
"""What a stop waits for all frames in flight before it gives them up. With what follows a stop ends within 20 s."""
STOP_SPILL_S = 3.0
"""What a stop waits for pictures on their way to the spool before it drops and counts them."""
STOP_STORE_S = 6.0
"""What a stop tries to commit the last records."""


def check_reload(new: Config, old: Config) -> None:
    """Refuse a configuration that vision could not run with. Raises `Rejected` and `Broken` with the cure."""
    _need_camera(new)
    if (new.model.bundle, new.model.setup) != (old.model.bundle, old.model.setup):
        open_classifier(new, 1, new.model.setup, configured_bundle(new)).close()
    make_rules(new, bundle_in_use(new).manifest.labels)


def _need_camera(config: Config) -> None:
    if not config.camera:
        raise Rejected("no-camera", "no camera is configured", "add a [[camera]] section with name and url")


class Vision:
    """Everything vision is made of, started and stopped in order."""

    def __init__(self, config: Config, stop: Stop, lives: Lives | None = None) -> None:
        _need_camera(config)
        self._config = config
        self._stop = stop
        self._lives = lives or Lives(config, stop, Notifier("", 0))
        self._pulse = Pulse()
        self._heap = heap.Returned()
        self._born_s = 0.0 if self._lives.first else age_s()
        self._clock = SystemClock()
        limits = Limits(
            config.outbox.max_rows,
            config.outbox.max_bytes,
            pictures_max_bytes=config.spool.max_bytes,
            keep_free_bytes=config.spool.keep_free,
        )
        self._writer = Writer(config.device.state_dir, limits, config.outbox.reserve)
        self._local: LocalSide | None = None
        workers = workers_for(config)
        share_cores(workers)
        try:
            self._updating = Updating(config, workers, self._clock, stop, self._lives, self._ills, self._late)
        except BaseException:
            self._writer.close()
            raise
        try:
            classifier = self._updating.using.classifier
            self._local = open_local(config, classifier, self._describe_all, self._frames_wait, stop)
            self._metrics = Metrics(config.metrics.vision_port, self._samples)
        except BaseException:
            self._writer.close()
            if self._local is not None:
                self._local.stop()
            self._updating.stop()
            raise
        self._run_id = self._start_run()
        self._recorder = Recorder(
            self._writer,
            self._clock,
            rows=config.outbox.commit_rows,
            interval_s=config.outbox.commit_interval,
            doorbell=config.device.runtime_dir / "doorbell",
            on_crash=stop.crash,
        )
        names = [camera.name for camera in config.camera]
        at_once = at_once_for(config, workers)
        self._mailboxes = Mailboxes(names, at_once)
        self._pictures = LastPictures(
            config.device.runtime_dir / "pictures",
            config.privacy.thumbnail_interval,
            allowed=config.privacy.pictures != "none",
        )
        self._showing = Showing(config.device.runtime_dir, config.camera, self._clock)
        states = load_states(names, self._writer.fact, same_boot=self._same_boot)
        self._facts = FactReader(config.device.state_dir)
        self._watch = self._make_watch()
        self._offload = self._make_offload(at_once) if config.frames_may_leave else None
        self._pipeline = Pipeline(
            self._mailboxes,
            self._updating.using.policy,
            self._recorder,
            self._pictures,
            self._clock,
            states,
            self._metrics.answered,
            self._offload,
            self._witness,
            self._watch.blind,
        )
        self._readers = [self._reader(camera) for camera in config.camera]
        self._workers = [
            self._thread(f"inference-{n + 1}", lambda: self._pipeline.work(classifier.worker(), stop.event))
            for n in range(workers)
        ]
        self._spiller = self._thread("spool", self._spill)
        self._first_answer_s: float | None = None
        self._noted = Noted()

    def _make_offload(self, at_once: int) -> Offload:
        """Put together what frames for the cloud need, with the budget as the last run left it."""
        config, boot, now = self._config, boot_id(), self._clock.now()
        paid = config.serverless
        budget = Budget(paid.per_hour, paid.burst, paid.per_day_usd, paid.usd_per_call, now.boot_ns)
        budget.take_up(self._writer.fact("budget"), now.boot_ns, boot)
        deadline_ms = {c.name: 1000 * (c.deadline or config.placement.deadline) for c in config.camera}
        terms = Terms(config.frames_may_leave, config.placement.overflow, deadline_ms, config.spool.max_side)
        again = config.review
        rng = random.Random()  # noqa: S311 - draws what is audited
        return Offload(
            Ways(terms, budget, self._writer.spool, boot, self._clock.trust),
            Overflow(),
            self._writer.spool,
            partial(to_jpeg, quality=config.spool.quality, max_side=config.spool.max_side),
            review.Review(
                review.Terms(again.below, again.audit, again.per_hour, config.batch.keep_every), rng, now.boot_ns
            ),
            paid.expire,
            at_once,
        )

    def _make_watch(self) -> Watch:
        config, rules = self._config, self._config.watch
        wanted = tuple(c for c in watching.CONDITIONS if c.removeprefix("camera-") in rules.conditions)
        return Watch(
            config.camera,
            watching.Terms(wanted, rules.after, rules.dark_hours),
            rules.every,
            self._tell,
            config.device.state_dir / "commission",
            self._writer.fact,
            self._stop.crash,
        )

    def _tell(self, frame: Frame, notices: Sequence[watching.Notice], facts: Mapping[str, str]) -> bool:
        return self._pipeline.tell(frame, notices, facts)

    def _start_run(self) -> str:
        boot = boot_id()
        self._same_boot = self._writer.fact("boot") == boot
        run_id = self._writer.start_run(boot, self._clock.now().wall_ns, version("shelfwire"))
        self._writer.put([], facts={"boot": boot})
        return run_id

    def _reader(self, camera: Camera) -> CameraReader:
        rng = random.Random(f"{self._config.device.id}/{camera.name}/{os.getpid()}")  # noqa: S311 - spreads retries
        sink = Watched(self._pipeline, self._watch)
        return CameraReader(camera, lambda: open_source(camera, self._clock), sink, self._clock, rng)

    def run(self, *, exit_when_done: bool = False) -> bool:
        """Work until stopped; with `exit_when_done` also until every source has ended. True when a reload ended it."""
        log.info(
            "run %s: model %s %s on %s, %d cameras",
            self._run_id, self._model["name"], self._model["version"], self._classifier.setup, len(self._readers),
        )  # fmt: skip
        self._noted.tell(self._classifier)
        self._recorder.start()
        self._pictures.start()
        self._watch.start()
        self._showing.start()
        if self._offload is not None:
            self._spiller.start()
        for thread in self._workers:
            thread.start()
        for reader in self._readers:
            reader.start()
        if self._local is not None:
            self._thread("local", self._local.run).start()
            log.info("local page: %s", self._local.url)
        self._updating.start(self._pipeline, self._local.take_up if self._local is not None else lambda _: None)
        again = False
        while not self._clock.wait(self._stop.event, REPORT_EVERY_S):
            self._heed()
            self._updating.tick(sum(reader.state().captured for reader in self._readers), self._pipeline.failed)
            self._report(stopped=False)
            self._check_threads()
            self._notify()
            self._heap.tick(self._clock.now().boot_ns)
            again = self._lives.reload_due()
            if again or (exit_when_done and self._mailboxes.finished):
                break
        if not again:
            self._lives.notifier.stopping()
        self._shut_down()
        return again

    def _witness(self, frame: Frame, answer: Answer, conclusion: Conclusion, total_ms: float) -> None:
        """Let whoever looks on this device see an answered frame: `snap` and `aim`, the local page, an update."""
        self._updating.saw(frame, answer, total_ms)
        self._showing.saw(frame, answer, conclusion, total_ms)
        if self._local is not None:
            self._local.looking.saw(frame, answer, conclusion, total_ms)

    def _ills(self) -> list[str]:
        """List what is wrong now, for settings on trial."""
        states = [reader.state() for reader in self._readers]
        ills = [f"camera {s.name}: {s.code or s.phase}" for s in states if s.phase in ("opening", "failed", "stalled")]
        return ills if ills or self._pipeline.progress else ["no frame was answered yet"]

    def _late(self) -> int:
        """Count the frames that this device could not answer in time, by whatever became of them."""
        displaced = sum(counts.displaced for counts in self._mailboxes.counts().values())
        return displaced + sum(self._pipeline.placed.values())

    @property
    def _model(self) -> Mapping[str, Any]:
        return self._updating.using.policy.model

    @property
    def _classifier(self) -> Classifier:
        return self._updating.using.classifier

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        """Make a thread whose end by a bug ends the process."""

        def guarded() -> None:
            try:
                body()
            except Exception:
                log.exception("the thread %s died", name)
                self._stop.crash()

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _spill(self) -> None:
        lower_priority()
        self._pipeline.spill()

    def _heed(self) -> None:
        """Hear from the model whether it runs as before, and from sync whether the link and the function are up."""
        if self._noted.tell(self._classifier) and self._local is not None:
            self._local.take_up(self._classifier)
        if self._offload is not None:
            facts = self._facts.read("function", "sync")
            self._offload.ways.heed(facts.get("function"), facts.get("sync"))

    def _notify(self) -> None:
        """Tell the service manager how it goes: ready once each camera is open or known to be ill, alive if at work."""
        tell = self._lives.notifier
        cameras = [reader.state() for reader in self._readers]
        if self._mailboxes.finished or self._is_at_work():
            tell.alive()
        if all(camera.phase != "opening" for camera in cameras):
            tell.ready()
        link = self._facts.link_words()
        described = [asdict(camera) for camera in cameras]
        tell.status(vision_sentence(described, self._model, self._facts.due(), link, self._lives.kept))

    def _is_at_work(self) -> bool:
        turns, progress = self._pipeline.turns, self._pipeline.progress
        return len(turns) == len(self._workers) and self._pulse.beats(turns, progress, waiting=self._frames_wait())

    def _check_threads(self) -> None:
        if self._first_answer_s is None and self._pipeline.first_answered:
            self._first_answer_s = age_s() - self._born_s
        for reader in self._readers:
            if reader.crashed is not None:
                log.error("the reader of camera %s died: %s", reader.camera.name, reader.crashed)
                self._stop.crash()

    def _shut_down(self) -> None:
        """Stop capturing, finish what is in flight, spool what overflowed, flush the store, leave."""
        self._stop.event.set()
        self._updating.stop()
        if self._local is not None:
            self._local.stop()
        stop_all(self._readers)
        self._watch.stop()
        self._mailboxes.close()
        until_s = time.monotonic() + STOP_FRAMES_S
        for thread in self._workers:
            thread.join(max(0.0, until_s - time.monotonic()))
        self._pipeline.close(STOP_SPILL_S)
        self._pictures.stop()
        self._showing.stop()
        self._report(stopped=True)
        if not self._recorder.stop(STOP_STORE_S):
            log.error("the last records could not be stored")
            self._stop.crashed = True
        self._metrics.close()
        self._facts.close()
        self._writer.close()
        if not any(thread.is_alive() for thread in self._workers):
            self._updating.close()

    def _report(self, *, stopped: bool) -> None:
        """Keep vision's state in the store, where sync and `status` find it, and count the frames that were dropped."""
        cameras = [reader.state() for reader in self._readers]
        now = self._clock.now()
        report = {
            "pid": os.getpid(),
            "stopped": stopped,
            "run": self._run_id,
            "at": moment(now.wall_ns),
            "boot_ns": now.boot_ns,
            "boot": boot_id(),
            "model": self._model,
            "runtime": self._classifier.runtime,
            "setup": self._classifier.setup.brief,
            "notes": [note.to_json() for note in self._classifier.notes],
            "tuning": self._updating.describe_tuning(),
            "first_answer_s": self._first_answer_s,
            "rss_bytes": rss_bytes(),
            "store_trouble": self._recorder.trouble,
            "page": self._local.url if self._local else "",
            "frames_read": sum(camera.captured for camera in cameras),
            "placement": self._describe_placement(),
            "cameras": [self._describe(camera) for camera in cameras],
        }
        facts = {"vision": json.dumps(report)}
        if self._offload is not None:
            facts["budget"] = self._offload.ways.budget_fact(now)
        counts: Counter[str] = self._pipeline.collect_counts()
        if not self._recorder.record([], +counts, facts):
            log.warning("the store is too far behind to take a report")
            self._pipeline.uncollect(counts)

    def _describe(self, camera: CameraState) -> dict[str, object]:
        conditions = self._watch.conditions(camera.name)
        return {**asdict(camera), "conditions": conditions, "dropped": self._dropped(camera.name)}

    def _describe_all(self) -> list[dict[str, object]]:
        return [self._describe(reader.state()) for reader in self._readers]

    def _frames_wait(self) -> bool:
        return any(counts.waiting for counts in self._mailboxes.counts().values())

    def _dropped(self, camera: str) -> int:
        return self._mailboxes.counts()[camera].dropped + self._pipeline.books.dropped(camera)

    def _describe_placement(self) -> dict[str, object]:
        """Say what is open beside the device, for `status`; an empty text is an open way."""
        described: dict[str, object] = {"service_ms": round(self._pipeline.service_ms, 2)}
        if self._offload is None:
            return {**described, "function": NOT_ALLOWED, "night": NOT_ALLOWED}
        waiting = len(self._offload.overflow)
        return {**described, **self._offload.ways.describe(self._clock.now()), "overflow_waiting": waiting}

    def _samples(self) -> Iterable[Sample]:
        for reader in self._readers:
            state = reader.state()
            streaming = float(state.phase == "streaming")
            label, dropped = ("camera", state.name), self._dropped(state.name)
            yield Sample("shelfwire_frames_captured", "Frames captured.", state.captured, counter=True, label=label)
            yield Sample("shelfwire_frames_dropped", "Frames dropped.", dropped, counter=True, label=label)
            yield Sample("shelfwire_camera_streaming", "1 while the camera gives pictures.", streaming, label=label)
            wrong = len(self._watch.conditions(state.name))
            yield Sample("shelfwire_camera_conditions", "What is wrong with what it shows.", wrong, label=label)
            yield Sample("shelfwire_camera_rate_fps", "Frames per second.", state.rate_fps, label=label)
        placed = {"local": self._pipeline.progress, **self._pipeline.placed}
        for where, n in placed.items():
            label = ("where", where)
            yield Sample("shelfwire_frames_placed", "Frames by who answers them.", n, counter=True, label=label)
        yield Sample("shelfwire_service_ms", "What one worker takes for one frame.", self._pipeline.service_ms)
        yield Sample("shelfwire_records_committed", "Records committed.", self._recorder.committed, counter=True)
        yield Sample(
            "shelfwire_store_trouble", "1 while the store refuses records.", float(bool(self._recorder.trouble))
        )
        yield Sample("shelfwire_memory_rss_bytes", "Resident memory of vision.", rss_bytes())


def run_vision(
    config: Config, stop: Stop, read: Callable[..., Config] | None = None, *, exit_when_done: bool = False
) -> int:
    """Run the vision process; gives its exit code. Raises what a person must mend before it can start.

    `read` reads the configuration again, for a reload.
    """
    lives = Lives(config, stop, Notifier.from_environment(), read, lambda new: check_reload(new, lives.config))
    lives.notifier.status("checking the model")

    def begin() -> Callable[[], bool]:
        return partial(Vision(lives.config, stop, lives).run, exit_when_done=exit_when_done)

    try:
        return lives.run(begin)
    except ShelfwireError as error:
        if read is None or not take_settings_back(config, error):
            raise
        lives.config = read()
        return lives.run(begin)
