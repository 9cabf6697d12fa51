"""The support bundle by the real command: no secret in it in any encoding, bounded, and made whatever is broken."""

import base64
import html
import io
import json
import os
import random
import re
import string
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote_to_bytes

import pytest

from agent.ports import Draft, Lane, Stamp
from agent.store.mending import Mender
from agent.store.writer import Limits, Writer
from agent.support.bundle import MOST_BYTES, pack
from agent.support.collect import Part, Task, Wanted, collect, output, tasks
from agent.support.redact import Redactor
from agent.support.secrets import Secrets, gather

AT = "2026-01-31T12:00:00Z"
RNG = random.Random(4)


def word(n: int = 14, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(RNG.choice(letters) for _ in range(n))


def pem(kind: str = "PRIVATE KEY") -> str:
    body = base64.b64encode(RNG.randbytes(180)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"


ODD = "p@s/w\"o\\r'd é%&<x>"
"""Every sign that some encoding writes in another way."""

KNOWN = {name: word() for name in (
    "camera file", "broker file", "camera url", "camera query", "camera path", "beside the config", "identity token",
    "environment token", "environment url", "environment aws", "commented out", "unknown key in config", "short",
)} | {"odd": ODD + word(4), "short": "k7Qz"}  # fmt: skip
"""Secrets that this device keeps somewhere; the logs hold them in all encodings."""

UNKNOWN = {name: word(20) for name in (
    "bearer", "jwt signature", "log password", "log option", "log json", "log url", "cookie", "fact",
    "unit environment", "journal", "escaped json", "digest",
)} | {"basic login": "service:" + word(9), "aws": "AKIA" + word(16, string.ascii_uppercase + string.digits),
      "enrolment code": "QX7B-93KD", "github": "ghp_" + word(36), "slack": "xoxb-" + word(24)}  # fmt: skip
"""Secrets that only their name or shape gives away."""

KEYS = {"device key": pem(), "key beside it": pem("EC PRIVATE KEY"), "key in the journal": pem("RSA PRIVATE KEY")}


def encodings(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield secret
    for head in ("", "a", "ab"):
        for tail in ("", "z"):
            whole = (head + secret + tail).encode()
            yield base64.b64encode(whole).decode()
            yield base64.urlsafe_b64encode(whole).decode().rstrip("=")
    for head in ("x", "xy", "xyz"):
        yield head + base64.b64encode(raw).decode()
    yield base64.b64encode(secret.encode("utf-16-le")).decode()
    yield base64.b64encode(base64.b64encode(raw)).decode()
    yield base64.b64encode(b"x" * 60 + raw + b"y" * 60).decode()
    wrapped = base64.encodebytes(b"login of the camera on shelf one: " * 3 + raw + b" and so on" * 4).decode()
    yield wrapped
    yield json.dumps(wrapped)
    yield raw.hex()
    yield raw.hex().upper()
    yield raw.hex(":")
    yield raw.hex(" ").upper()
    yield "".join(f"\\x{byte:02x}" for byte in raw)
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield quote(quote(secret, safe=""), safe="")
    yield "".join(f"%{byte:02X}" for byte in raw)
    yield "".join(f"%{byte:02x}" for byte in raw)
    yield "".join(f"={byte:02X}" for byte in raw)
    yield "".join(f"\\u{ord(c):04x}" for c in secret)
    yield json.dumps({"note": "".join(f"\\u{ord(c):04x}" for c in secret)})
    yield json.dumps(json.dumps({"x": secret}))
    yield html.escape(secret)
    yield "".join(f"&#{ord(c)};" for c in secret)
    yield repr(secret)
    yield f"rtsp://viewer:{quote(secret, safe='')}@10.0.0.7:554/stream1"
    yield base64.b64encode(f"viewer:{secret}".encode()).decode()


def tried(raw: bytes) -> Iterator[bytes]:
    """A member, and what is left of it when every encoding in it is undone, one at a time."""
    yield raw
    text = raw.decode("utf-8", "replace")
    for _ in range(2):
        yield (undone := unquote_to_bytes(text))
        text = undone.decode("utf-8", "replace")
    text = raw.decode("utf-8", "replace")
    yield html.unescape(text).encode()
    once = re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1] or m[2], 16)), text)
    yield once.replace('\\"', '"').replace("\\\\", "\\").encode("utf-8", "surrogateescape")
    joined = re.sub(r"\s|\\n", "", text)
    for whole in (text, joined):
        for token in re.findall(r"[A-Za-z0-9+/_-]{6,}", whole):
            for start in range(4):
                part = token[start:].replace("-", "+").replace("_", "/")
                part = part[:-1] if len(part) % 4 == 1 else part
                decoded = base64.b64decode(part + "=" * (-len(part) % 4))
                yield decoded
                yield decoded.replace(b"\0", b"")
                try:
                    yield base64.b64decode(decoded + b"=" * (-len(decoded) % 4))
                except ValueError:
                    pass
    for token in re.findall(r"(?:[0-9A-Fa-f]{2}[: ]?){4,}", text):
        yield bytes.fromhex(re.sub(r"[: ]", "", token))


def survivors(members: dict[str, bytes], secrets: dict[str, str]) -> list[tuple[str, str]]:
    wanted = {name: value.encode() for name, value in secrets.items()}
    found = set()
    for member, raw in members.items():
        for form in tried(raw):
            found |= {(name, member) for name, value in wanted.items() if value in form}
    return sorted(found)


def unpack(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


class Shop:
    """A device full of secrets, with a journal, units and a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc, self.state, self.bin = folder / "etc", folder / "state", folder / "bin"
        for path in (self.etc, self.state / "identity", self.bin):
            path.mkdir(parents=True)
        self.config = self.etc / "shelfwire.toml"
        self.log = folder / "old.log"
        self._write_config()
        self._write_store()
        self.program("journalctl", 'case "$*" in *dmesg*) exit 0;; esac; cat "$SHOP/journal"')
        self.program("systemctl", 'echo "Environment=MQTT_PASSWORD=$UNIT_SECRET OTHER=1"; echo "ActiveState=failed"')
        self.program("timedatectl", "echo NTPSynchronized=no")
        (folder / "journal").write_text(self._journal())
        self.log.write_text("\n".join(self._log_lines()))

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nSHOP={self.folder}\nUNIT_SECRET='{UNKNOWN['unit environment']}'\n{script}\n")
        path.chmod(0o755)

    def _write_config(self) -> None:
        for name, key in (
            ("cam.password", "camera file"),
            ("broker.password", "broker file"),
            ("local.token", "beside the config"),
            ("spare.secret", "odd"),
            ("pin.secret", "short"),
        ):
            (self.etc / name).write_text(KNOWN[key] + "\n")
        (self.etc / "spare.key").write_text(KEYS["key beside it"])
        (self.etc / "device.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        (self.etc / "device.key").write_text(KEYS["device key"])
        (self.state / "identity" / "api.token").write_text(KNOWN["identity token"])
        url = f"rtsp://viewer:{KNOWN['camera url']}@10.0.0.7/s1?token={KNOWN['camera query']}"
        path = f"rtsp://10.0.0.8/user=admin_password={KNOWN['camera path']}_channel=1.sdp"
        self.config.write_text(
            f'[device]\nid = "till-3"\nstate_dir = "{self.state}"\nruntime_dir = "{self.folder / "run"}"\n'
            f'[cloud]\nbroker = "mqtt://broker.example:1883"\nusername = "till-3"\n'
            f'password_file = "{self.etc / "broker.password"}"\n'
            f'cert_file = "{self.etc / "device.pem"}"\nkey_file = "{self.etc / "device.key"}"\n'
            f'# password = "{KNOWN["commented out"]}"\n'
            f'[[camera]]\nname = "a"\nurl = "{url}"\n'
            f'[[camera]]\nname = "b"\nurl = "{path}"\nusername = "admin"\n'
            f'password_file = "{self.etc / "cam.password"}"\n'
        )

    def break_config(self) -> None:
        """A key that does not exist, which holds a secret, and then a line that is no TOML at all."""
        text = self.config.read_text()
        self.config.write_text(f'{text}\napi_token = "{KNOWN["unknown key in config"]}"\nthis is no TOML "\n')

    def _write_store(self) -> None:
        writer = Writer(self.state, Limits(), 0)
        writer.start_run("boot", 0, "test")
        facts = {
            "vision": json.dumps({"cameras": [], "stopped": True, "boot": "", "boot_ns": 0, "store_trouble": "",
                                  "seen": KNOWN["camera file"]}),
            "sync": json.dumps({"connected": False, "broker": f"mqtt://x:{KNOWN['broker file']}@b", "code": "",
                                "message": "", "hint": "", "refresh_token": UNKNOWN["fact"]}),
            "odd": base64.b64encode(KNOWN["odd"].encode()).decode(),
        }  # fmt: skip
        seqs = writer.put([Draft("result", Lane.RESULT, b'{"camera":"a"}', Stamp(0, 0), "unsure")], facts=facts)
        writer.close()
        mender = Mender(self.state)
        mender.bury(seqs, f"login {KNOWN['camera url']} is wrong")
        mender.close()

    def _journal(self) -> str:
        return (
            f"vision: camera a: cannot open rtsp://viewer:{KNOWN['camera url']}@10.0.0.7/s1\n"
            f"sync: mqtt_password={UNKNOWN['journal']} was refused\n"
            f"sudo: COMMAND=/usr/bin/shelfwire-agent enroll --code {UNKNOWN['enrolment code']} https://cloud.example\n"
            f"{KEYS['key in the journal']}vision: going on\n" + KEYS["device key"].replace("\n", "\\n") + "\n"
        )

    def _log_lines(self) -> Iterator[str]:
        for name, secret in KNOWN.items():
            for n, form in enumerate(encodings(secret)):
                yield f"2026-01-31 12:00:00 {name} {n}: said {form} and went on"
        for key in KEYS.values():
            der = base64.b64decode("".join(key.splitlines()[1:-1]))
            yield f"key {der.hex()}"
            yield f"key {base64.b64encode(key.encode()).decode()}"
        jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0aWxsIn0." + UNKNOWN["jwt signature"]
        yield f"GET /v1 Authorization: Bearer {UNKNOWN['bearer']}"
        yield f"token seen {jwt} end"
        yield f"login password: {UNKNOWN['log password']}"
        yield f"ran: mosquitto_pub --password {UNKNOWN['log option']} -t x"
        yield json.dumps({"client_secret": UNKNOWN["log json"], "n": 1})
        yield json.dumps(json.dumps({"accessToken": "x", "apiKey": UNKNOWN["escaped json"]}))
        yield f"fetching https://me:{UNKNOWN['log url']}@files.example/x?sig=abc"
        yield f"Cookie: session={UNKNOWN['cookie']}; theme=dark"
        yield f'Authorization: Digest username="v", response="{UNKNOWN["digest"]}"'
        yield "Authorization: Basic " + base64.b64encode(UNKNOWN["basic login"].encode()).decode()
        yield f"key {UNKNOWN['aws']} of {UNKNOWN['github']} and {UNKNOWN['slack']}"

    def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", "support-bundle", "-c", str(self.config), *words],
            capture_output=True, check=False, timeout=90, cwd=self.folder,
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}",
                 "SHELFWIRE_TOKEN": KNOWN["environment token"],
                 "DATABASE_URL": f"postgresql://u:{KNOWN['environment url']}@db/x",
                 "AWS_SECRET_ACCESS_KEY": KNOWN["environment aws"], **environment},
        )  # fmt: skip


EVERYTHING = {**KNOWN, **UNKNOWN} | {
    f"{name}, line {n}": line for name, key in KEYS.items() for n, line in enumerate(key.splitlines()[1:-1])
}


def test_not_one_of_all_secrets_is_in_the_bundle(tmp_path: Path) -> None:
    """By the real command, with a configuration that cannot even be read as TOML."""
    assert len(KNOWN | UNKNOWN) + len(KEYS) > 30
    shop = Shop(tmp_path / "shop")
    before = {path.name: path.read_bytes() for path in (shop.config, shop.log)}
    assert {name for name, _ in survivors(before, KNOWN)} >= {"odd", "camera url", "short", "environment aws"}
    shop.break_config()
    answer = shop.run("--log", str(shop.log), "-o", "-")
    assert answer.returncode == 0, answer.stderr.decode()
    members = unpack(answer.stdout)
    assert {"logs/0-old.log", "config/shelfwire.toml", "journal/shelfwire.log", "service/units.txt"} <= set(members)
    manifest = json.loads(members["manifest.json"])
    assert not [item for item in manifest["left_out"] if "secret" in item["reason"]]
    members["what the command printed"] = answer.stderr
    assert survivors(members, EVERYTHING) == []
    kept = members["logs/0-old.log"].decode()
    assert kept.count("and went on") > 200, "what is no secret stays"
    assert "rtsp://***@10.0.0.7" in members["journal/shelfwire.log"].decode() + kept
    assert "vision: going on" in members["journal/shelfwire.log"].decode()


MEASURED = {"manifest.json", "README.txt", "host/moment.json", "host/folders.txt", "status.json", "status.txt",
            "doctor.json"}  # fmt: skip


def test_of_a_sound_device_everything_is_in_it_but_secrets_and_twice_the_same(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    answer = shop.run("-o", "b.tar.gz", "--json", "--at", AT, "--pictures")
    assert answer.returncode == 0, answer.stderr.decode()
    told = json.loads(answer.stdout)
    members = unpack((shop.folder / "b.tar.gz").read_bytes())
    assert survivors(members, EVERYTHING) == []
    assert (shop.folder / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    assert told["marker"] in members["README.txt"].decode()
    assert json.loads(members["manifest.json"])["marker"] == told["marker"]
    assert json.loads(members["outbox/facts.json"])["counters"]["result:produced"] == 1
    assert json.loads(members["outbox/list.json"])["lanes"]["result"]["dead"] == 1
    assert json.loads(members["doctor.json"])
    assert "SET ASIDE" not in members["status.txt"].decode()
    assert told["redacted"]["by value"] > 3
    assert "pictures of the shop" in answer.stderr.decode()
    assert {"part": "pictures", "reason": "there is no picture now"} in told["left_out"]
    again = unpack(shop.run("-o", "-", "--at", AT).stdout)
    assert again.keys() == members.keys()
    assert {name for name in members if members[name] != again[name]} <= MEASURED


def test_the_same_parts_give_the_same_bytes() -> None:
    parts = [Part("a.txt", b"hello"), Part("b.jpg", b"\xff\xd8", text=False), Part("c", missing="no")]
    bundles = [pack(some, Redactor(Secrets()), 1_700_000_000, {}) for some in (parts, parts)]
    assert bundles[0].content == bundles[1].content
    assert bundles[0].marker == bundles[1].marker
    other = pack([Part("a.txt", b"hellO")], Redactor(Secrets()), 1_700_000_000, {})
    assert other.marker != bundles[0].marker


def script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ('echo "one line"; exec sleep 1000', b"one line\n", "was stopped after 1 s"),
        ("trap '' TERM INT; sleep 1000 & sleep 1000", b"", "was stopped after 1 s"),
        ("echo no permission >&2; exit 1", b"", "no permission"),
        ("exit 3", b"", "exit code 3"),
        ("exit 0", b"", "there is nothing in it"),
    ],
)
def test_a_program_that_hangs_is_stopped_and_one_that_fails_is_quoted(
    tmp_path: Path, text: str, content: bytes, said: str
) -> None:
    part = output("x", [script(tmp_path, text)], 1.0, 1000)
    assert part.content == content
    assert said in (part.note or part.missing)
    bundle = pack([part], Redactor(Secrets()), 0, {})
    assert bundle.left_out[0][0] == "x"
    assert said in unpack(bundle.content)["README.txt"].decode()


def test_a_log_without_end_is_cut_to_its_newest_whole_lines(tmp_path: Path) -> None:
    part = output("x", [script(tmp_path, "seq 1 300000")], 20.0, 10_000)
    lines = part.content.decode().splitlines()
    assert lines == [str(n) for n in range(int(lines[0]), 300_001)]
    assert 9_900 < len(part.content) <= 10_000
    bundle = pack([part], Redactor(Secrets()), 0, {})
    assert bundle.left_out == (("x", f"its first {part.cut:,} bytes: only the newest are kept"),)


def test_a_bundle_that_would_be_too_large_leaves_its_largest_parts_out() -> None:
    noise = [Part(f"{n}.jpg", RNG.randbytes(9 << 20), text=False) for n in range(2)]
    bundle = pack([*noise, Part("small", b"x"), Part("big.jpg", RNG.randbytes(5 << 20), text=False)],
                  Redactor(Secrets()), 0, {})  # fmt: skip
    assert len(bundle.content) <= MOST_BYTES
    assert "small" in bundle.members
    assert ("1.jpg", "the bundle would be too large") in bundle.left_out or len(bundle.left_out) == 1


def test_pictures_come_only_when_asked_for(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    (run / "pictures").mkdir(parents=True)
    (state / "commission").mkdir(parents=True)
    (run / "pictures" / "a.json").write_text(json.dumps({"jpeg": base64.b64encode(b"\xff\xd8now").decode()}))
    (state / "commission" / "a.jpg").write_bytes(b"\xff\xd8then")
    for asked in (False, True):
        wanted = Wanted(tmp_path / "c.toml", state, run, "1 hours ago", (), asked)
        found = [task.collect() for task in tasks(wanted) if task.name == "pictures"]
        assert [(p.name, p.content) for parts in found for p in parts] == (
            [("pictures/a.jpg", b"\xff\xd8now"), ("commission/a.jpg", b"\xff\xd8then")] if asked else []
        )


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("-o", "x.zip"), "bad-output", 2),
        (("-o", "/nowhere/x.tar.gz"), "output-folder", 4),
        (("--since", "yesterday"), "bad-since", 2),
        (("--at", "now"), "bad-time", 2),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    tmp_path: Path, words: tuple[str, ...], code: str, exit_code: int
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("")
    answer = subprocess.run(
        [sys.executable, "-m", "agent.cli", "support-bundle", "-c", str(config), *words],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (answer.returncode, f"[{code}]" in answer.stderr) == (exit_code, True), answer.stderr
    assert "cure:" in answer.stderr


PRIVATE_MOUNT = ["unshare", "--map-root-user", "--mount"]


@pytest.mark.skipif(
    subprocess.run([*PRIVATE_MOUNT, "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine allows no private mounts, so there is no small disk to fill",
)
def test_on_a_full_disk_it_goes_elsewhere(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    config = tmp_path / "c.toml"
    config.write_text(f'[device]\nid = "d"\nstate_dir = "{disk / "state"}"\nruntime_dir = "{disk / "run"}"\n')
    script = (
        'mount -t tmpfs -o size=64k tmpfs "$1" && mkdir "$1/state" && cd "$1" && shift;'
        'dd if=/dev/zero of=fill bs=1k 2>/dev/null; exec "$@"'
    )
    answer = subprocess.run(
        [*PRIVATE_MOUNT, "sh", "-c", script, "sh", str(disk), sys.executable, "-m", "agent.cli", "support-bundle",
         "-c", str(config), "-o", "-"], capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr.decode()
    members = unpack(answer.stdout)
    free = json.loads(members["host/moment.json"])["disks"][str(disk / "state")]["free_bytes"]
    assert free == 0
    assert "left out  outbox/facts.json" in answer.stderr.decode()


# -- parts of it ---------------------------------------------------------------------------------------------


def test_what_comes_too_late_or_fails_costs_only_itself() -> None:
    from threading import Event

    never = Event()

    def hang() -> list[Part]:
        never.wait(60)
        return []

    def fail() -> list[Part]:
        raise ValueError("a bug")

    found = collect([Task("a", hang, -1.9), Task("b", fail, 1), Task("c", lambda: [Part("c", b"x")], 1)])
    never.set()
    assert [(p.name, bool(p.missing)) for p in found] == [("a", True), ("b", True), ("c", False)]


def test_a_secret_that_would_survive_takes_its_part_along() -> None:
    """The last line of defence, tried with a redactor that forgets its work."""

    class Lazy(Redactor):
        def clean(self, text: str) -> str:
            return text

    secrets = Secrets()
    secrets.add("tomato-77")
    bundle = pack([Part("a", b"dG9tYXRvLTc3"), Part("b", b"fine")], Lazy(secrets), 0, {})
    assert bundle.members == ("README.txt", "b", "manifest.json")
    assert bundle.left_out[0][0] == "a"


def test_a_password_that_is_a_common_word_leaves_the_manifest_readable() -> None:
    secrets = Secrets()
    for value in ("secret", "marker", "bytes"):
        secrets.add(value)
    bundle = pack([Part("a", b"the secret marker"), Part("b", missing="no secret")], Redactor(secrets), 0,
                  {"secrets_known": 3, "config": "/etc/secret.toml"})  # fmt: skip
    manifest = json.loads(unpack(bundle.content)["manifest.json"])
    assert (manifest["secrets_known"], manifest["config"]) == (3, "/etc/[REDACTED].toml")
    assert manifest["marker"] == bundle.marker
    assert manifest["left_out"] == [{"part": "b", "reason": "no [REDACTED]"}]


def test_addresses_get_other_names_that_can_still_be_followed() -> None:
    redactor = Redactor(Secrets(), hide_addresses=True)
    text = redactor.clean("10.0.0.7 and 10.0.0.8 and aa:bb:cc:dd:ee:ff and 10.0.0.7 but 127.0.0.1")
    assert text == "ip-2 and ip-3 and mac-1 and ip-2 but 127.0.0.1"


@pytest.mark.parametrize(
    "line",
    [
        'code = "camera-auth"', '"code": "broker-refused"', "password_file = /etc/shelfwire/cam.password",
        "PWD=/home/shop", "error: it refuses the login [camera-auth]", "bypass: none", "token: null",
        "camera shelf-1: 12:30:45 streaming", "sha256 5a11cf4b3d6b32388a42254c277c429bbeb05355f60a8ddea609fd306e8f0973",
        "https://cloud.example/v1/frames", "keyboard = de", "compass=north", "monkey: 3",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_readable(line: str) -> None:
    secrets = Secrets()
    secrets.add("tomato-77")
    redactor = Redactor(secrets)
    redactor.learn(line)
    assert redactor.clean(line) == line


def test_secrets_are_found_where_they_are_kept_and_paths_are_none(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    values = gather(shop.config, [shop.state], {"PWD": str(tmp_path), "X_TOKEN": "abcd-1", "HOME": "/root"}).values()
    for name in ("camera file", "broker file", "camera url", "camera query", "camera path", "beside the config",
                 "identity token", "commented out", "odd", "short"):  # fmt: skip
        assert KNOWN[name].encode() in values, name
    assert b"abcd-1" in values
    assert str(tmp_path).encode() not in values
    assert "abcd" not in repr(gather(shop.config, [], {"X_TOKEN": "abcd-1"}))


@pytest.mark.parametrize(
    "line", ["a", ".", "-", '"', "\\", "://", "a:", "%41", "a=", "token=", "A1", "aA1/", "@", "\\u0041"]
)
def test_a_line_that_is_long_and_odd_holds_nothing_up(line: str) -> None:
    """Patterns that look at each place anew would take hours; the whole run's limit is two minutes."""
    secrets = Secrets()
    secrets.add("tomato-77")
    redactor = Redactor(secrets)
    text = line * (200_000 // len(line)) + "\nthe end\n"
    redactor.learn(text)
    cleaned = redactor.clean(text)
    assert cleaned.endswith("the end\n")
    assert not redactor.survives(cleaned)


def test_a_command_in_the_folder_where_somebody_stands_is_not_run(tmp_path: Path) -> None:
    """Root may stand in a folder that anybody can write to."""
    shop = Shop(tmp_path / "shop")
    (shop.folder / "agent").mkdir()
    (shop.folder / "agent" / "__init__.py").write_text("")
    (shop.folder / "agent" / "cli.py").write_text("open('owned', 'w')")
    found = [task for task in tasks(Wanted(shop.config, shop.state, None, "1 hours ago", ("config",)))
             if task.name == "config/check.txt"]  # fmt: skip
    here = Path.cwd()
    os.chdir(shop.folder)
    try:
        (part,) = found[0].collect()
    finally:
        os.chdir(here)
    assert not (shop.folder / "owned").exists()
    assert b"shelfwire.toml" in part.content
