"""What is installed is what the project says: locks, wheel, commands and scripts."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("agent", "cloud", "models", "wire")
LOCKS = {"device": (), "cloud": ("cloud",), "dev": ("cloud", "dev")}
RENEW = "renew the locks: scripts/lock"

DEVICE_PACKAGES_AT_MOST = 50
"""The plain install is the device and stays small; it had 37 when this was written."""


def lock_text(name: str) -> str:
    return (ROOT / "locks" / f"{name}.txt").read_text("utf-8")


def pins(name: str) -> list[tuple[Requirement, int]]:
    """Read a lock: every requirement in it, with the number of its hashes."""
    entries = re.sub(r"\\\n\s*", "", lock_text(name)).splitlines()
    found = []
    for entry in entries:
        if not entry.startswith("#"):
            requirement, *hashes = entry.split("--hash=sha256:")
            found.append((Requirement(requirement.strip()), len(hashes)))
    return found


def locked_here(name: str) -> dict[str, Version]:
    """Versions that a lock gives to the Python and the system that run this test."""
    here = [pin for pin, _ in pins(name) if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in here}


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("name", [*LOCKS, "build"])
def test_a_lock_has_hashes_and_no_addresses(name: str) -> None:
    text = lock_text(name)
    assert not re.search(r"://|file:| @ |/opt|/root|/home|/tmp", text)
    assert not re.search(r"^\s*-(?!-hash=sha256:[0-9a-f]{64})", text, re.MULTILINE), "an option got into the lock"
    assert "scripts/lock" in text[:200], "the head says how to renew it"
    for pin, hashes in pins(name):
        assert hashes >= 1, pin
        assert [clause.operator for clause in pin.specifier] == ["=="], pin


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(name: str) -> None:
    locked = locked_here(name)
    for requirement in wanted(LOCKS[name]):
        if requirement.marker is None or requirement.marker.evaluate():
            version = locked.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is missing; {RENEW}"
            assert requirement.specifier.contains(version, prereleases=True), f"{version} for {requirement}; {RENEW}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_complete(name: str) -> None:
    """Locks are installed without looking at dependencies, so a missing one would be noticed by an import only."""
    locked = locked_here(name)
    waiting = [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted(LOCKS[name])]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        package, extras = entry = waiting.pop()
        if entry in seen:
            continue
        seen.add(entry)
        assert package in locked, f"{package} is missing; {RENEW}"
        for text in metadata.requires(package) or []:
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))


def test_all_locks_have_the_same_versions() -> None:
    versions = {name: locked_here(name) for name in (*LOCKS, "build")}
    assert versions["device"].items() <= versions["cloud"].items() <= versions["dev"].items()
    for package, version in versions["build"].items():
        assert versions["dev"].get(package, version) == version


def test_the_device_stays_small_and_no_lock_has_torch() -> None:
    assert len(locked_here("device")) <= DEVICE_PACKAGES_AT_MOST
    assert not any(pin.name == "torch" or pin.name.startswith("nvidia") for name in LOCKS for pin, _ in pins(name))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_packages(wheel_names: set[str]) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - wheel_names == set()


def test_the_wheel_holds_nothing_else_at_its_top_but_its_licence(wheel_names: set[str]) -> None:
    tops = {name.split("/", maxsplit=1)[0] for name in wheel_names}
    (described,) = tops - set(PACKAGES)
    assert described.endswith(".dist-info")
    assert f"{described}/licenses/LICENSE" in wheel_names


@pytest.mark.parametrize("name", sorted(PROJECT["scripts"]))
def test_a_command_is_installed_and_starts(name: str) -> None:
    command = Path(sys.executable).parent / name
    assert command.exists(), "set up again: scripts/setup --cloud --dev"
    said = subprocess.run([command, "--help"], check=True, capture_output=True, text=True, timeout=60).stdout
    assert "usage" in said


SCRIPTS = ["scripts/setup", "scripts/lock", "scripts/test", "scripts/install", "scripts/build-deb", ".ci/run"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / name], check=True, timeout=60)


def test_setup_explains_itself_and_refuses_what_it_does_not_know() -> None:
    helped = subprocess.run([ROOT / "scripts/setup", "--help"], check=True, capture_output=True, text=True, timeout=60)
    for option in ("--cloud", "--dev", "--train", "--system"):
        assert option in helped.stdout
    refused = subprocess.run(
        [ROOT / "scripts/setup", "--clowd"], capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode == 2
    assert "--clowd" in refused.stderr
