"""Every command has help, `--json` and a line in the operators' page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import COMMANDS as AGENT
from agent.cli import main
from agent.cli import make_parser as make_agent_parser
from cloud.cli import COMMANDS as CLOUD
from cloud.cli import make_parser as make_cloud_parser

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "operations.md").read_text() + (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(AGENT))
def test_a_device_command_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_agent_parser().parse_args([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert len(shown.splitlines()) > 5
    assert f"shelfwire-agent {name}" in PAGES


@pytest.mark.parametrize("name", sorted(CLOUD))
def test_a_cloud_command_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_cloud_parser().parse_args([name, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out
    assert f"shelfwire-cloud {name}" in PAGES


def test_an_error_is_json_for_programs_and_a_sentence_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json", "--config", str(tmp_path / "none.toml")]) == 2
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == "config-missing"
    assert f"error: {error['message']} [config-missing]\n  cure: {error['hint']}" in captured.err


def test_the_schema_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Config"


HEAVY = ("sqlite_utils", "pandas", "numpy", "cv2", "openvino", "arro3.core")


@pytest.mark.parametrize("module", ["agent.app.sync", "agent.cli.nightly"])
def test_daemons_on_little_memory_load_nothing_heavy(module: str) -> None:
    """sqlite_utils loads pandas where there is one, which alone takes more than sync does."""
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_the_journal_is_told_how_serious_each_line_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert main(["sync", "--config", str(tmp_path / "none.toml")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 1
    assert all(line.startswith("<3>") for line in said)
