"""The configuration refuses what it does not know, and names the place and the cure."""

from pathlib import Path

import pytest

from agent.cli.config import as_toml, example, shut_ways, ways_line
from agent.config import load, parse
from agent.errors import Rejected

GOOD = """
[device]
id = "till-3"
[[camera]]
name = "shelf"
url = "synthetic:1"
"""


def complaint(text: str) -> str:
    with pytest.raises(Rejected) as caught:
        parse(text, "test.toml")
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("[modle]\nbundle = 'x'\n", 'modle: unknown key; did you mean "model"?'),
        ("[cloud]\nbrokr = 'mqtt://x'\n", 'cloud.brokr: unknown key; did you mean "broker"?'),
        ("[outbox]\nzzz = 1\n", "outbox.zzz: unknown key; known are: commit_interval, commit_rows"),
        ("[outbox]\ncommit_interval = '5 parsecs'\n", "outbox.commit_interval: write a number and a unit (ms, s, min"),
        ("[outbox]\ncommit_interval = 5\n", 'for example "30 s"'),
        ("[outbox]\nmax_bytes = '1 floppy'\n", "outbox.max_bytes: write a number and a unit (B, kB, KiB"),
        ("[model]\ndevice = 'cuda'\n", "model.device: must be 'auto', 'cpu', 'gpu', 'npu' or 'any'"),
        ("[model]\nprecision = 'fp16'\n", "model.precision: must be 'auto', 'fp32' or 'int8'"),
        ("[model]\nstreams = 65\n", "model.streams: must be less than or equal to 64"),
        ("[model]\npreprocess = 'numpy'\n", "model.preprocess: must be 'auto', 'graph' or 'host'"),
        ("[model]\nruntime = 'tensorflow'\n", "model.runtime: must be 'auto', 'openvino' or 'onnxruntime'"),
        ("[model]\nthreshold = 1.5\n", "model.threshold: must be less than or equal to 1"),
        ("[model]\nstreams = 'two'\n", "model.streams: must be a whole number, without quotes"),
        ("[model]\nthreshold = 'half'\n", "model.threshold: must be a number, without quotes"),
        ("[model]\nbundle = 3\n", "model.bundle: must be text in quotes"),
        ("[watch]\nconditions = 'dark'\n", "watch.conditions: must be a list: conditions = [...]"),
        ("[[cloud]]\nbroker = 'mqtt://x'\n", "cloud: this is a section; write [cloud], with one bracket"),
        ("[alert.door]\nlabel = 'x'\n", "alert: there may be several of these; write [[alert]], with two brackets"),
        ("[cloud]\nbroker = 'localhost'\n", 'write the broker as "mqtts://host:8883"'),
        ("[cloud]\nbroker = 'mqtt://me:secret@x'\n", "put the login into username and password_file"),
        ("[cloud]\nbroker='mqtts://x'\nca_file = '/nowhere/ca.pem'\n", "ca_file: there is no file /nowhere/ca.pem"),
        ("[cloud]\nbroker='mqtts://x'\ncert_file = '/etc/hostname'\n", "cert_file and key_file belong together"),
        ("[[camera]]\nname = 'shelf'\nurl = 'synthetic:2'\n", 'two cameras are named "shelf"'),
        ("[[camera]]\nname = 'b'\nurl = 'http://[::1/x'\n", "camera[2].url: this is no address"),
        ("[[camera]]\nname = 'a b'\nurl = 'x'\n", "camera[2].name"),
        ("[[alert]]\nname='a'\nlabel='Banana'\ncameras=['shelv']\n", 'names the camera "shelv"; did you mean "shelf"?'),
        ("[[alert]]\nname='a'\nlabel='Banana'\nquiet_hours=['10pm']\n", 'write a span of local time as "22:00-06:00"'),
        ("[[alert]]\nname='a'\nlabel='B'\nquiet_hours=['06:00-06:00']\n", "starts and ends at the same minute"),
    ],
)
def test_every_mistake_is_named_with_its_cure(addition: str, words: str) -> None:
    assert words in complaint(GOOD + addition)


def test_all_mistakes_are_listed_at_once() -> None:
    text = complaint("[device]\nid='a/b'\n[modle]\n[outbox]\ncommit_rows = 0\n")
    assert text.count("\n") == 3


def test_a_missing_id_and_a_syntax_error() -> None:
    assert "device: missing" in complaint("[[camera]]\nname='a'\nurl='synthetic:1'\n")
    assert "line 1" in complaint("device = {\n")


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is no configuration at"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Rejected, match="cannot be read"):
        load(tmp_path / "bad.toml")


def test_the_example_loads_with_all_its_comments_removed() -> None:
    text = example()
    parse(text)
    bare = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if not line.startswith("# ") or " = " in line or "[[" in line
    )
    for line in ("ca_file", "cert_file", "key_file", "password_file"):
        bare = "\n".join(row for row in bare.splitlines() if not row.startswith(line))
    assert parse(bare).alert[0].label == "Banana"


def test_what_is_shown_is_what_is_in_force() -> None:
    config = parse(GOOD + "[outbox]\nmax_bytes='3 MiB'\ncommit_interval='20 ms'\n")
    assert parse(as_toml(config)) == config


def test_a_password_in_an_address_is_not_shown() -> None:
    config = parse(GOOD.replace("synthetic:1", "rtsp://admin:hunter2@10.0.0.9/s"))
    assert "hunter2" not in as_toml(config)
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rtsp://h/s", "rtsp"),
        ("http://h/stream.mjpg", "http"),
        ("http://h/still.jpg?q=1", "snapshot"),
        ("/dev/video0", "usb"),
        ("synthetic:7", "synthetic"),
        ("/tmp", "folder"),
        ("/tmp/film.mp4", "file"),
    ],
)
def test_the_address_tells_the_kind(url: str, kind: str) -> None:
    assert parse(GOOD.replace("synthetic:1", url)).camera[0].kind_of() == kind


LEAVES = "[cloud]\nbroker='mqtt://h'\napi='http://h:8000'\n[privacy]\npictures='frames'\n"


@pytest.mark.parametrize(
    ("addition", "line"),
    [
        ("", "the cloud answers no frames: [cloud] api is not set"),
        ("[cloud]\napi='http://h'\n", 'the cloud answers no frames: [privacy] pictures = "thumbnails"'),
        (LEAVES, "the cloud answers too: the function at once, review, and the night"),
        (LEAVES + "[placement]\noverflow='night'\n", ("the cloud answers too: review, the night; "
         'not the function at once ([placement] overflow = "night")')),
        (LEAVES + "[serverless]\nper_hour=0\n", ("the cloud answers too: review, the night; "
         "not the function at once ([serverless] allows no call: see per_hour and per_day_usd)")),
        (LEAVES.replace("broker='mqtt://h'\n", ""), ("the cloud answers too: review, the night; "
         "not the function at once ([cloud] broker is not set, and answers come that way)")),
        (LEAVES + "[placement]\noverflow='drop'\n[batch]\nkeep_every='0 s'\n[review]\nper_hour=0\n",
         ('the cloud answers too: nobody; not the function at once ([placement] overflow = "drop"); '
         "not review ([review] asks for none: see per_hour, below and audit); "
         'not the night ([placement] overflow = "drop" and [batch] keep_every = "0 s")')),
    ],
)  # fmt: skip
def test_it_is_said_who_of_the_cloud_may_answer(addition: str, line: str) -> None:
    assert ways_line(shut_ways(parse(GOOD + addition))) == line
