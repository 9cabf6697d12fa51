"""The technician's hands in the outbox: what it lists, changes, copies and checks, on real files."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from test_outbox import Both, books_balance, draft, frame, keys_of, spans

from agent.cli import main
from agent.cli.outbox import read_spans
from agent.errors import Broken, Rejected
from agent.ports import Draft, Lane, Stamp
from agent.store.browse import Filter, find, page
from agent.store.export import export
from agent.store.frames import FrameSender
from agent.store.inspect import look
from agent.store.invariants import check, flaws
from agent.store.mending import AT_ONCE, Mender
from agent.store.sender import REFUSALS_BEFORE_DEAD

Command = Callable[..., tuple[int, Any]]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    pair = Both(tmp_path / "state")
    yield pair
    pair.close()


@pytest.fixture
def command(both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `shelfwire-agent outbox ...`; gives exit code and output, read as JSON with --json."""
    config = tmp_path / "device.toml"
    config.write_text(f'[device]\nid = "d"\nstate_dir = "{both.folder}"\nruntime_dir = "{tmp_path / "run"}"\n')

    def run(*words: str) -> tuple[int, Any]:
        code = main(["outbox", *words, "-c", str(config)])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if "--json" in words else shown.out + shown.err

    return run


def hand(both: Both) -> Mender:
    return Mender(both.folder)


def kill_one(both: Both) -> int:
    """Let the cloud refuse one record for good; gives its number."""
    seq = both.writer.put([draft(1)])[0]
    for n in range(REFUSALS_BEFORE_DEAD):
        lease = both.must_lease(now_ns=n)
        both.sender.settle(lease.token, (), {keys_of(lease)[0]: "bad-record"}, n + 1)
    return seq


def real(camera: str = "shelf-1", lane: Lane = Lane.RESULT, n: int = 1) -> Draft:
    body = {"camera": camera, "frame": n, "captured_at": "2026-01-01T00:00:00Z", "note": "x" * 500}
    kind = "alert" if lane == Lane.ALERT else "result"
    return Draft(kind, lane, json.dumps(body).encode(), Stamp(10**18 + n, n), "synced")


# -- retry ---------------------------------------------------------------------------------------------------


def test_a_dead_letter_sent_back_is_leased_though_the_sender_has_read_on(both: Both) -> None:
    seq = kill_one(both)
    both.writer.put([draft(2)])
    newer = both.must_lease(now_ns=100)
    assert hand(both).retry([seq]).changed == [seq]
    assert both.lease(now_ns=100) is None
    assert both.sender.take_up_retried(100) == 1
    again = both.must_lease(now_ns=100)
    assert [(row.seq, row.refusals) for row in again.rows] == [(seq, 0)]
    for lease in (newer, again):
        both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    assert look(both.folder).counters["result:delivered"] == 2
    assert both.sender.take_up_retried(100) == 0
    books_balance(both.folder)


def test_a_dead_letter_sent_back_goes_once_when_the_sender_starts_over(both: Both) -> None:
    seq = kill_one(both)
    hand(both).retry([seq])
    both.sender.begin()
    assert both.sender.take_up_retried(0) == 0
    assert [row.seq for row in both.must_lease().rows] == [seq]
    assert both.lease() is None


def test_more_dead_letters_than_one_transaction_takes_go_back(both: Both) -> None:
    n = 2 * AT_ONCE + 7
    seqs = both.writer.put([draft(i) for i in range(n)])
    mender = hand(both)
    assert mender.bury(seqs, "test").changed == seqs
    assert mender.dead() == seqs
    assert both.lease() is None
    assert len(mender.retry(seqs).changed) == n
    books_balance(both.folder)
    both.sender.take_up_retried(0)
    leased: set[int] = set()
    while (lease := both.lease(rows=200)) is not None:
        leased |= {row.seq for row in lease.rows}
    assert leased == set(seqs)


def test_what_waits_what_is_gone_and_what_has_lost_its_picture_is_left_alone_with_the_reason(both: Both) -> None:
    waiting = both.writer.put([draft(1)])[0]
    bare = both.writer.put([frame(both.writer, 1, Lane.REVIEW)])[0]
    carrier = FrameSender(both.folder, both.writer.spool)
    carrier.bury(carrier.lease(Lane.REVIEW, 0, 1)[0], "picture-lost")
    carrier.close()
    done = hand(both).retry([waiting, bare, 999])
    assert done.changed == []
    assert done.refused[waiting] == "it waits already"
    assert done.refused[bare] == "its picture is gone"
    assert done.refused[999].startswith("there is no such record")


# -- bury ----------------------------------------------------------------------------------------------------


def test_a_record_buried_on_its_way_counts_as_delivered_when_its_receipt_comes(both: Both) -> None:
    seqs = both.writer.put([draft(n) for n in range(3)])
    lease = both.must_lease()
    assert hand(both).bury(seqs[:1], "a test till").changed == seqs[:1]
    books_balance(both.folder)
    assert both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0).delivered == 3
    assert (look(both.folder).dead, look(both.folder).counters["result:delivered"]) == (0, 3)
    books_balance(both.folder)


@pytest.mark.parametrize("fate", ["delivered", "given back", "refused", "buried"])
def test_a_frame_buried_on_its_way_keeps_the_books_whatever_becomes_of_it(both: Both, fate: str) -> None:
    seq = both.writer.put([frame(both.writer)])[0]
    carrier = FrameSender(both.folder, both.writer.spool)
    row = carrier.lease(Lane.OFFLOAD, 0, 1)[0]
    hand(both).bury([seq], "a test till")
    if fate == "delivered":
        carrier.delivered([row])
    elif fate == "given back":
        carrier.give_back(row, 0)
    elif fate == "refused":
        carrier.refuse(row, "picture-broken", 0)
    else:
        carrier.bury(row, "picture-lost")
    books_balance(both.folder)
    assert flaws(both.folder) == []
    snapshot = look(both.folder)
    assert snapshot.counters["frame:dropped:evicted"] == 0
    assert snapshot.dead == (0 if fate == "delivered" else 1)
    hand(both).retry([seq])
    carrier.take_up_retried(0)
    again = carrier.lease(Lane.OFFLOAD, 0, 9)
    assert [r.seq for r in again] == ([seq] if fate in ("given back", "refused") else [])
    carrier.delivered(again)
    books_balance(both.folder)
    carrier.close()


def test_a_frame_buried_and_sent_back_while_it_is_on_its_way_is_not_lent_twice(both: Both) -> None:
    seq = both.writer.put([frame(both.writer)])[0]
    carrier = FrameSender(both.folder, both.writer.spool)
    row = carrier.lease(Lane.OFFLOAD, 0, 1)[0]
    mender = hand(both)
    mender.bury([seq], "a mistake")
    mender.retry([seq])
    carrier.take_up_retried(0)
    assert carrier.lease(Lane.OFFLOAD, 0, 9) == []
    carrier.give_back(row, 0)
    mender.bury([seq], "a mistake")
    mender.retry([seq])
    carrier.take_up_retried(0)
    again = carrier.lease(Lane.OFFLOAD, 0, 9)
    assert [r.seq for r in again] == [seq]
    carrier.delivered(again)
    assert look(both.folder).counters["frame:delivered"] == 1
    books_balance(both.folder)
    carrier.close()


def test_alerts_need_a_word_more_and_a_reason_is_asked_for(both: Both, command: Command) -> None:
    seq = both.writer.put([real(lane=Lane.ALERT)])[0]
    code, shown = command("bury", str(seq), "--reason", "the till was a test")
    assert code == 1
    assert "add --yes" in shown
    assert command("bury", str(seq), "--reason", "  ")[0] == 2
    code, shown = command("bury", str(seq), "--reason", "the till was a test", "--yes")
    assert (code, shown) == (0, "1 record set aside\n")
    assert "SET ASIDE: by-hand: the till was a test" in command("show", str(seq))[1]
    books_balance(both.folder)
    code, shown = command("retry", "--all", "--lane", "alert", "--json")
    assert (code, shown["changed"]) == (0, [seq])
    books_balance(both.folder)


def test_what_lies_in_a_sealed_file_leaves_with_it(both: Both) -> None:
    seq = both.writer.put([frame(both.writer, 1, Lane.BATCH)])[0]
    seal(both, [seq])
    assert "sealed file" in hand(both).bury([seq], "no").refused[seq]
    books_balance(both.folder)


def seal(both: Both, seqs: list[int], size: int = 1) -> None:
    db = apsw.Connection(str(both.folder / "outbox.sqlite"))
    db.execute(
        "INSERT INTO shard(shard, device, store, day, part, file, rows, bytes, sha256, sealed_ns)"
        " VALUES (1,'a','b','d',1,'f.parquet',?,?,'',0)", (len(seqs), size),
    )  # fmt: skip
    for seq in seqs:
        db.execute("UPDATE outbox SET shard = 1 WHERE seq = ?", (seq,))
    db.close()


# -- list, show ----------------------------------------------------------------------------------------------


def test_listing_is_by_lane_filtered_and_paged(both: Both, command: Command) -> None:
    both.writer.put([real("shelf-1", n=n) for n in range(5)] + [real("shelf-2"), real("shelf-2", Lane.ALERT)])
    hand(both).bury([2], "broken label")
    code, shown = command("list", "--json", "--camera", "shelf-1", "--limit", "3")
    assert code == 0
    assert shown["lanes"]["result"] == {"waiting": 5, "bytes": 5 * len(real().body), "dead": 1}
    assert (shown["matching"], [r["seq"] for r in shown["records"]], shown["next_after"]) == (5, [1, 2, 3], 3)
    shown = command("list", "--json", "--camera", "shelf-1", "--after", "3")[1]
    assert ([r["seq"] for r in shown["records"]], shown["next_after"]) == ([4, 5], None)
    assert [r["seq"] for r in command("list", "--json", "--dead")[1]["records"]] == [2]
    assert [r["seq"] for r in command("list", "--json", "--error", "by-hand")[1]["records"]] == [2]
    assert [r["seq"] for r in command("list", "--json", "--lane", "alert", "--waiting")[1]["records"]] == [7]
    text = command("list", "--limit", "2")[1]
    assert "by-hand: broken label" in text
    assert "5 more; the next page: --after 2" in text


def test_an_empty_outbox_says_so(command: Command) -> None:
    assert command("list") == (0, "the outbox is empty: the cloud has everything\n")


def test_a_record_is_shown_without_its_pictures_and_a_missing_one_says_why(both: Both, command: Command) -> None:
    both.writer.put([real()])
    lease = both.must_lease()
    both.writer.put([real()])
    both.sender.settle(lease.token, spans(keys_of(lease)), {}, 0)
    shown = command("show", "2")[1]
    assert '"camera": "shelf-1"' in shown
    assert '"note": "(500 characters)"' in shown
    assert command("show", "2", "--json")[1]["body"]["note"] == "x" * 500
    assert "it was delivered, or thinned out" in command("show", "1")[1]
    assert "go up to 2" in command("show", "7")[1]


def test_a_body_that_is_no_json_is_shown_and_listed(both: Both) -> None:
    both.writer.put([Draft("result", Lane.RESULT, b"{broken \xff", Stamp(0, 0), "unsure")])
    assert page(both.folder, Filter(), 5).records[0].camera == ""
    found = find(both.folder, 1)
    assert found is not None
    assert "broken" in found[1]["unreadable"]


def test_ages_come_from_the_clock_that_can_tell() -> None:
    from agent.store.browse import Record

    def age(boot: str, clock: str) -> float | None:
        record = Record(1, "r", boot, "result", Lane.RESULT, "waiting", 0, Stamp(10**9, 2 * 10**9), clock, 1, "", "",
                        0, None, "1", "", "")  # fmt: skip
        return record.age_s(Stamp(100 * 10**9, 5 * 10**9), "this")

    assert age("this", "unsure") == 3
    assert age("other", "synced") == 99
    assert age("other", "unsure") is None


@pytest.mark.parametrize("words", ["x", "3-1", "0x3", "-4", "1-99999999", "1-"])
def test_numbers_that_name_nothing_are_refused(words: str) -> None:
    with pytest.raises(Rejected, match="names no records"):
        read_spans([words])
    assert read_spans(["3", "1-4"]) == [3, 1, 2, 4]


# -- export --------------------------------------------------------------------------------------------------


def test_a_copy_in_each_format_holds_every_record(both: Both, tmp_path: Path, command: Command) -> None:
    both.writer.put([real("shelf-1"), real("=cmd()"), real("shelf-2", Lane.ALERT)])
    for name in ("copy.db", "copy.jsonl", "copy.csv"):
        assert command("export", str(tmp_path / name), "--json")[1]["records"] == 3
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    db = sqlite3.connect(tmp_path / "copy.db")
    rows = db.execute("SELECT seq, camera, json_extract(body, '$.frame') FROM record ORDER BY seq").fetchall()
    assert rows == [(1, "shelf-1", 1), (2, "=cmd()", 1), (3, "shelf-2", 1)]
    assert db.execute("SELECT n FROM counter WHERE name = 'result:produced'").fetchone() == (2,)
    db.close()
    lines = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    assert [line["body"]["camera"] for line in lines] == ["shelf-1", "=cmd()", "shelf-2"]
    with (tmp_path / "copy.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [json.loads(row["body"])["camera"] for row in table] == ["shelf-1", "=cmd()", "shelf-2"]
    assert export(both.folder, tmp_path / "alerts.jsonl", Filter(kind="alert")) == 1
    assert export(both.folder, tmp_path / "none.db", Filter(kind="frame")) == 0
    assert not list(tmp_path.glob(".shelfwire-export-*"))


def test_a_copy_never_lands_on_a_file_or_in_the_store(both: Both, tmp_path: Path, command: Command) -> None:
    both.writer.put([real()])
    before = (both.folder / "outbox.sqlite").read_bytes()
    code, shown = command("export", str(both.folder / "outbox.sqlite"))
    assert (code, "[export-kind]" in shown) == (2, True)
    (tmp_path / "there.db").write_text("mine")
    code, shown = command("export", str(tmp_path / "there.db"))
    assert (code, "[export-exists]" in shown) == (2, True)
    code, shown = command("export", str(tmp_path / "nowhere" / "x.db"))
    assert (code, "[export-failed]" in shown) == (4, True)
    assert (tmp_path / "there.db").read_text() == "mine"
    assert (both.folder / "outbox.sqlite").read_bytes() == before


def test_only_the_export_loads_what_writes_the_copy() -> None:
    code = "import sys, agent.cli.outbox; print('sqlite_utils' in sys.modules, 'sqlite3' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False False\n"


# -- check ---------------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_flaws(both: Both, command: Command) -> None:
    seqs = both.writer.put([draft(1), frame(both.writer), frame(both.writer, 2, Lane.BATCH)])
    (both.folder / "batch").mkdir()
    (both.folder / "batch" / "f.parquet").write_bytes(b"x")
    seal(both, seqs[2:])
    code, shown = command("check")
    assert code == 0, shown
    assert shown.endswith("the outbox is sound\n")
    assert shown.count("✓") == len(check(both.folder))


BREAK = {
    "books-records": "UPDATE counter SET n = n + 1 WHERE name = 'result:produced'",
    "books-frames": "INSERT INTO counter VALUES ('frames:captured', 3)",
    "books-lanes": "UPDATE counter SET n = n - 1 WHERE name = 'rows:1'",
    "books-negative": "INSERT INTO counter VALUES ('frame:dropped:evicted', -1)",
    "books-alerts": "INSERT INTO counter VALUES ('alert:dropped:evicted', 1)",
    "books-pictures": "UPDATE counter SET n = 7 WHERE name = 'pictures:bytes'",
    "books-sizes": "UPDATE outbox SET bytes = 1 WHERE kind = 'result'",
    "frame-bare": "UPDATE outbox SET picture = NULL WHERE kind = 'frame'",
    "picture-missing": "UPDATE outbox SET picture = 'gone.jpg' WHERE kind = 'frame'",
    "store-references": "PRAGMA foreign_keys = OFF; UPDATE outbox SET run = 99",
    "store-sequence": "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'outbox'",
    "store-schema": "DROP INDEX outbox_dead",
    "store-version": "PRAGMA user_version = 99",
    "store-foreign": "PRAGMA application_id = 1",
    "shard-file": "INSERT INTO shard VALUES (1,'a','b','d',1,'f.parquet',0,1,'',0,0,NULL)",
    "shard-rows": "INSERT INTO shard VALUES (1,'a','b','d',1,'f.parquet',5,1,'',0,0,NULL)",
}


@pytest.mark.parametrize("code", sorted(BREAK))
def test_each_thing_that_can_be_wrong_is_found_and_has_a_cure(both: Both, command: Command, code: str) -> None:
    both.writer.put([draft(1), draft(2), frame(both.writer)])
    db = apsw.Connection(str(both.folder / "outbox.sqlite"))
    db.execute(BREAK[code])
    db.close()
    found = flaws(both.folder)
    assert code in {flaw.code for flaw in found}
    assert all(flaw.cure and flaw.text for flaw in found)
    exit_code, shown = command("check")
    assert (exit_code, f"[{code}]" in shown) == (1, True)


def test_damage_in_the_file_is_found(both: Both) -> None:
    both.writer.put([draft(n, size=2000) for n in range(300)])
    both.close()
    path = both.folder / "outbox.sqlite"
    db = apsw.Connection(str(path))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = bytearray(path.read_bytes())
    content[40 * 4096 : 42 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(content)
    found = flaws(both.folder)
    assert {flaw.code for flaw in found} == {"store-damaged"}
    assert "moves a damaged file aside" in found[0].cure


def test_a_mistake_elsewhere_in_the_configuration_hides_no_outbox(
    both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both.writer.put([real()])
    config = tmp_path / "broken.toml"
    config.write_text(f'[device]\nid = "d"\nstate_dir = "{both.folder}"\n[kamera]\nx = 1\n')
    assert main(["outbox", "list", "--json", "-c", str(config)]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["matching"] == 1
    assert "note:" in shown.err
    config.write_text("no toml")
    assert main(["outbox", "list", "-c", str(config)]) == 2


# -- who may, and where --------------------------------------------------------------------------------------


def test_a_visitor_neither_makes_a_store_nor_moves_one_aside(tmp_path: Path) -> None:
    with pytest.raises(Broken) as caught:
        Mender(tmp_path / "none")
    assert caught.value.code == "no-store"
    assert not (tmp_path / "none").exists()
    (tmp_path / "outbox.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    with pytest.raises(Broken) as caught:
        Mender(tmp_path)
    assert caught.value.code == "store-damaged"
    assert (tmp_path / "outbox.sqlite").exists()
    assert not list(tmp_path.glob("damaged-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_look_is_told_as_whom_to_run(both: Both, tmp_path: Path) -> None:
    config = Path("/tmp") / f"shelfwire-test-{os.getpid()}.toml"  # where another user may read it
    config.write_text(f'[device]\nid = "d"\nstate_dir = "{both.folder}"\n')
    config.chmod(0o644)
    code = (
        "import os, sys; from agent.cli import main; from agent.cli import outbox;"
        f"os.setuid(65534); sys.exit(main(['outbox', 'list', '-c', '{config}']))"
    )
    try:
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        config.unlink()
    assert answer.returncode == 2, answer.stderr
    assert "this user may not read" in answer.stderr
    assert "cure: run this as the agent's user: sudo -u" in answer.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_store_that_this_user_may_not_see_is_not_called_missing(both: Both) -> None:
    code = (
        f"import os, pathlib; os.setuid(65534)\nfrom agent.store.outside import must_exist\n"
        f"must_exist(pathlib.Path('{both.folder}'))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Broken: this user may not look into" in answer.stderr
