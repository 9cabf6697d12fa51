"""One contract for every kind of camera, each against the real thing; then what is particular to a kind."""

import errno
import logging
import os
import re
import socket
import stat
import struct
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from camera_servers import (
    PASSWORD,
    TLS_FILE,
    USER,
    free_port,
    http_camera,
    huge_png,
    jpeg,
    picture,
    rtsp_camera,
)

from agent.camera import diagnose as diagnose_page
from agent.camera import http as http_page
from agent.camera import rtsp
from agent.camera.address import Login, address_of, redact
from agent.camera.diagnose import diagnose
from agent.camera.sources import open_source
from agent.camera.sources.usb import UsbSource, check_device
from agent.camera.synthetic import Scene
from agent.config import Camera
from agent.core.watching import CONDITIONS
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.host.clock import SystemClock

import cv2  # isort: skip

CLOCK = SystemClock()
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


def camera(url, **settings):
    quick = {"open_timeout": "2 s", "stall_timeout": "2 s"}
    return Camera(name="door", url=str(url), **{**quick, **settings})


def source(url, **settings):
    return open_source(camera(url, **settings), CLOCK)


@contextmanager
def opened(url, **settings):
    it = source(url, **settings)
    try:
        it.open()
        yield it
    finally:
        it.close()


def failure(url, **settings):
    """Give the error that opening and reading this camera ends with."""
    with pytest.raises(ShelfwireError) as caught, opened(url, **settings) as it:
        while it.read() is not None:
            pass
    error = caught.value
    assert error.code.startswith("camera-")
    assert "door" in str(error)
    assert len(error.hint) > 20, "an error names its cure"
    return error


@pytest.fixture(scope="module")
def servers():
    with http_camera() as over_http, rtsp_camera() as over_rtsp:
        yield over_http, over_rtsp


@pytest.fixture
def web(servers):
    yield servers[0]
    servers[0].behaviour.auth = ""
    servers[0].behaviour.authorizations.clear()
    servers[0].behaviour.requests.clear()


@pytest.fixture
def rtsp_server(servers):
    yield servers[1]
    servers[1].behaviour.auth = ""


@pytest.fixture(scope="module")
def video_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "shelf.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for number in range(5):
        writer.write(picture(number))
    writer.release()
    return path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of rendered pictures, good and bad."""
    root = tmp_path_factory.mktemp("shelf")
    (root / "b").mkdir()
    (root / "empty-folder").mkdir()
    scene = Scene(3, 320, 240)
    for index, name in enumerate(("a.jpg", "b/c.png", "b/d.webp", "z.JPEG")):
        cv2.imwrite(str(root / name), scene.render(index)[0])
    whole = (root / "a.jpg").read_bytes()
    (root / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "c-empty.jpg").write_bytes(b"")
    (root / "d-text.png").write_text("not a picture")
    (root / "e-huge.png").write_bytes(huge_png())
    (root / "readme.txt").write_text("no picture, and not taken for one")
    os.mkfifo(root / "pipe.jpg")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    return root


@dataclass
class Kind:
    url: str
    live: bool
    missing: str
    code: str = "camera-not-found"


@pytest.fixture(params=["rtsp", "http", "snapshot", "file", "folder", "synthetic"])
def kind(request, servers, video_file, shelf):
    over_http, over_rtsp = f"http://127.0.0.1:{servers[0].port}", f"rtsp://127.0.0.1:{servers[1].port}"
    return {
        "rtsp": Kind(f"{over_rtsp}/stream", True, f"{over_rtsp}/missing"),
        "http": Kind(f"{over_http}/mjpeg", True, f"{over_http}/missing"),
        "snapshot": Kind(f"{over_http}/snapshot.jpg", True, f"{over_http}/missing.jpg"),
        "file": Kind(str(video_file), False, str(video_file) + ".missing"),
        "folder": Kind(str(shelf), False, str(shelf / "missing")),
        "synthetic": Kind("synthetic:7?width=320&height=240", True, "synthetic:x", "camera-address"),
    }[request.param]


# --- the contract -------------------------------------------------------------------------------------------------


def test_it_gives_colour_pictures_that_change(kind):
    with opened(kind.url) as it:
        assert it.live == kind.live
        shots = [it.read() for _ in range(3)]
    for shot in shots:
        assert shot.picture.dtype == np.uint8
        assert shot.picture.shape == (240, 320, 3)
    assert any(not np.array_equal(shots[0].picture, s.picture) for s in shots[1:])


def test_a_picture_once_given_is_not_written_into(kind):
    with opened(kind.url) as it:
        first = it.read().picture
        copy = first.copy()
        it.read()
        assert np.array_equal(first, copy)


def test_it_can_be_closed_twice_and_opened_again(kind):
    it = source(kind.url)
    it.close()
    for _ in range(2):
        it.open()
        assert it.read() is not None
        it.close()
        it.close()


def test_what_is_not_there_is_said_with_its_cure(kind):
    error = failure(kind.missing)
    assert error.code == kind.code
    assert isinstance(error, Rejected)


def test_it_can_be_closed_after_a_failed_open(kind):
    with pytest.raises(ShelfwireError):
        it = source(kind.missing)
        try:
            it.open()
        finally:
            it.close()
            it.close()


# --- network cameras: why there is no picture ---------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://{}/mjpeg", "http://{}/snapshot.jpg", "rtsp://{}/stream"])
class TestNetwork:
    def test_an_unknown_name(self, url):
        error = failure(url.format("no-such-camera.invalid"))
        assert (error.code, type(error)) == ("camera-dns", Retryable)

    def test_a_port_that_is_shut(self, url):
        error = failure(url.format(f"127.0.0.1:{free_port()}"))
        assert (error.code, type(error)) == ("camera-refused", Retryable)

    def test_a_host_that_does_not_answer(self, url):
        with ExitStack() as stack:
            deaf = stack.enter_context(socket.socket())
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            # The queue of a listener that accepts nobody is full after two; the kernel then drops what knocks.
            for _ in range(3):
                knock = stack.enter_context(socket.socket())
                knock.setblocking(False)
                knock.connect_ex(deaf.getsockname())
            error = failure(url.format(f"127.0.0.1:{deaf.getsockname()[1]}"), open_timeout="300 ms")
        assert (error.code, type(error)) == ("camera-timeout", Retryable)

    @pytest.mark.parametrize("auth", ["basic", "digest"])
    def test_logins(self, url, auth, web, rtsp_server, tmp_path):
        server = rtsp_server if url.startswith("rtsp") else web
        server.behaviour.auth = auth
        here = f"127.0.0.1:{server.port}"
        assert failure(url.format(here)).code == "camera-auth"
        wrong = failure(url.format(f"{USER}:hunter2@{here}"))
        assert (wrong.code, type(wrong)) == ("camera-auth", Rejected)
        password = tmp_path / "password"
        password.write_text(PASSWORD + "\n")
        for address, settings in ((LOGIN + here, {}), (here, {"username": USER, "password_file": password})):
            with opened(url.format(address), **settings) as it:
                assert it.read().picture.shape == (240, 320, 3)

    def test_an_address_with_a_slash_in_the_password_is_refused_without_showing_it(self, url):
        error = failure(url.format("shop:hun/ter2@10.0.0.9"))
        assert error.code == "camera-address"
        assert "ter2" not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("path", "code", "kind"),
    [
        ("http:/page", "camera-codec", Rejected),
        ("http:/noise", "camera-codec", Retryable),
        ("http:/error", "camera-error", Retryable),
        ("http:/busy", "camera-busy", Retryable),
        ("http:/moved", "camera-not-found", Rejected),
        ("http:/silent", "camera-timeout", Retryable),
        ("http:/truncated.jpg", "camera-codec", Retryable),
        ("http:/cut.jpg", "camera-lost", Retryable),
        ("http:/huge.png", "camera-codec", Rejected),
        ("http:/empty.jpg", "camera-codec", Retryable),
        ("http:/page.jpg", "camera-codec", Rejected),
        ("http:/moved.jpg", "camera-not-found", Rejected),
        ("http:/silent.jpg", "camera-timeout", Retryable),
        ("http:/slow.jpg", "camera-timeout", Retryable),
        ("http:/endless.jpg", "camera-codec", Rejected),
        ("rtsp:/sound", "camera-codec", Rejected),
        ("rtsp:/mute", "camera-stalled", Retryable),
        ("rtsp:/silent", "camera-timeout", Retryable),
        ("rtsp:/garbage", "camera-codec", Rejected),
        ("rtsp:/busy", "camera-busy", Retryable),
    ],
)
def test_each_way_to_give_no_picture_has_its_code(web, rtsp_server, path, code, kind):
    scheme, _, rest = path.partition(":")
    server = rtsp_server if scheme == "rtsp" else web
    began_ns = CLOCK.now().boot_ns
    error = failure(f"{scheme}://127.0.0.1:{server.port}{rest}", open_timeout="500 ms", stall_timeout="500 ms")
    assert (error.code, type(error)) == (code, kind)
    assert CLOCK.now().boot_ns - began_ns < 3e9, "every way to fail has a deadline"
    assert PASSWORD not in str(error)
    assert "LOCsecret" not in str(error)


def test_a_chunked_answer_is_a_picture_too(web):
    with opened(f"http://127.0.0.1:{web.port}/chunked.jpg") as it:
        assert it.read().picture.shape == (240, 320, 3)


def test_an_encrypted_camera_is_trusted_only_when_its_authority_is(monkeypatch):
    with http_camera(tls=True) as web, rtsp_camera(tls=True) as stream:
        urls = [f"https://127.0.0.1:{web.port}/mjpeg", f"https://127.0.0.1:{web.port}/snapshot.jpg",
                f"rtsps://127.0.0.1:{stream.port}/stream"]  # fmt: skip
        for url in urls:
            error = failure(url)
            assert (error.code, type(error)) == ("camera-tls", Rejected)
        monkeypatch.setattr(http_page, "CA_FILE", str(TLS_FILE))
        monkeypatch.setattr(diagnose_page, "CA_FILE", str(TLS_FILE))
        monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"rtsp_transport;tcp|tls_verify;1|ca_file;{TLS_FILE}")
        for url in urls:
            with opened(url) as it:
                assert it.read().picture.shape == (240, 320, 3)


def test_a_digest_camera_never_sees_the_password_in_clear(web):
    web.behaviour.auth = "digest"
    with opened(f"http://{LOGIN}127.0.0.1:{web.port}/snapshot.jpg") as it:
        it.read()
        it.read()
    assert web.behaviour.authorizations
    assert all(a.startswith("Digest") for a in web.behaviour.authorizations)


def test_an_open_camera_is_not_sent_the_password_at_all(web):
    with opened(f"http://{LOGIN}127.0.0.1:{web.port}/snapshot.jpg") as it:
        it.read()
    assert web.behaviour.authorizations == []


def test_a_stream_that_freezes_is_stalled_and_one_that_dies_is_lost():
    for make, path in ((http_camera, "http://127.0.0.1:{}/mjpeg"), (rtsp_camera, "rtsp://127.0.0.1:{}/stream")):
        with make() as server:
            url = path.format(server.port)
            with opened(url, stall_timeout="500 ms") as it:
                it.read()
                server.behaviour.frozen.set()
                with pytest.raises(Retryable) as caught:
                    while True:
                        it.read()
                assert caught.value.code == "camera-stalled"
                server.behaviour.frozen.clear()
            with opened(url) as it:
                it.read()
                server.die()
                with pytest.raises(Retryable) as caught:
                    while True:
                        it.read()
                assert caught.value.code == "camera-lost"


def test_a_single_picture_taken_for_a_stream_is_told_the_kind_to_set(web):
    error = failure(f"http://127.0.0.1:{web.port}/snapshot")
    assert error.code == "camera-lost"
    assert 'kind = "snapshot"' in error.hint


def test_a_stream_of_pictures_that_are_too_large_is_refused(web, monkeypatch):
    monkeypatch.setattr("agent.camera.sources.capture.MAX_PIXELS", 320 * 240 - 1)
    assert failure(f"http://127.0.0.1:{web.port}/mjpeg").code == "camera-codec"


def test_a_host_that_hears_but_cannot_be_routed_to(monkeypatch):
    def no_way(self, address):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    there = camera("rtsp://192.0.2.1/stream")
    monkeypatch.setattr(socket.socket, "connect", no_way)
    error = diagnose(there, address_of(there), CLOCK, 0.0)
    assert error.code == "camera-unreachable"


@pytest.mark.parametrize("url", ["rtsp://127.0.0.1:9/stream", "http://camera.invalid/a.jpg", "http://127.0.0.1:9/a"])
def test_vision_without_a_network_names_the_drop_in(monkeypatch, url):
    def forbidden(*_, **__):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", forbidden)
    error = failure(url)
    assert error.code == "camera-no-network"
    assert "drop-ins/network-cameras.conf" in error.hint


def test_a_name_server_that_hangs_is_left_behind(monkeypatch):
    import threading

    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(5) and [])
    there = camera("rtsp://camera.invalid/stream", open_timeout="100 ms")
    try:
        assert diagnose(there, address_of(there), CLOCK, 0.0).code == "camera-dns"
    finally:
        release.set()


# --- logins are never shown ---------------------------------------------------------------------------------------

SECRET = "S3cr&t/%"


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://admin:{quote(SECRET, safe='')}@10.0.0.9/stream",
        f"rtsp://admin:{SECRET}@10.0.0.9/stream",
        "http://admin:S3cr@ts3cr@10.0.0.9/x",
        "http://10.0.0.9/snap.cgi?user=S3cr&pwd=S3cr%26t#S3cr",
        "http://10.0.0.9/video?token=S3cr;x=S3cr",
        "rtsp://10.0.0.9/user=admin_password=S3cr_channel=1_stream=0.sdp",
        "rtsp://admin:S3cr#t@10.0.0.9/",
        "rtsp://admin:S3cr t@10.0.0.9/",
    ],
)
def test_an_address_is_shown_without_what_opens_the_camera(url):
    shown = redact(url)
    assert "S3cr" not in shown
    assert "s3cr" not in shown
    assert "10.0.0.9" in shown
    try:
        address = address_of(camera(url))
    except Rejected as error:
        assert "S3cr" not in f"{error} {error.hint} {error!r}"
    else:
        assert "S3cr" not in repr(address) + str(address) + repr(address.login)


def test_what_is_no_network_address_is_shown_as_it_is():
    assert redact("/srv/shelf@home/video.mp4") == "/srv/shelf@home/video.mp4"
    assert redact("rtsp://10.0.0.9:554/stream1") == "rtsp://10.0.0.9:554/stream1"


def test_no_log_line_exception_or_stream_of_this_process_shows_a_login(web, rtsp_server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    web.behaviour.auth = rtsp_server.behaviour.auth = "digest"
    planted = "hunter2%2F%25secret"
    for url in (
        f"rtsp://planted:{planted}@127.0.0.1:{rtsp_server.port}/stream",
        f"http://planted:{planted}@127.0.0.1:{web.port}/mjpeg",
        f"http://planted:{planted}@127.0.0.1:{web.port}/snapshot.jpg?token=hunter2",
        f"http://planted:{planted}@127.0.0.1:{free_port()}/snapshot.jpg?token=hunter2",
        f"rtsp://planted:{planted}@no-such-camera.invalid/stream",
    ):
        error = failure(url)
        chain = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
        assert "hunter2" not in " ".join(f"{e!r} {getattr(e, 'hint', '')}" for e in chain)
        assert "planted" not in f"{error!r}"
    streams = capfd.readouterr()
    assert "hunter2" not in caplog.text + streams.out + streams.err


def test_a_login_in_the_configuration_wins_over_one_in_the_address(tmp_path):
    file = tmp_path / "password"
    file.write_text("right one\r\n")
    address = address_of(camera("http://a:b@10.0.0.9/x", username="u ser", password_file=file))
    assert address.login == Login("u ser", "right one")
    assert address.url == "http://10.0.0.9/x"
    assert address.with_login() == "http://u%20ser:right%20one@10.0.0.9/x"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 5000])
def test_a_password_file_that_holds_no_password(tmp_path, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    error = failure("rtsp://10.0.0.9/", username="u", password_file=file)
    assert (error.code, type(error)) == ("camera-password-file", Broken)
    assert str(file) in str(error)


@pytest.mark.parametrize("url", ["rtsp://", "rtsp:///x", "http://host:port/x", "http://host:99999/", "http://h/ x"])
def test_an_address_that_cannot_be_meant(url):
    assert failure(url).code == "camera-address"


def test_the_answer_to_a_digest_challenge_is_that_of_the_standard():
    """The example of RFC 2617, section 3.5, without its quality of protection, which names the client's own nonce."""
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'
    answer = rtsp.authorize([challenge], "GET", "/dir/index.html", Login("Mufasa", "Circle Of Life"))
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in answer
    assert 'opaque="5ccc"' in answer


def test_digest_goes_before_basic_and_what_is_unknown_is_left():
    login = Login("u", "p")
    assert rtsp.authorize(['Basic realm="x"', 'Digest realm="x", nonce="1"'], "D", "u", login).startswith("Digest")
    assert rtsp.authorize(['Digest realm="x", nonce="1", algorithm=MD7', "Basic"], "D", "u", login).startswith("Basic")
    assert "qop=auth" in rtsp.authorize(['Digest realm="x", nonce="1", qop="auth,auth-int"'], "D", "u", login)
    assert rtsp.authorize(["Negotiate"], "DESCRIBE", "u", login) is None


def test_a_snapshot_is_asked_for_over_http_alone():
    error = failure("rtsp://10.0.0.9/x", kind="snapshot")
    assert error.code == "camera-address"
    assert "http://" in error.hint


def test_every_code_of_a_camera_stands_in_the_guide():
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "cameras.md").read_text()
    source = "".join(path.read_text() for path in (root / "agent" / "camera").rglob("*.py"))
    codes = set(re.findall(r'"(camera-[a-z-]+)"', source))
    assert len(codes) > 15
    assert codes | set(CONDITIONS) == set(re.findall(r"^\| `(camera-[a-z-]+)` \|", guide, re.MULTILINE))


# --- files and folders --------------------------------------------------------------------------------------------


def read_all(it, most=100):
    shots = []
    while len(shots) < most and (shot := it.read()) is not None:
        shots.append(shot)
    return shots


def test_a_video_gives_every_frame_once_and_ends(video_file):
    with opened(video_file) as it:
        shots = read_all(it)
        assert it.read() is None
    assert len(shots) == 5
    assert shots[0].truth is None


def test_a_video_can_loop(video_file):
    with opened(video_file, loop=True) as it:
        shots = read_all(it, 12)
    assert len(shots) == 12
    assert np.array_equal(shots[0].picture, shots[5].picture)


def test_a_folder_gives_its_pictures_in_order_and_skips_what_is_broken(shelf, caplog):
    with opened(shelf) as it:
        shots = read_all(it)
        assert it.skipped == {"picture-truncated": 1, "picture-empty": 1, "picture-not-a-picture": 1,
                              "picture-too-large": 1}  # fmt: skip
        read_all(it)
    assert len(shots) == 4
    scene = Scene(3, 320, 240)
    for index, shot in enumerate(shots):
        assert np.abs(shot.picture.astype(int) - scene.render(index)[0]).mean() < 12, f"picture {index} in order"
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 4
    assert any("cut.jpg [picture-truncated]" in line for line in lines)


def test_a_looping_folder_logs_each_broken_file_once_and_sees_new_ones(tmp_path, caplog):
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    with opened(tmp_path, loop=True) as it:
        it.read()
        (tmp_path / "new.png").write_bytes(cv2.imencode(".png", picture(2, 64, 64))[1].tobytes())
        shapes = {it.read().picture.shape[:2] for _ in range(6)}
        assert it.skipped.total() >= 3
    assert shapes == {(240, 320), (64, 64)}
    assert len(caplog.records) == 1


def test_a_folder_with_a_list_of_labels_knows_the_truth(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "b.jpg").write_bytes(jpeg(2))
    (tmp_path / "labels.csv").write_text("one/a.jpg, Banana\n\n")
    with opened(tmp_path) as it:
        assert [s.truth for s in read_all(it)] == [None, "Banana"]
    (tmp_path / "labels.csv").write_text("one/a.jpg;Banana\n")
    assert failure(tmp_path).code == "camera-labels"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("a.jpg", b"", "camera-codec"), ("a.txt", b"text", "camera-not-found"), (None, None, "camera-not-found")],
)
@pytest.mark.parametrize("loop", [False, True])
def test_a_folder_without_a_single_picture_says_so(tmp_path, name, content, code, loop):
    if name:
        (tmp_path / name).write_bytes(content)
    assert failure(tmp_path, loop=loop).code == code


@pytest.mark.parametrize("content", [b"", b"not a video", jpeg()[:100]])
@pytest.mark.parametrize("loop", [False, True])
def test_a_file_that_is_no_video(tmp_path, content, loop):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    assert failure(path, loop=loop).code == "camera-codec"


def test_a_file_this_user_may_not_read(video_file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs tests in containers, may read everything
    error = failure(video_file)
    assert error.code == "camera-permission"
    assert str(video_file) in error.hint


# --- synthetic ----------------------------------------------------------------------------------------------------


def test_a_synthetic_camera_knows_the_truth_and_repeats_itself():
    with opened("synthetic:11?width=320&height=180") as it:
        first = [it.read() for _ in range(3)]
    with opened("synthetic://11?height=180&width=320") as it:
        again = [it.read() for _ in range(3)]
    assert all(s.truth for s in first)
    for a, b in zip(first, again, strict=True):
        assert a.truth == b.truth
        assert np.array_equal(a.picture, b.picture)


def test_a_synthetic_camera_in_a_loop_gives_the_same_pictures_again_without_rendering_them():
    with opened("synthetic:11?width=320&height=180&loop=3") as it:
        shots = [it.read() for _ in range(7)]
    with opened("synthetic:11?width=320&height=180") as it:
        plain = [it.read() for _ in range(3)]
    assert [shot.picture is shots[n % 3].picture for n, shot in enumerate(shots)] == [True] * 7
    for shot, other in zip(shots, plain, strict=False):
        np.testing.assert_array_equal(shot.picture, other.picture)
        assert shot.truth == other.truth


@pytest.mark.parametrize(
    "url",
    [
        "synthetic:",
        "synthetic:-1",
        "synthetic:1?width=1",
        "synthetic:1?colour=red",
        "synthetic:1?width=99999",
        "synthetic:1?loop=65",
        "synthetic:1?width=²",
    ],
)
def test_a_synthetic_camera_that_cannot_be_rendered(url):
    assert failure(url).code == "camera-address"


# --- USB: this machine has no camera, so the kernel's answers are played -------------------------------------------


class Kernel:
    """Answers for /dev/video7 as linux/videodev2.h lays them out."""

    def __init__(self, *, capabilities=0x84200001, node=0x04200001, fault=None, at="open"):
        self.capabilities, self.node, self.fault, self.at = capabilities, node, fault, at

    def open(self, path, flags):
        assert flags & os.O_NONBLOCK, "a device must not keep us waiting"
        if self.at == "open" and self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        return os.memfd_create("video7")

    def fstat(self, descriptor):
        return os.stat_result((stat.S_IFCHR, *[0] * 9))

    def ioctl(self, descriptor, request, argument):
        if request == 0x80685600:
            if self.at == "query" and self.fault:
                raise OSError(self.fault, os.strerror(self.fault))
            return bytes(84) + struct.pack("=II", self.capabilities, self.node) + bytes(12)
        assert (request, len(argument)) == (0xC0145608, 20)
        if self.at == "buffers" and self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        return argument


def play(monkeypatch, kernel):
    from types import SimpleNamespace

    from agent.camera.sources import usb

    names = {n: getattr(os, n) for n in ("O_RDWR", "O_NONBLOCK", "O_CLOEXEC", "close", "strerror")}
    monkeypatch.setattr(usb, "os", SimpleNamespace(open=kernel.open, fstat=kernel.fstat, **names))
    monkeypatch.setattr(usb, "fcntl", SimpleNamespace(ioctl=kernel.ioctl))


@pytest.mark.parametrize(
    ("kernel", "code", "cure"),
    [
        (Kernel(fault=errno.ENOENT), "camera-not-found", "plug"),
        (Kernel(fault=errno.EACCES), "camera-permission", "`video` group"),
        (Kernel(fault=errno.EBUSY, at="buffers"), "camera-busy", "fuser"),
        (Kernel(fault=errno.ENOTTY, at="query"), "camera-codec", "/dev/v4l/by-id"),
        (Kernel(node=0x04A00000), "camera-codec", "second node"),
        (Kernel(fault=errno.EIO, at="query"), "camera-error", "cable"),
        (Kernel(fault=errno.ENODEV, at="query"), "camera-not-found", "plug"),
    ],
)
def test_why_a_usb_camera_does_not_open(monkeypatch, kernel, code, cure):
    play(monkeypatch, kernel)
    error = failure("/dev/video7")
    assert error.code == code
    assert cure in error.hint
    assert "/dev/video7" in str(error)


def test_a_usb_camera_that_is_fine_passes_and_can_be_named_by_its_number(monkeypatch):
    play(monkeypatch, Kernel())
    check_device("door", "/dev/video7")
    assert isinstance(source("7"), UsbSource)


class Webcam:
    """OpenCV's side of a USB camera: three pictures, then grabs that bring nothing."""

    def __init__(self, path, backend):
        assert (path, backend) == ("/dev/video7", cv2.CAP_V4L2)
        self.left = 3

    def isOpened(self):  # noqa: N802  OpenCV's name
        return True

    def set(self, prop, value):
        return True

    def get(self, prop):
        return {cv2.CAP_PROP_FRAME_WIDTH: 320.0, cv2.CAP_PROP_FRAME_HEIGHT: 240.0}[prop]

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, picture(self.left)

    def release(self):
        pass


def test_a_usb_camera_is_read_stalls_and_is_missed_when_it_is_unplugged(monkeypatch):
    kernel = Kernel()
    play(monkeypatch, kernel)
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    with opened("/dev/video7", stall_timeout="100 ms") as it:
        assert [it.read().picture.shape for _ in range(3)] == [(240, 320, 3)] * 3
        with pytest.raises(Retryable) as caught:
            it.read()
        assert caught.value.code == "camera-stalled"
        kernel.fault = errno.ENOENT
        with pytest.raises(Retryable) as caught:
            it.read()
        assert caught.value.code == "camera-not-found"


def test_a_file_that_is_no_device(tmp_path):
    path = tmp_path / "video0"
    path.write_bytes(b"")
    assert failure(path, kind="usb").code == "camera-codec"


def test_the_requests_to_the_kernel_are_those_of_its_header():
    def request(direction, size, number):
        return direction << 30 | size << 16 | ord("V") << 8 | number

    from agent.camera.sources import usb

    assert request(2, 104, 0) == usb._VIDIOC_QUERYCAP
    assert request(3, 20, 8) == usb._VIDIOC_REQBUFS
