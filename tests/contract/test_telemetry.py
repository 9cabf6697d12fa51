"""Nothing that runs a model tells anybody about it: the libraries' usage events are off in this process and its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_bundles import bundle

ROOT = Path(__file__).resolve().parents[2]
SENDER = """
import os, pathlib
pathlib.Path(os.environ["HOME"], "found").touch()
class Telemetry: pass
"""
"""Stands for the package by which OpenVINO and NNCF send: where it is found, a file tells it."""

OPENS = """
import sys
from models import Classifier
for runtime in ("openvino", "onnxruntime"):
    with Classifier.open(sys.argv[1], runtime, strict=True) as opened:
        opened.worker()
import openvino, os
openvino.convert_model(sys.argv[1] + "/model.onnx")
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"  # so that a process started from here has it too
"""
CI = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILD_ID", "JENKINS_URL", "TEAMCITY_VERSION")
"""Where one of these is set the libraries stay silent by themselves."""


@pytest.mark.parametrize("said", [{}, {"ORT_DISABLE_TELEMETRY": "0"}], ids=["unset", "wanted"])
def test_the_runtimes_leave_no_trace_and_send_nothing(tmp_path: Path, said: dict[str, str]) -> None:
    made, home = bundle(tmp_path / "toy").folder, tmp_path / "home"
    (home / "here").mkdir(parents=True)
    (tmp_path / "lib" / "openvino_telemetry").mkdir(parents=True)
    (tmp_path / "lib" / "openvino_telemetry" / "__init__.py").write_text(SENDER)
    path = os.pathsep.join([str(tmp_path / "lib"), *(part for part in sys.path if part)])
    kept = {key: value for key, value in os.environ.items() if key not in (*CI, "ORT_DISABLE_TELEMETRY")}
    whole = kept | said | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(made)],
        cwd=home / "here",
        env=whole,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert [file for file in home.rglob("*") if file.is_file()] == []


def test_no_way_leads_to_a_runtime_past_the_package_that_silences_it() -> None:
    """Whoever imports a runtime has imported `models` before, or lies in it, or in `training`, or in the tests."""
    says = re.compile(r"^\s*(?:import|from) (?:onnxruntime|openvino|nncf)\b", re.MULTILINE)
    code = [file for part in ("agent", "cloud", "wire") for file in (ROOT / part).rglob("*.py")]
    scripts = [file for file in (ROOT / "scripts").rglob("*") if file.is_file() and file.suffix in ("", ".py")]
    assert len(code) > 100
    for file in (*code, *scripts):
        text = file.read_text(encoding="utf-8", errors="replace")
        found = says.search(text)
        first = re.search(r"^\s*(?:import|from) models\b", text, re.MULTILINE)
        by_package = file.parent.name == "training"
        assert not found or by_package or (first and first.start() < found.start()), f"{file}: import models first"
    for first in ("scripts/training/__init__.py", "tests/conftest.py"):
        assert "import models" in (ROOT / first).read_text(encoding="utf-8")
