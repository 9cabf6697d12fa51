"""Late answers on the device: once each, counted in the same transaction, and not kept for ever."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.ports import Draft, Lane, Stamp
from agent.store import verdicts as module
from agent.store.database import one
from agent.store.inspect import look
from agent.store.verdicts import KEPT_DAYS, VerdictStore
from agent.store.writer import Limits, Writer
from wire.envelope import utc
from wire.records import LateMode, ModelName, Score, Verdict

RUN = "a" * 16
DAY_NS = 86_400 * 10**9


def verdict(
    seq: int = 1, mode: LateMode = "serverless", release: int = 1, agrees: bool | None = None, run: str = RUN
) -> Verdict:
    return Verdict(
        device="till-3", run=run, seq=seq, camera="shelf", frame=seq, captured_at=utc(0), mode=mode,
        label=f"{mode}-{release}", labels=(Score(label="Banana", score=0.75),), runtime="onnxruntime", inference_ms=1.0,
        model=ModelName(name="m", version="1", release=release, digest=f"{release:064x}"), answered_at=utc(0),
        agrees=agrees,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[VerdictStore]:
    made = VerdictStore(folder)
    yield made
    made.close()


def counter(folder: Path, name: str) -> int:
    return look(folder).counters[name]


def test_a_verdict_counts_once_however_often_it_comes(store: VerdictStore, folder: Path) -> None:
    assert store.keep([verdict(1), verdict(1), verdict(2)], 5) == 2
    assert store.keep([verdict(2), verdict(3)], 6) == 1
    assert counter(folder, "answers:serverless") == 3
    assert counter(folder, "frames:answered") == 3


def test_a_frame_is_answered_by_its_first_verdict_only(store: VerdictStore, folder: Path) -> None:
    assert store.keep([verdict(1), verdict(1, "batch"), verdict(1, "batch", release=2)], 5) == 3
    assert counter(folder, "frames:answered") == 1
    assert counter(folder, "answers:batch") == 2


def test_a_second_look_at_what_the_device_answered_itself_answers_no_frame(store: VerdictStore, folder: Path) -> None:
    store.keep([verdict(1, "asynchronous", agrees=False), verdict(2, "batch", agrees=True)], 5)
    assert counter(folder, "frames:answered") == 0
    assert counter(folder, "answers:asynchronous") == 1


def test_a_submitted_picture_is_no_captured_frame(store: VerdictStore, folder: Path) -> None:
    visit = Writer(folder, Limits(), 0, role="submit")
    run = visit.start_run("boot", 0, "test")
    visit.close()
    store.keep([verdict(1, "asynchronous", run=run), verdict(1)], 5)
    assert counter(folder, "frames:answered") == 1
    assert counter(folder, "submitted:answered") == 1


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ([("serverless", 1), ("batch", 1), ("asynchronous", 1)], "batch-1"),
        ([("batch", 1), ("serverless", 2)], "serverless-2"),
        ([("serverless", 1)], "serverless-1"),
    ],
)
def test_the_newest_model_is_shown_and_then_the_way_that_had_most_time(
    store: VerdictStore, kept: list[tuple[LateMode, int]], shown: str
) -> None:
    store.keep([verdict(1, mode, release) for mode, release in kept], 9)
    answer = store.answer(RUN, 1)
    assert answer is not None
    assert (answer.verdict.label, answer.received_ns) == (shown, 9)
    assert store.answer(RUN, 2) is None
    assert store.answer("b" * 16, 1) is None


def test_old_verdicts_go_and_their_counts_stay(store: VerdictStore, folder: Path) -> None:
    store.keep([verdict(1)], 0)
    store.keep([verdict(2)], 2 * DAY_NS)
    assert store.thin((KEPT_DAYS + 1) * DAY_NS) == 1
    assert store.answer(RUN, 1) is None
    assert store.answer(RUN, 2) is not None
    assert counter(folder, "answers:serverless") == 2


def test_too_many_verdicts_lose_the_oldest(store: VerdictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ROWS", 10)
    monkeypatch.setattr(module, "THIN_ROWS", 4)
    for seq in range(1, 26):
        store.keep([verdict(seq)], seq)
    assert store.thin(30) == 15
    assert [seq for seq in range(1, 26) if store.answer(RUN, seq)] == list(range(16, 26))


def test_a_frame_whose_verdict_was_thinned_out_is_not_answered_again(store: VerdictStore, folder: Path) -> None:
    seqs = [1, 8, 4095, 4096, 2**53 - 1]
    store.keep([verdict(seq) for seq in seqs], 0)
    store.keep([verdict(2)], 40 * DAY_NS)
    assert store.thin(41 * DAY_NS) == len(seqs)
    store.keep([verdict(seq, "batch", release=2) for seq in (*seqs, 2)], 41 * DAY_NS)
    assert (counter(folder, "frames:answered"), counter(folder, "answers:batch")) == (6, 6)
    store.keep([verdict(3), verdict(7), verdict(1, run="b" * 16)], 41 * DAY_NS)
    assert counter(folder, "frames:answered") == 9, "their neighbours, and those of other runs, are"


def test_marks_take_so_much_room_and_no_more(store: VerdictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BLOCKS", 3)
    store.keep([verdict(module.BLOCK * n) for n in range(1, 7)], 0)
    for _ in range(2):
        store.thin(40 * DAY_NS)
    assert one(store._db, "SELECT count(*) FROM answered") == 3


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    envelopes=st.lists(
        st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from(["serverless", "asynchronous", "batch"]), st.integers(1, 2)),
            max_size=6,
        ),
        max_size=8,
    )
)
def test_counters_are_what_the_rows_say_whatever_comes_twice(
    tmp_path_factory: pytest.TempPathFactory, envelopes: list[list[tuple[int, LateMode, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("verdicts")
    store = VerdictStore(folder)
    seen = set()
    for items in envelopes:
        new = set(items) - seen
        assert store.keep([verdict(*item) for item in items], 1) == len(new)
        seen |= new
    counters = look(folder).counters
    assert sum(n for name, n in counters.items() if name.startswith("answers:")) == len(seen)
    assert counters["frames:answered"] == len({seq for seq, _, _ in seen})
    store.close()


def test_a_draft_and_its_verdict_share_the_key(folder: Path) -> None:
    writer = Writer(folder, Limits(), 0)
    run = writer.start_run("boot", 0, "test")
    (seq,) = writer.put([Draft("frame", Lane.OFFLOAD, b"{}", Stamp(0, 0), "synced", writer.spool.keep(b"jpeg"))])
    store = VerdictStore(folder)
    store.keep([verdict(seq, run=run)], 1)
    assert store.answer(run, seq) is not None
    store.close()
    writer.close()
