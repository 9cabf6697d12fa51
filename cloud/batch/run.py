"""The batch's page: one day's shards, scored by an engine, their verdicts kept, the shard ticked off.

Killed anywhere, the next run goes on: a file of answers is whole or not there, a verdict is kept once, and a shard is
ticked off after its last verdict.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Protocol

from cloud.batch import scores
from cloud.batch.engines import Engine
from cloud.batch.rows import VERDICTS_AT_ONCE, Nights, ShardRow
from cloud.batch.score import Done, Failed, Task
from cloud.batch.scores import Summary
from cloud.objects import Objects
from models.bundle import BUILTIN, Bundle, ModelRef, resolve


@dataclass(frozen=True, slots=True)
class Chosen:
    """The bundle to score with: as workers open it, and which model it is."""

    bundle: str
    model: ModelRef

    @classmethod
    def of(cls, name_or_path: str) -> "Chosen":
        """Load and check a bundle. Raises BundleError."""
        folder = resolve(name_or_path)
        opened = name_or_path if name_or_path in BUILTIN else str(folder.resolve())
        return cls(opened, Bundle.load(folder).ref)


@dataclass(slots=True)
class Outcome:
    """What a run did. `skipped` shards were scored before; `answered` and what follows speak of the others."""

    shards: int = 0
    skipped: int = 0
    rows: int = 0
    answered: int = 0
    unreadable: int = 0
    compared: int = 0
    agreed: int = 0
    new_verdicts: int = 0
    took_s: float = 0.0
    scoring_cpu_s: float = 0.0
    failed: list[Failed] = field(default_factory=list)

    def add(self, summary: Summary) -> None:
        """Count one shard."""
        self.rows += summary.rows
        self.answered += summary.answered
        self.unreadable += summary.unreadable
        self.compared += summary.compared
        self.agreed += summary.agreed


class Progress(Protocol):
    """Is told how far the run is."""

    def begin(self, shards: int, rows: int) -> None:
        """So much is to do."""

    def advance(self, rows: int) -> None:
        """So many frames more are done."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A day to score, and with what."""

    nights: Nights
    objects: Objects
    chosen: Chosen
    engine: Engine
    again: bool = False
    on_step: Callable[[str], None] = lambda _: None

    def run(self, day: date, progress: Progress) -> Outcome:
        """Score a day. Raises `Retryable` (``batch-running``) and what store, objects and engine raise."""
        with self.nights.alone(day):
            return self._run(day, progress)

    def _run(self, day: date, progress: Progress) -> Outcome:
        began = time.monotonic()
        shards = self.nights.shards(day, self.chosen.model.digest)
        waiting = {shard.name: shard for shard in shards if self.again or shard.output is None}
        outcome = Outcome(shards=len(shards), skipped=len(shards) - len(waiting))
        progress.begin(len(waiting), sum(shard.rows for shard in waiting.values()))
        if waiting:
            outcomes = self.engine.run([self._task(shard, day) for shard in waiting.values()])
            for done in outcomes:
                self.on_step("scored")
                shard = waiting[done.shard]
                if isinstance(done, Failed):
                    outcome.failed.append(done)
                else:
                    self._keep(done, shard, outcome)
                progress.advance(shard.rows)
        outcome.took_s = time.monotonic() - began
        return outcome

    def _keep(self, done: Done, shard: ShardRow, outcome: Outcome) -> None:
        """Keep a shard's verdicts, then tick it off."""
        summary, rows = scores.read(b"".join(self.objects.get(done.output)))
        for chunk in iter(partial(_next, rows), []):
            outcome.new_verdicts += self.nights.keep(chunk, summary, shard)
            self.on_step("kept")
        self.nights.save(summary, done.output, self.engine.name)
        self.on_step("saved")
        outcome.add(summary)
        outcome.scoring_cpu_s += summary.cpu_s if done.made else 0.0

    def _task(self, shard: ShardRow, day: date) -> Task:
        digest = self.chosen.model.digest
        return Task(
            shard=shard.name,
            sha256=shard.sha256,
            rows=shard.rows,
            output=output_of(shard.name, day, digest),
            objects=self.objects.address,
            bundle=self.chosen.bundle,
            model_digest=digest,
            again=self.again,
        )


def output_of(shard: str, day: date, model_digest: str) -> str:
    """Where a shard's answers by a model lie."""
    parts = shard.split("/")[2:]  # what follows shards/day=...
    return f"scores/day={day.isoformat()}/model={model_digest[:16]}/{'/'.join(parts)}"


def _next(rows: Iterator[scores.Scored]) -> list[scores.Scored]:
    return list(itertools.islice(rows, VERDICTS_AT_ONCE))
