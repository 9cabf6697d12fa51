"""The units by systemd's own checker, and the installation below a folder."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
ENVIRONMENT = Path(sys.prefix)
STAND_IN = ENVIRONMENT / "bin" / "shelfwire-agent"
FLOOR = 252
"""The oldest systemd that runs these units: Debian 12."""

needs_checker = pytest.mark.skipif(
    sys.platform != "linux" or (shutil.which("systemd-analyze") is None and shutil.which("apt-get") is None),
    reason="systemd-analyze is part of systemd, which this system does not have and apt-get cannot bring",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    assert shutil.which("systemd-analyze"), "set up again: scripts/setup --cloud --dev --system"
    environment = os.environ | {"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"}
    fetched = ROOT / ".shelfwire" / "systemd-analyze"
    if fetched.is_dir():  # unpacked without root, its own units lie beside it
        environment["SYSTEMD_UNIT_PATH"] = f"{fetched}/lib/systemd/system:{fetched}/usr/lib/systemd/system:"
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a command in them that is there while nothing is installed."""
    for unit in UNITS.glob("shelfwire*"):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/shelfwire-agent", str(STAND_IN)))
    return tmp_path


@needs_checker
def test_systemd_has_nothing_to_say_about_any_unit(units: Path) -> None:
    names = sorted(path.name for path in units.iterdir())
    assert len(names) == 6
    checked = analyze("verify", "--man=no", *(str(units / name) for name in names))
    assert (checked.returncode, checked.stderr) == (0, "")


@needs_checker
def test_the_checker_sees_a_mistake(units: Path) -> None:
    wrong = units / "shelfwire-sync.service"
    wrong.write_text(wrong.read_text().replace("WatchdogSec=30s", "WatchdogSec=30s # petted"))
    assert "Failed to parse" in analyze("verify", "--man=no", str(wrong)).stderr


@needs_checker
@pytest.mark.parametrize(("name", "tenths"), [("vision", 10), ("sync", 15), ("nightly", 15)])
def test_a_service_is_shut_in(name: str, tenths: int) -> None:
    judged = analyze("security", "--offline=yes", f"--threshold={tenths}", str(UNITS / f"shelfwire-{name}.service"))
    assert judged.returncode == 0, judged.stdout
    found = re.search(r"exposure level for \S+: (\d+\.\d)", judged.stdout)
    assert found is not None
    assert float(found[1]) <= tenths / 10


@needs_checker
@pytest.mark.parametrize(("drop_in", "limit"), [("network-cameras", 1.7), ("gpu", 1.0)])
def test_a_drop_in_is_understood_and_opens_little(units: Path, drop_in: str, limit: float) -> None:
    service = units / "shelfwire-vision.service"
    folder = units / "shelfwire-vision.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "drop-ins" / f"{drop_in}.conf", folder)
    checked = analyze("verify", "--man=no", str(service))
    assert (checked.returncode, checked.stderr) == (0, "")
    # The offline judgement reads one file: a later line of the same file overrides as a drop-in does.
    opened = (folder / f"{drop_in}.conf").read_text()
    service.write_text(service.read_text() + opened)
    found = re.search(r"exposure level for \S+: (\d+\.\d)", analyze("security", "--offline=yes", str(service)).stdout)
    assert found is not None
    assert float(found[1]) <= limit


def directives(name: str) -> list[tuple[str, str]]:
    lines = (UNITS / name).read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]  # type: ignore[misc]


@pytest.mark.parametrize("name", ["vision", "sync", "nightly"])
def test_what_systemd_reads_otherwise_than_people_do(name: str) -> None:
    found = directives(f"shelfwire-{name}.service")
    filters = [value for key, value in found if key == "SystemCallFilter"]
    assert filters[0] == "@system-service", "the first line decides whether it is a list of what is allowed"
    assert not any(" #" in value for _, value in found), "a comment behind a value is part of the value"
    allowed = [value.split()[0] for key, value in found if key == "DeviceAllow"]
    assert all(value.startswith("char-") for value in allowed), "paths with a star match nothing"
    assert ("User", "shelfwire") in found
    # Records are dated by the boot's id and by what the kernel knows of time servers: both are asked from inside.
    assert not {"ProcSubset", "ProtectClock"} & {key for key, _ in found}
    assert "clock_adjtime" in filters[-1].split(), "@privileged took it away"


def test_vision_has_no_network_and_sync_no_device() -> None:
    vision, sync = directives("shelfwire-vision.service"), directives("shelfwire-sync.service")
    assert {("PrivateNetwork", "yes"), ("RestrictAddressFamilies", "AF_UNIX"), ("IPAddressDeny", "any")} <= set(vision)
    assert ("PrivateDevices", "yes") in sync
    for found in (vision, sync):
        assert {("Type", "notify"), ("WatchdogSignal", "SIGABRT"), ("TimeoutStopSec", "20s")} <= set(found)
        assert {("RestartPreventExitStatus", "2"), ("RuntimeDirectoryPreserve", "yes")} <= set(found)


# -- installation --------------------------------------------------------------------------------------------


def install(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "scripts" / "install", *words], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )


def tree(folder: Path) -> dict[str, tuple[int, int, float]]:
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_mode, state.st_ino, state.st_mtime)
    return found


def test_a_dry_run_says_every_step_and_changes_nothing(tmp_path: Path) -> None:
    answer = install("--dry-run", "--root", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    for what in ("packages:", "command:", "files:", "user:", "folders:", "configuration:", "units:"):
        assert re.search(rf"^{what}\s+would", answer.stdout, re.MULTILINE), what
    assert list(tmp_path.iterdir()) == []


@needs_checker
def test_an_installation_below_a_folder_can_be_repeated_and_removed(tmp_path: Path) -> None:
    words = ("--root", str(tmp_path), "--environment", str(ENVIRONMENT))
    answer = install(*words)
    assert answer.returncode == 0, answer.stderr
    for unit in UNITS.glob("shelfwire*"):
        assert (tmp_path / "usr/lib/systemd/system" / unit.name).read_text() == unit.read_text()
    assert (tmp_path / "etc/systemd/system/multi-user.target.wants/shelfwire.target").is_symlink()
    assert (tmp_path / "usr/bin/shelfwire-agent").readlink() == STAND_IN
    config = tmp_path / "etc/shelfwire/shelfwire.toml"
    assert '# url = "rtsp://' in config.read_text()
    assert "shelfwire-agent enroll" in answer.stdout

    config.write_text("# mine\n")
    before = tree(tmp_path / "usr")
    again = install(*words)
    assert again.returncode == 0, again.stderr
    assert config.read_text() == "# mine\n"
    changed = {name for name, state in tree(tmp_path / "usr").items() if state != before[name]}
    assert changed <= {"share/shelfwire/shelfwire.toml", "lib/shelfwire", "lib/shelfwire/device-setup"}
    assert "shelfwire.target is enabled; what you disabled stays disabled" in again.stdout

    gone = install("--uninstall", "--root", str(tmp_path))
    assert gone.returncode == 0, gone.stderr
    assert config.exists()
    assert not list(tmp_path.rglob("usr/**/shelfwire*"))
    assert not list((tmp_path / "etc/systemd").rglob("shelfwire*"))
    purged = install("--uninstall", "--purge", "--root", str(tmp_path))
    assert purged.returncode == 0, purged.stderr
    assert not config.parent.exists()
    assert not (tmp_path / "var/lib/shelfwire").exists()


@needs_checker
@needs_root
def test_the_group_may_read_the_state_and_others_nothing(tmp_path: Path) -> None:
    assert install("--root", str(tmp_path), "--environment", str(ENVIRONMENT)).returncode == 0
    found = re.search(r"^shelfwire:[^:]*:(\d+):", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    assert found is not None
    for path, mode in (("etc/shelfwire", 0o750), ("etc/shelfwire/shelfwire.toml", 0o640), ("var/lib/shelfwire", 0o750)):
        state = (tmp_path / path).stat()
        assert (stat.S_IMODE(state.st_mode), state.st_gid) == (mode, int(found[1])), path
    assert (tmp_path / "etc/shelfwire/shelfwire.toml").stat().st_uid == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--purge"], "--purge goes with --uninstall"), (["--rout", "/x"], "unknown option --rout")],
)
def test_options_that_make_no_sense_are_refused(words: list[str], said: str) -> None:
    answer = install(*words)
    assert answer.returncode == 2
    assert said in answer.stderr
