"""The doctor's rules: codes that are documented, checks that hold nobody up, marks and codes to read aloud."""

import re
import threading
import time
from pathlib import Path

import pytest

from agent import checks
from agent.checks import CHECKS, Check, Context, Finding, exit_code, spoken
from agent.checks.finding import fine, skipped, wrong
from agent.checks.runner import run_checks
from agent.checks.units import judge, parse
from agent.cli import doctor_text, main
from agent.core.codes import AREAS, CODES, page

ROOT = Path(__file__).parents[2]
NOWHERE = Context(Path("nowhere.toml"), None)


def test_every_code_is_documented() -> None:
    assert (ROOT / "docs" / "codes.md").read_text() == page()


def test_every_code_that_is_given_is_in_the_table() -> None:
    head = "|".join(AREAS.values())
    given = set()
    for folder in ("checks", "link", "cli"):
        for file in (ROOT / "agent" / folder).glob("*.py"):
            given |= set(re.findall(rf'"((?:{head})-[1-9]\d*)"', file.read_text()))
    assert given <= set(CODES)
    assert len(given) > 70


def test_codes_are_short_enough_to_be_read_out_and_say_what_to_do() -> None:
    for code in CODES.values():
        assert re.fullmatch(r"[A-Z]{3,4}-\d{1,2}", code.code)
        assert code.means
        assert code.cure


def test_every_area_has_a_check() -> None:
    assert {check.area for check in CHECKS} == set(AREAS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def slow(_: Context) -> list[Finding]:
    threading.Event().wait(60)
    return []


def failing(_: Context) -> list[Finding]:
    raise RuntimeError("a bug")


def well(_: Context) -> list[Finding]:
    return [fine("host", "well")]


def test_a_check_that_hangs_or_fails_holds_up_nobody() -> None:
    made = [
        Check("slow", "host", "", slow, late="HOST-10"),
        Check("failing", "service", "", failing),
        Check("well", "host", "", well),
        Check("later", "host", "", well, turn=1),
    ]
    began_s = time.monotonic()
    found = run_checks(made, Context(Path(), None, patience_s=0.3), 10.0)
    assert time.monotonic() - began_s < 3
    assert [finding.code for finding in found] == ["HOST-10", "HOST-0", "HOST-0", "SVC-8"]
    assert "RuntimeError: a bug" in found[-1].detail


def test_the_whole_has_a_deadline_too() -> None:
    made = [Check(f"slow-{n}", "host", "", slow, turn=n) for n in range(4)]
    began_s = time.monotonic()
    found = run_checks(made, Context(Path(), None, patience_s=0.3), 0.5)
    assert time.monotonic() - began_s < 3
    assert {finding.code for finding in found} == {"SVC-10"}


OK, SKIPPED = fine("host", "a"), skipped("host", "a", "b")
WARNING, FAILURE = wrong("network", "NET-17"), wrong("camera", "CAM-1")
LATE = wrong("host", "SVC-10")


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([OK, SKIPPED], 0, "OK"),
        ([OK, WARNING], 1, "NET-17"),
        ([WARNING, FAILURE, WARNING, FAILURE], 2, "CAM-1 NET-17"),
        ([WARNING, LATE], 3, "NET-17 SVC-10"),
        ([FAILURE, LATE], 2, "CAM-1 SVC-10"),
    ],
)
def test_exit_code_and_code_to_read_aloud(found: list[Finding], code: int, said: str) -> None:
    assert exit_code(found) == code
    assert spoken(found) == said
    assert doctor_text.write(found, "till-3", 1.0, colour=False).splitlines()[-1] == f"Code: {said}"


def test_words_stand_beside_the_colours() -> None:
    plain = doctor_text.write([OK, WARNING, FAILURE, SKIPPED], "", 1.0, colour=False)
    coloured = doctor_text.write([OK, WARNING, FAILURE, SKIPPED], "", 1.0, colour=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    for word in ("ok", "look", "FAIL", "skip"):
        assert word in plain
    assert max(len(line) for line in plain.splitlines()) <= doctor_text.WIDTH


def test_an_unknown_area_is_no_failure_of_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "kamera"]) == 3
    assert "take some of: config, camera" in capsys.readouterr().err


def test_the_list_of_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--list", "camera"]) == 0
    assert capsys.readouterr().out.startswith("camera")


UNIT = {"Id": "shelfwire-vision.service", "LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled",
        "NRestarts": "0", "Result": "success"}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"ActiveState": "failed", "Result": "exit-code"}, ["SVC-6"]),
        ({"NRestarts": "7"}, ["SVC-4"]),
        ({"UnitFileState": "disabled"}, ["SVC-5"]),
        ({"LoadState": "not-found"}, ["SVC-5"]),
    ],
)
def test_what_systemd_says_of_a_unit(change: dict[str, str], codes: list[str]) -> None:
    said = "\n".join(f"{key}={value}" for key, value in (UNIT | change).items())
    units = parse(f"{said}\n\n{said}\n")
    assert len(units) == 2
    assert [finding.code for finding in judge(units[0])] == codes


def test_without_a_configuration_the_rest_is_looked_at(tmp_path: Path) -> None:
    context = Context.load(tmp_path / "none.toml", quick=True)
    found = checks.examine(context)
    assert found[0].code == "CFG-1"
    assert {finding.area for finding in found} >= {"config", "host", "service", "time"}


def test_the_technicians_page_is_one_page_and_names_only_what_there_is() -> None:
    text = (ROOT / "docs" / "technician.md").read_text()
    assert len(text.splitlines()) <= 70
    assert set(re.findall(r"\b[A-Z]{3,4}-\d+\b", text)) <= set(CODES)
    assert {code.split("-")[0] for code in re.findall(r"\b[A-Z]{3,4}-\d+\b", text)} == set(AREAS.values())
