"""What a device was told when it was enrolled lies below what its user wrote."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import config
from agent.cli import enroll
from agent.core import health
from agent.core.reply import HttpReply, Never, NotNow, sort
from agent.errors import Rejected
from wire import tls
from wire.enrolment import Welcome

ENROLLED = """
[device]
id = "till-3"
store = "store-12"
[cloud]
broker = "mqtts://cloud.example:8883"
api = "https://cloud.example:8443"
ca_file = "{folder}/ca.crt"
cert_file = "{folder}/device.crt"
key_file = "{folder}/device.key"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / config.IDENTITY
    folder.mkdir(parents=True)
    for name in ("ca.crt", "device.crt", "device.key"):
        (folder / name).touch()
    (folder / config.ENROLLED).write_text(ENROLLED.format(folder=folder))
    return folder.parent


def test_an_enrolled_device_needs_no_configuration(state: Path, tmp_path: Path) -> None:
    found = config.load(tmp_path / "none.toml", state)
    assert (found.device.id, found.device.store, found.device.state_dir) == ("till-3", "store-12", state)
    assert found.cloud.own == (state / "identity" / "device.crt", state / "identity" / "device.key")


def test_the_users_words_go_first_key_by_key(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "shelfwire.toml"
    file.write_text(
        f'[device]\nstate_dir = "{state}"\nstore = "by hand"\n[cloud]\napi = "http://10.0.0.1"\nkeepalive = "9 s"\n'
        '[[camera]]\nname = "a"\nurl = "synthetic:1"\n'
    )
    found = config.load(file)
    assert (found.device.id, found.device.store) == ("till-3", "by hand")
    assert (found.cloud.api, found.cloud.broker) == ("http://10.0.0.1", "mqtts://cloud.example:8883")
    assert (found.cloud.keepalive, len(found.camera)) == (9.0, 1)


def test_another_name_than_the_certificates_is_refused(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "shelfwire.toml"
    file.write_text(f'[device]\nid = "till-4"\nstate_dir = "{state}"\n')
    with pytest.raises(Rejected) as refused:
        config.load(file)
    assert "till-3" in str(refused.value)
    assert "till-4" in str(refused.value)
    assert refused.value.hint


def test_without_enrolment_nothing_changes(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        config.load(tmp_path / "none.toml", tmp_path)
    assert refused.value.code == "config-missing"
    file = tmp_path / "shelfwire.toml"
    file.write_text(f'[device]\nstate_dir = "{tmp_path}"\n')
    with pytest.raises(Rejected, match=r"device\.id: missing") as refused:
        config.load(file)
    assert "shelfwire-agent enroll" in refused.value.hint


@pytest.mark.parametrize("text", ["device = 7", "[device]\nstate_dir = 7", "x = ["])
def test_the_state_folder_is_found_in_any_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "shelfwire.toml"
    file.write_text(text)
    if text.endswith("["):
        with pytest.raises(Rejected):
            config.state_dir_of(file)
    else:
        assert config.state_dir_of(file) == config.STATE_DIR
    file.write_text('[device]\nstate_dir = "/somewhere"\n')
    assert config.state_dir_of(file) == Path("/somewhere")


@pytest.mark.parametrize(
    "code", ["certificate-revoked", "certificate-missing", "certificate-unknown", "foreign-device"]
)
def test_frames_of_a_device_that_is_not_let_in_wait(code: str) -> None:
    """Its frames are good: they are sent once it is enrolled anew."""
    problem = {"content-type": "application/problem+json"}
    for status in (401, 403):
        reply = HttpReply(status, problem, b'{"code": "%s", "detail": "x"}' % code.encode())
        assert isinstance(sort(reply, frozenset({200}), 0), NotNow)
    other = HttpReply(422, problem, b'{"code": "bad-sha256", "detail": "x"}')
    assert isinstance(sort(other, frozenset({200}), 0), Never)


FACTS = health.Facts(
    vision_age_s=0.0, store_trouble="", evicted=0, dead=0, clock="synced", cameras=1, cameras_ill=()
)  # fmt: skip
DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("left_days", "codes"),
    [(None, []), (60, []), (25, []), (19, ["certificate-ends-soon"]), (-1, ["certificate-expired"])],
)
def test_a_certificate_that_ends_is_a_warning_with_a_cure(left_days: float | None, codes: list[str]) -> None:
    from dataclasses import replace

    left_s = None if left_days is None else left_days * DAY_S
    found = health.warnings(replace(FACTS, certificate_left_s=left_s, renewal="the API does not answer [api-timeout]"))
    assert [warning.code for warning in found] == codes
    for warning in found:
        assert "api-timeout" in warning.text
        assert "shelfwire-agent enroll" in warning.cure


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        ("certificate verify failed: certificate is not yet valid (_ssl.c:1006)", "clock-wrong", "timedatectl"),
        ("certificate verify failed: Hostname mismatch, certificate is not valid for 'x'", "", "--host"),
        ("certificate verify failed: unable to get local issuer certificate", "", "another server"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] sslv3 alert certificate revoked", "certificate-revoked", "--replace"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x", "certificate-missing", "enroll"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "", "8883"),
    ],
)
def test_what_tls_says_is_put_into_words(said: str, code: str, word: str) -> None:
    reason = tls.explain(said)
    assert reason is not None
    assert (reason.code, word in reason.hint) == (code, True)
    assert tls.explain("anything else") is None


@pytest.mark.parametrize(
    ("ahead", "code"),
    [
        (timedelta(), ""),
        (timedelta(minutes=-20), "clock-off"),
        (timedelta(hours=3), "clock-off"),
        (timedelta(days=-8), "clock-wrong"),
        (timedelta(days=-20_000), "clock-wrong"),
        (timedelta(days=365), "clock-wrong"),
    ],
)
def test_a_clock_is_compared_with_the_clouds_before_a_code_is_used(ahead: timedelta, code: str) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    welcome = Welcome(
        v=1, device="till-3", store="s", salt="11" * 32, nonce="22" * 32, now=now, trust="x", proof="0" * 64
    )  # fmt: skip
    if code == "clock-wrong":
        with pytest.raises(Rejected) as refused:
            enroll._check_clock(welcome, now + ahead)
        assert (refused.value.code, "timedatectl" in refused.value.hint) == (code, True)
        assert f"{now:%Y-%m-%d}" in str(refused.value)
    else:
        assert enroll._check_clock(welcome, now + ahead).code == code
