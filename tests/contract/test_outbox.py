"""The outbox on real SQLite files: nothing lost, nothing doubled, the books always balance."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import Broken, Rejected
from agent.ports import Draft, Lane, Lease, Row, Stamp
from agent.store.database import APPLICATION_ID, Reserve, open_database
from agent.store.frames import FrameSender
from agent.store.inspect import look
from agent.store.invariants import flaws
from agent.store.mending import Mender
from agent.store.sender import REFUSALS_BEFORE_DEAD, Sender
from agent.store.writer import Limits, Writer

Key = tuple[str, int]


def draft(n: int = 0, lane: Lane = Lane.RESULT, size: int = 40) -> Draft:
    body = json.dumps({"n": n, "pad": "x" * size}).encode()
    return Draft("alert" if lane == Lane.ALERT else "result", lane, body, Stamp(n, n), "unsure")


def frame(writer: Writer, n: int = 0, lane: Lane = Lane.OFFLOAD, expires_ns: int | None = None) -> Draft:
    """A draft whose picture lies in the spool."""
    picture = writer.spool.keep(b"picture %d " % n * 10)
    return Draft("frame", lane, json.dumps({"n": n}).encode(), Stamp(n, n), "synced", picture, expires_ns)


def spans(keys: list[Key]) -> list[tuple[str, int, int]]:
    return [(run, seq, seq) for run, seq in keys]


def keys_of(lease: Lease) -> list[Key]:
    return [(row.run_id, row.seq) for row in lease.rows]


class Both:
    """A writer and a sender on one folder."""

    def __init__(self, folder: Path, limits: Limits = Limits(), reserve_bytes: int = 0) -> None:  # noqa: B008
        self.folder = folder
        self.writer = Writer(folder, limits, reserve_bytes)
        self.run_id = self.writer.start_run("boot", 0, "test")
        self.sender = Sender(folder, reserve_bytes)

    def lease(
        self, lane: Lane = Lane.RESULT, now_ns: int = 0, rows: int = 100, *, backlog: bool = True
    ) -> Lease | None:
        return self.sender.lease(lane, now_ns, rows, 1 << 20, backlog=backlog)

    def must_lease(self, lane: Lane = Lane.RESULT, now_ns: int = 0, rows: int = 100) -> Lease:
        lease = self.lease(lane, now_ns, rows)
        assert lease is not None
        return lease

    def close(self) -> None:
        self.writer.close()
        self.sender.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    pair = Both(tmp_path / "state")
    yield pair
    pair.close()


def books_balance(folder: Path) -> None:
    """produced = delivered + waiting + dead + dropped, per kind; and the tallies are what the rows say."""
    counters = look(folder).counters
    db = open_database(folder)
    for kind in ("result", "alert", "frame"):
        ready = db.execute("SELECT count(*) FROM outbox WHERE kind = ? AND state = 0", (kind,)).fetchall()[0][0]
        dead = db.execute("SELECT count(*) FROM outbox WHERE kind = ? AND state = 2", (kind,)).fetchall()[0][0]
        dropped = sum(n for name, n in counters.items() if name.startswith(f"{kind}:dropped:"))
        assert counters[f"{kind}:produced"] == counters[f"{kind}:delivered"] + ready + dead + dropped
    rows = db.execute("SELECT lane, count(*), sum(bytes) FROM outbox WHERE state = 0 GROUP BY lane").fetchall()
    tallied = {name: n for name, n in counters.items() if name.startswith(("rows:", "bytes:")) and n}
    assert tallied == {f"rows:{lane}": n for lane, n, _ in rows} | {f"bytes:{lane}": b for lane, _, b in rows}
    pictures = db.execute("SELECT count(*), coalesce(sum(picture_bytes), 0) FROM outbox WHERE picture IS NOT NULL")
    assert (counters["pictures:files"], counters["pictures:bytes"]) == pictures.fetchall()[0]
    db.close()


# -- verbs ---------------------------------------------------------------------------------------------------


def test_what_is_put_is_leased_once_and_leaves_on_the_receipt(both: Both) -> None:
    both.writer.put([draft(n) for n in range(5)])
    lease = both.must_lease()
    assert [row.seq for row in lease.rows] == [1, 2, 3, 4, 5]
    assert both.lease() is None
    settled = both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    assert (settled.known, settled.delivered) == (True, 5)
    assert not both.sender.waiting()
    books_balance(both.folder)


def test_counters_facts_and_records_are_one_transaction(both: Both) -> None:
    with pytest.raises(apsw.Error):
        both.writer.put([draft(1), Draft("result", Lane.RESULT, b"{}", Stamp(0, 0), "wrong")], {"x": 1}, {"f": "v"})  # type: ignore[arg-type]
    assert both.sender.counters()["x"] == 0
    assert both.writer.fact("f") is None
    assert not both.sender.waiting()


def test_a_receipt_counts_only_for_what_its_lease_held(both: Both) -> None:
    both.writer.put([draft(n) for n in range(10)])
    first = both.must_lease(rows=3)
    both.must_lease(rows=3)
    settled = both.sender.settle(first.token, [(both.run_id, 1, 2**62)], {}, 0)
    assert settled.delivered == 3
    assert look(both.folder).waiting == 7
    assert not both.sender.settle("f" * 24, [(both.run_id, 1, 10)], {}, 0).known
    other_run = both.must_lease(rows=4)
    assert both.sender.settle(other_run.token, [("0" * 16, 1, 2**62)], {}, 0).delivered == 0
    books_balance(both.folder)


def test_a_receipt_that_comes_late_or_twice_counts_once(both: Both) -> None:
    both.writer.put([draft(n) for n in range(4)])
    first = both.must_lease()
    both.sender.give_back(first.token, 0)
    second = both.must_lease()
    assert both.sender.settle(first.token, spans(keys_of(first)), {}, 0).delivered == 4
    assert both.sender.settle(second.token, spans(keys_of(second)), {}, 0).delivered == 0
    assert both.sender.settle(first.token, spans(keys_of(first)), {}, 0).delivered == 0
    assert look(both.folder).counters["result:delivered"] == 4
    books_balance(both.folder)


def test_what_is_given_back_waits_for_its_time(both: Both) -> None:
    both.writer.put([draft(n) for n in range(2)])
    lease = both.must_lease()
    assert both.sender.give_back(lease.token, retry_at_ns=1000) == 2
    assert both.lease(now_ns=999) is None
    assert keys_of(both.must_lease(now_ns=1000)) == keys_of(lease)


def test_what_a_receipt_does_not_name_is_ready_again(both: Both) -> None:
    both.writer.put([draft(n) for n in range(3)])
    lease = both.must_lease()
    settled = both.sender.settle(lease.token, spans(keys_of(lease)[:1]), {}, retry_at_ns=5)
    assert (settled.delivered, settled.given_back) == (1, 2)
    assert [row.seq for row in both.must_lease(now_ns=5).rows] == [2, 3]


def test_a_record_refused_for_good_is_set_aside_and_holds_nothing_up(both: Both) -> None:
    both.writer.put([draft(n) for n in range(3)])
    for refusal in range(1, REFUSALS_BEFORE_DEAD + 1):
        lease = both.must_lease(now_ns=refusal)
        bad = keys_of(lease)[0] if len(lease.rows) == 1 else keys_of(lease)[1]
        good = [key for key in keys_of(lease) if key != bad]
        settled = both.sender.settle(lease.token, spans(good), {bad: "bad-record"}, retry_at_ns=refusal + 1)
        assert settled.buried == (1 if refusal == REFUSALS_BEFORE_DEAD else 0)
    assert look(both.folder).dead == 1
    assert both.lease(now_ns=100) is None
    books_balance(both.folder)


def test_split_sends_records_one_by_one_and_bury_sets_them_aside(both: Both) -> None:
    both.writer.put([draft(n) for n in range(3)])
    lease = both.must_lease()
    assert both.sender.split(lease.token, 0) == 3
    alone = both.must_lease()
    assert len(alone.rows) == 1
    assert both.sender.bury(alone.token, "too-large") == 1
    assert look(both.folder).dead == 1
    books_balance(both.folder)


def test_an_envelope_holds_one_kind_within_its_size(both: Both) -> None:
    both.writer.put([draft(1, size=500), draft(2, size=500), draft(3, size=500)])
    lease = both.sender.lease(Lane.RESULT, 0, 100, 1300)
    assert lease is not None
    assert len(lease.rows) == 2
    huge = both.sender.lease(Lane.RESULT, 0, 100, 10)
    assert huge is not None
    assert len(huge.rows) == 1


def test_live_records_go_before_the_backlog(both: Both) -> None:
    both.writer.put([draft(n) for n in range(10)])
    both.sender.begin()
    both.writer.put([draft(99)])
    assert [row.seq for row in both.must_lease(rows=5).rows] == [11]
    assert both.lease(backlog=False) is None
    assert [row.seq for row in both.must_lease(rows=5).rows] == [1, 2, 3, 4, 5]


def test_leases_are_void_when_the_sender_starts_again(both: Both) -> None:
    both.writer.put([draft(n) for n in range(3)])
    lease = both.must_lease()
    both.sender.close()
    both.sender = Sender(both.folder, 0)
    assert keys_of(both.must_lease()) == keys_of(lease)
    assert not both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0).known


def test_sequence_numbers_are_never_used_twice(both: Both) -> None:
    both.writer.put([draft(1)])
    lease = both.must_lease()
    both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    assert both.writer.put([draft(2)]) == [2]


# -- limits --------------------------------------------------------------------------------------------------


def test_limits_thin_out_evenly_spare_alerts_and_are_counted(tmp_path: Path) -> None:
    both = Both(tmp_path / "s", Limits(max_rows=1000))
    both.writer.put([draft(n) for n in range(2000)])
    both.writer.put([draft(n, Lane.ALERT) for n in range(100)])
    evicted = both.writer.evict()
    snapshot = look(both.folder)
    assert 0 <= 1000 - snapshot.waiting < 500
    assert snapshot.counters["result:dropped:evicted"] == evicted
    assert snapshot.counters["rows:0"] == 100
    lease = both.must_lease(rows=5000)
    gaps = [b.seq - a.seq for a, b in zip(lease.rows, lease.rows[1:], strict=False)]
    assert max(gaps) <= 4
    books_balance(both.folder)
    both.close()


def test_a_record_evicted_on_its_way_that_arrives_counts_as_delivered(tmp_path: Path) -> None:
    both = Both(tmp_path / "s", Limits(max_rows=10))
    both.writer.put([draft(n) for n in range(40)])
    lease = both.must_lease()
    both.writer.evict()
    both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    counters = look(both.folder).counters
    assert (counters["result:delivered"], counters["result:dropped:evicted"]) == (40, 0)
    books_balance(both.folder)
    both.close()


def test_an_evicted_frame_takes_its_picture_along_and_a_sealed_one_stays(tmp_path: Path) -> None:
    both = Both(tmp_path / "s", Limits(max_rows=10))
    both.writer.put([frame(both.writer, n, Lane.BATCH) for n in range(40)])
    db = open_database(both.folder)
    db.execute(
        "INSERT INTO shard(shard, device, store, day, part, file, rows, bytes, sha256, sealed_ns)"
        " VALUES (1,'a','b','d',1,'f',8,1,'',0)"
    )
    db.execute("UPDATE outbox SET shard = 1 WHERE seq <= 8")
    db.close()
    evicted = both.writer.evict()
    assert evicted >= 30
    snapshot = look(both.folder)
    assert snapshot.counters["frame:dropped:evicted"] == evicted
    assert snapshot.counters["pictures:files"] == 40 - evicted
    assert len(list(both.writer.spool.folder.iterdir())) == 40 - evicted
    books_balance(both.folder)
    both.close()


def test_what_goes_by_mqtt_is_never_a_picture(both: Both) -> None:
    both.writer.put([frame(both.writer, n, lane) for n, lane in enumerate(Lane)])
    assert [both.lease(lane) for lane in Lane] == [None] * len(Lane)
    assert not both.sender.waiting()


# -- files, locks, disks -------------------------------------------------------------------------------------


def test_a_second_agent_on_the_same_folder_is_refused_and_told_who_is_there(both: Both) -> None:
    with pytest.raises(Rejected, match=f"vision already runs on .* \\(process {os.getpid()}\\)") as caught:
        Writer(both.folder, Limits(), 0)
    assert caught.value.code == "already-running"
    with pytest.raises(Rejected, match="sync already runs"):
        Sender(both.folder, 0)


def test_the_file_is_made_as_designed(both: Both) -> None:
    db = open_database(both.folder)
    values = {
        name: db.execute(f"PRAGMA {name}").fetchall()[0][0]
        for name in ("journal_mode", "synchronous", "auto_vacuum", "user_version")
    }
    assert values == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "user_version": 3}
    assert both.folder.stat().st_mode & 0o777 == 0o700
    db.close()


def test_a_file_of_the_first_version_is_brought_forward_with_all_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    db = apsw.Connection(str(folder / "outbox.sqlite"))
    db.execute(resources.files("agent.store").joinpath("schema.sql").read_text())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
    db.execute(
        "INSERT INTO run(run_id, boot_id, started_ns, agent_version) VALUES ('0123456789abcdef', 'boot', 0, '0')"
    )
    columns = "run, kind, lane, wall_ns, boot_ns, clock, bytes, body"
    row = f"INSERT INTO outbox({columns}) VALUES (1, 'result', 1, ?, ?, 'synced', 2, ?)"
    for n in range(3):
        db.execute(row, (n, n, b"{}"))
    db.execute("INSERT INTO counter VALUES ('result:produced', 3), ('rows:1', 3), ('bytes:1', 6)")
    db.close()
    both = Both(folder)
    lease = both.must_lease()
    assert keys_of(lease) == [("0123456789abcdef", seq) for seq in (1, 2, 3)]
    both.writer.put([frame(both.writer)])
    both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    books_balance(folder)
    both.close()


def test_a_short_visit_beside_vision_has_a_run_of_its_own(both: Both) -> None:
    visit = Writer(both.folder, Limits(), 0, role="submit")
    run_id = visit.start_run("boot", 0, "test")
    both.writer.put([draft(1)])
    assert visit.put([draft(2)]) == [2]
    both.writer.put([draft(3)])
    visit.close()
    assert keys_of(both.must_lease()) == [(both.run_id, 1), (run_id, 2), (both.run_id, 3)]


def test_a_new_store_can_be_opened_by_several_at_once(tmp_path: Path) -> None:
    """As when vision, sync and a first `submit` start together: nobody is told that it is locked, or damaged."""
    for n in range(20):
        folder = tmp_path / str(n)
        together = threading.Barrier(4)

        def visit(folder: Path = folder, together: threading.Barrier = together) -> None:
            together.wait()
            open_database(folder).close()

        with ThreadPoolExecutor(4) as pool:
            for visitor in [pool.submit(visit) for _ in range(4)]:
                visitor.result()


def test_a_damaged_file_is_moved_aside_and_a_new_one_started(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "outbox.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    both = Both(folder)
    both.writer.put([draft(1)])
    both.close()
    moved = list(folder.glob("damaged-*/outbox.sqlite"))
    assert len(moved) == 1
    assert moved[0].stat().st_size == 8208


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    both = Both(tmp_path / "s")
    both.close()
    db = open_database(both.folder)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Broken, match="written by a newer agent"):
        Sender(both.folder, 0)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    db = apsw.Connection(str(tmp_path / "s" / "outbox.sqlite"))
    db.execute("CREATE TABLE theirs(x)")
    db.close()
    with pytest.raises(Rejected, match="no outbox of ours"):
        Sender(tmp_path / "s", 0)


def test_a_folder_that_cannot_be_made_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Broken) as caught:
        Writer(tmp_path / "file" / "state", Limits(), 0)
    assert caught.value.hint


def test_the_reserve_is_built_given_up_and_built_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 1 << 20)
    assert reserve.build()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20
    assert reserve.give_up()
    assert not reserve.give_up()
    assert reserve.build()


KILLED = """
import sys
from pathlib import Path
from agent.ports import Draft, Lane, Stamp
from agent.store.writer import Limits, Writer
writer = Writer(Path(sys.argv[1]), Limits(), 0)
print("run", writer.start_run("boot", 0, "test"), flush=True)
n = 0
while True:
    seqs = writer.put([Draft("result", Lane.RESULT, b'{"n":%d}' % n, Stamp(n, n), "unsure") for _ in range(5)])
    n += 1
    print("seq", seqs[-1], flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A process crash, not a power cut: the operating system still writes what it was given."""
    folder = tmp_path / "s"
    acknowledged = 0
    for lines in (20, 3, 60):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(lines):
                line = child.stdout.readline().split()
                if line[0] == "seq":
                    acknowledged = int(line[1])
            child.send_signal(signal.SIGKILL)
            rest = [row.split() for row in child.stdout.read().splitlines() if row.startswith("seq")]
            acknowledged = max([acknowledged, *(int(row[1]) for row in rest if len(row) == 2)])
    sender = Sender(folder, 0)
    stored = set()
    while (lease := sender.lease(Lane.RESULT, 0, 500, 1 << 20)) is not None:
        stored |= {row.seq for row in lease.rows}
        assert len({row.run_id for row in lease.rows}) <= 3
    assert stored >= set(range(1, acknowledged + 1))
    sender.close()
    books_balance(folder)


# -- everything at once --------------------------------------------------------------------------------------


FRAME_LANES = [Lane.OFFLOAD, Lane.REVIEW, Lane.BATCH]


class Delivery(RuleBasedStateMachine):
    """Writer, sender and carrier, channels that lose, double and delay, and a cloud that may refuse; in any order."""

    @initialize()
    def begin(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.both = Both(Path(self.temporary.name) / "s", Limits(max_rows=60))
        self.frames = FrameSender(self.both.folder, self.both.writer.spool)
        self.carried: list[Row] = []
        self.now_ns = 0
        self.produced: set[Key] = set()
        self.cloud: Counter[Key] = Counter()
        self.on_the_way: list[Lease] = []
        self.arrived: list[Lease] = []
        """Lost, or with a receipt that may be lost: they run out, as all that nobody confirms."""
        self.receipts: list[tuple[str, list[Key], dict[Key, str]]] = []
        self.poison: set[int] = set()

    @rule(n=st.integers(1, 30), lane=st.sampled_from([Lane.ALERT, Lane.RESULT]), poison=st.booleans())
    def put(self, n: int, lane: Lane, poison: bool) -> None:
        seqs = self.both.writer.put([draft(i, lane) for i in range(n)])
        self.produced |= {(self.both.run_id, seq) for seq in seqs}
        if poison:
            self.poison.add(seqs[0])

    @rule(lane=st.sampled_from([Lane.ALERT, Lane.RESULT]), rows=st.integers(1, 40), backlog=st.booleans())
    def lease(self, lane: Lane, rows: int, backlog: bool) -> None:
        lease = self.both.lease(lane, self.now_ns, rows, backlog=backlog)
        if lease is not None:
            self.on_the_way.append(lease)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data(), lose=st.booleans(), twice=st.booleans())
    def arrive(self, data: st.DataObject, lose: bool, twice: bool) -> None:
        lease = data.draw(st.sampled_from(self.on_the_way))
        if not twice:
            self.on_the_way.remove(lease)
            self.arrived.append(lease)
        if lose:
            return
        refused = {key: "bad-record" for key in keys_of(lease) if key[1] in self.poison}
        good = [key for key in keys_of(lease) if key not in refused]
        self.cloud.update(set(good) - set(self.cloud))
        self.receipts.append((lease.token, good, refused))

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), keep=st.booleans(), part=st.booleans())
    def receipt(self, data: st.DataObject, keep: bool, part: bool) -> None:
        item = data.draw(st.sampled_from(self.receipts))
        if not keep:
            self.receipts.remove(item)
        token, good, refused = item
        self.both.sender.settle(token, spans(good[: len(good) // 2] if part else good), refused, self.now_ns + 3)

    @precondition(lambda self: self.on_the_way or self.arrived)
    @rule(data=st.data())
    def run_out(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.on_the_way + self.arrived))
        self.both.sender.give_back(lease.token, self.now_ns + 5)

    @rule(n=st.integers(1, 4), lane=st.sampled_from(FRAME_LANES), poison=st.booleans(), ns=st.integers(1, 20))
    def put_frames(self, n: int, lane: Lane, poison: bool, ns: int) -> None:
        expires_ns = self.now_ns + ns if lane == Lane.OFFLOAD else None
        seqs = self.both.writer.put([frame(self.both.writer, i, lane, expires_ns) for i in range(n)])
        self.produced |= {(self.both.run_id, seq) for seq in seqs}
        if poison:
            self.poison.add(seqs[0])

    @rule(lane=st.sampled_from([Lane.OFFLOAD, Lane.REVIEW]), n=st.integers(1, 6))
    def carry(self, lane: Lane, n: int) -> None:
        self.carried += self.frames.lease(lane, self.now_ns, n)

    @precondition(lambda self: self.carried)
    @rule(data=st.data(), fate=st.sampled_from(["taken", "answer-lost", "lost"]))
    def call_ends(self, data: st.DataObject, fate: str) -> None:
        row = data.draw(st.sampled_from(self.carried))
        self.carried.remove(row)
        self.end_call(row, fate)

    def end_call(self, row: Row, fate: str = "taken") -> None:
        if fate == "lost":
            self.frames.give_back(row, self.now_ns + 3)
        elif row.seq in self.poison:
            self.frames.refuse(row, "picture-broken", self.now_ns + 1)
        else:
            self.cloud.update({(row.run_id, row.seq)} - set(self.cloud))
            if fate == "taken":
                self.frames.delivered([row])
            else:
                self.frames.give_back(row, self.now_ns + 3)

    @rule()
    def defer(self) -> None:
        self.frames.defer_expired(self.now_ns, "boot")

    def mender(self) -> Mender:
        return Mender(self.both.folder)

    @precondition(lambda self: self.produced)
    @rule(data=st.data(), n=st.integers(1, 12), alerts=st.booleans())
    def bury_by_hand(self, data: st.DataObject, n: int, alerts: bool) -> None:
        """Also what is on its way now, what is gone, and what is dead already."""
        first = data.draw(st.integers(1, max(seq for _, seq in self.produced)))
        mender = self.mender()
        done = mender.bury(range(first, first + n), "not wanted", alerts=alerts)
        mender.close()
        assert len(done.changed) + len(done.refused) == n

    @rule(n=st.integers(1, 12))
    def retry_by_hand(self, n: int) -> None:
        mender = self.mender()
        mender.retry(mender.dead()[:n])
        mender.close()

    @rule()
    def take_up(self) -> None:
        self.both.sender.take_up_retried(self.now_ns)
        self.frames.take_up_retried(self.now_ns)

    @rule()
    def reconnect(self) -> None:
        self.both.sender.begin()

    @rule()
    def sender_restarts(self) -> None:
        self.both.sender.close()
        self.both.sender = Sender(self.both.folder, 0)
        self.frames.close()
        self.frames = FrameSender(self.both.folder, self.both.writer.spool)
        self.carried.clear()

    @rule()
    def writer_restarts(self) -> None:
        self.both.writer.close()
        self.both.writer = Writer(self.both.folder, Limits(max_rows=60), 0)
        self.both.run_id = self.both.writer.start_run("boot", 0, "test")

    @rule()
    def evict(self) -> None:
        self.both.writer.evict()

    @rule(ns=st.integers(1, 20))
    def time_passes(self, ns: int) -> None:
        self.now_ns += ns

    @invariant()
    def balanced(self) -> None:
        if hasattr(self, "both"):
            books_balance(self.both.folder)
            files = look(self.both.folder).counters["pictures:files"]
            assert len(list(self.both.writer.spool.folder.iterdir())) == files

    def teardown(self) -> None:
        """At the end a good channel delivers the rest: then everything is in the cloud, dead, or was evicted."""
        if not hasattr(self, "both"):
            return
        mender = self.mender()
        mender.retry(mender.dead())
        for lease in self.arrived:
            self.both.sender.give_back(lease.token, self.now_ns)
        for _ in range(40):
            self.now_ns += 10
            self.take_up()
            for lane in (Lane.ALERT, Lane.RESULT):
                while (lease := self.both.lease(lane, self.now_ns)) is not None:
                    self.on_the_way.append(lease)
            for lease in self.on_the_way:
                refused = {key: "bad-record" for key in keys_of(lease) if key[1] in self.poison}
                good = [key for key in keys_of(lease) if key not in refused]
                self.cloud.update(set(good) - set(self.cloud))
                self.both.sender.settle(lease.token, spans(good), refused, self.now_ns)
                self.both.sender.give_back(lease.token, self.now_ns)
            self.on_the_way.clear()
            for lane in (Lane.OFFLOAD, Lane.REVIEW):
                self.carried += self.frames.lease(lane, self.now_ns, 100)
            for row in self.carried:
                self.end_call(row)
            self.carried.clear()
        assert not self.both.sender.waiting()
        snapshot = look(self.both.folder)
        assert snapshot.waiting == 0
        kinds = ("result", "alert", "frame")
        evicted = sum(snapshot.counters[f"{kind}:dropped:evicted"] for kind in kinds)
        delivered = sum(snapshot.counters[f"{kind}:delivered"] for kind in kinds)
        assert set(self.cloud) <= self.produced
        assert delivered + evicted + snapshot.dead + snapshot.for_the_night == len(self.produced)
        # A record may reach the cloud and be evicted before its receipt comes; never the other way round.
        assert len(self.cloud) >= delivered
        assert snapshot.counters["alert:dropped:evicted"] == 0
        # What was sent back to the line by hand has arrived, unless the cloud refuses it or its picture is gone.
        left = mender.dead()
        assert set(left) - self.poison == set(mender.retry(left).refused) - self.poison
        assert flaws(self.both.folder) == []
        mender.close()
        self.frames.close()
        self.both.close()
        self.temporary.cleanup()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
