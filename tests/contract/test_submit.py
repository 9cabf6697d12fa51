"""`submit`: pictures given by a person, beside vision and sync, through kills, and with the answer waited for."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_outbox import books_balance

from agent.cli import main
from agent.ports import Draft, Lane, Stamp
from agent.store.database import open_database
from agent.store.frames import FrameSender
from agent.store.inspect import look
from agent.store.sender import REFUSALS_BEFORE_DEAD, Sender
from agent.store.verdicts import VerdictStore
from agent.store.writer import Limits, Writer
from models.picture import decode_picture
from wire.envelope import utc
from wire.records import ModelName, Score, Verdict

CONFIG = """
[device]
id = "till-3"
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[cloud]
api = "http://127.0.0.1:9"
[privacy]
pictures = "frames"
[spool]
keep_free = "0 B"
max_side = 640
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "shelfwire.toml"
    file.write_text(CONFIG.format(folder=tmp_path))
    return file


def picture(path: Path, width: int = 320, height: int = 240) -> Path:
    noise = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def submitted(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, object]]:
    code = main(["submit", "--json", *map(str, arguments)])
    assert code == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["pictures"]
    return found


def rows(folder: Path) -> list[tuple[object, ...]]:
    db = open_database(folder)
    found = db.execute(
        "SELECT seq, run_id, role, kind, lane, body, picture FROM outbox JOIN run USING (run) ORDER BY seq"
    ).fetchall()
    db.close()
    return found


def answer(run: str, seq: int) -> Verdict:
    return Verdict(
        device="till-3", run=run, seq=seq, camera="submitted", frame=1, captured_at=utc(10**18), mode="asynchronous",
        label="Banana", labels=(Score(label="Banana", score=0.875),), runtime="onnxruntime", inference_ms=1.0,
        model=ModelName(name="m", version="1", release=1, digest="0" * 64), answered_at=utc(10**18),
    )  # fmt: skip


def test_pictures_are_put_beside_running_vision_and_sync_in_a_run_of_their_own(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision = Writer(tmp_path / "state", Limits(), 0)
    vision.start_run("boot", 0, "test")
    vision.put([Draft("result", Lane.RESULT, b'{"n":1}', Stamp(0, 0), "synced")])
    sync = Sender(tmp_path / "state", 0)
    jpeg = picture(tmp_path / "a.jpg")
    items = submitted(capsys, jpeg, picture(tmp_path / "b.png"), "-c", config)
    assert sync.lease(Lane.REVIEW, 0, 9, 9999) is None
    (_, first, second) = rows(tmp_path / "state")
    assert first[1] == second[1] != vision
    assert [row[2:5] for row in (first, second)] == [("submit", "frame", int(Lane.REVIEW))] * 2
    assert [item["frame"] for item in items] == [f"till-3/{row[1]}/{row[0]}" for row in (first, second)]
    body = json.loads(first[5])  # type: ignore[arg-type]
    assert (body["camera"], body["frame"], body["reason"], body["width"], "label" in body) == (
        "submitted", 1, "submitted", 320, False,
    )  # fmt: skip
    assert (tmp_path / "state" / "spool" / str(first[6])).read_bytes() == jpeg.read_bytes()
    assert (tmp_path / "state" / "spool" / str(second[6])).read_bytes()[:3] == b"\xff\xd8\xff"
    vision.put([Draft("result", Lane.RESULT, b'{"n":2}', Stamp(0, 0), "synced")])
    assert look(tmp_path / "state").waiting == 4
    books_balance(tmp_path / "state")
    vision.close()
    sync.close()


def test_a_large_picture_is_made_small_enough(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submitted(capsys, picture(tmp_path / "large.jpg", 2000, 1000), "-c", config, "--camera", "hand")
    ((*_, body, name),) = rows(tmp_path / "state")
    assert json.loads(body)["camera"] == "hand"  # type: ignore[arg-type]
    assert decode_picture((tmp_path / "state" / "spool" / str(name)).read_bytes()).shape == (320, 640, 3)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "picture-empty"), (b"hello", "picture-not-a-picture"), (b"\xff\xd8\xff\xe0", "picture-truncated"),
     (None, "picture-unreadable")],
)  # fmt: skip
def test_a_file_that_is_no_picture_is_named_and_nothing_is_submitted(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code: str
) -> None:
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(content)
    good = picture(tmp_path / "a.jpg")
    assert main(["submit", str(good), str(bad), "-c", str(config)]) == 2
    said = capsys.readouterr().err
    assert str(bad) in said
    assert f"[{code}]\n  cure: " in said
    assert not (tmp_path / "state" / "spool").exists()


@pytest.mark.parametrize(
    ("line", "cure"), [('pictures = "frames"', 'pictures = "frames"'), ('api = "http://127.0.0.1:9"', "api = ")]
)
def test_pictures_that_may_not_leave_are_refused_with_the_cure(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], line: str, cure: str
) -> None:
    config.write_text(config.read_text().replace(line, ""))
    assert main(["submit", str(picture(tmp_path / "a.jpg")), "-c", str(config)]) == 2
    said = capsys.readouterr().err
    assert "[pictures-stay]" in said
    assert cure in said.partition("cure:")[2]


@pytest.mark.parametrize("more", [["--camera", "a/b"], ["--wait", "-1"], ["--wait", "1e9"]])
def test_odd_arguments_are_refused(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert main(["submit", str(picture(tmp_path / "a.jpg")), "-c", str(config), *more]) == 2
    assert "cure: " in capsys.readouterr().err


def test_a_full_spool_says_so_and_leaves_nothing(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace('keep_free = "0 B"', 'max_bytes = "10 B"'))
    assert main(["submit", str(picture(tmp_path / "a.jpg")), "-c", str(config)]) == 4
    assert "[spool-full]" in capsys.readouterr().err
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_the_answer_is_shown_when_it_comes(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = picture(tmp_path / "a.jpg")
    submitted(capsys, path, "-c", config)  # makes the store that the cloud's stand-in looks into
    answered = threading.Event()

    def cloud() -> None:
        store = VerdictStore(tmp_path / "state")
        while not answered.wait(0.02):
            found = rows(tmp_path / "state")
            if len(found) == 2:
                store.keep([answer(str(found[1][1]), int(str(found[1][0])))], 2 * 10**18)
                break
        store.close()

    thread = threading.Thread(target=cloud)
    thread.start()
    assert main(["submit", str(path), "-c", str(config), "--wait", "30"]) == 0
    answered.set()
    thread.join()
    shown = capsys.readouterr().out.splitlines()[-1].split()
    assert shown[1:4] == ["Banana", "0.875", "asynchronous"]
    assert look(tmp_path / "state").counters["submitted:answered"] == 1
    assert look(tmp_path / "state").frames.unanswered == 0


def test_when_the_time_is_over_the_picture_is_on_its_way_all_the_same(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture(tmp_path / "a.jpg")
    assert main(["submit", str(path), "-c", str(config), "--wait", "0.1"]) == 3
    captured = capsys.readouterr()
    assert "no answer yet" in captured.out
    assert "[no-answer-yet]\n  cure: " in captured.err
    assert main(["submit", str(path), "-c", str(config), "--wait", "0", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["pictures"][0]["answer"] is None
    assert look(tmp_path / "state").waiting == 2


def test_a_picture_that_the_cloud_refuses_is_not_waited_for(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture(tmp_path / "a.jpg")
    submitted(capsys, path, "-c", config)

    def cloud() -> None:
        vision = Writer(tmp_path / "state", Limits(), 0)
        frames = FrameSender(tmp_path / "state", vision.spool)
        refused = 0
        now_ns = 0
        while refused < 2:
            now_ns += 1
            for row in frames.lease(Lane.REVIEW, now_ns, 9):
                refused += frames.refuse(row, "picture-broken", now_ns)
        frames.close()
        vision.close()

    thread = threading.Thread(target=cloud)
    thread.start()
    assert main(["submit", str(path), "-c", str(config), "--wait", "30"]) == 2
    thread.join()
    assert "picture-broken [picture-refused]" in capsys.readouterr().err
    assert look(tmp_path / "state").dead_frames == 2
    assert REFUSALS_BEFORE_DEAD == 5


SUBMITTING = """
import sys
from pathlib import Path
from agent.cli import submit
from agent.config import load
config = load(Path(sys.argv[1]))
jpegs = [submit._Jpeg(Path("a.jpg"), b"x" * 5000, 8, 8)] * 3
print("ready", flush=True)
while True:
    for item in submit.submit(config, jpegs, "submitted"):
        print("id", item.frame_id, flush=True)
"""


def test_kill_9_in_the_middle_leaves_no_row_without_its_picture(tmp_path: Path, config: Path) -> None:
    """Whenever it dies: what was told is there, every row has its file, and what is over is swept."""
    told: set[str] = set()
    for lines in (1, 4, 11, 30):
        with subprocess.Popen(
            [sys.executable, "-c", SUBMITTING, str(config)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            got = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            got += child.stdout.readlines()
        told |= {line.split()[1] for line in got if line.startswith("id") and line.endswith("\n")}
    found = rows(tmp_path / "state")
    assert told <= {f"till-3/{row[1]}/{row[0]}" for row in found}
    spool = tmp_path / "state" / "spool"
    files = {file.name for file in spool.iterdir()}
    assert {str(row[6]) for row in found} <= files
    for name in files:
        os.utime(spool / name, (1, 1))
    vision = Writer(tmp_path / "state", Limits(), 0)
    vision.sweep()
    vision.close()
    assert {file.name for file in spool.iterdir()} == {str(row[6]) for row in found}
    books_balance(tmp_path / "state")
