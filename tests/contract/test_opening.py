"""An accelerator whose driver ends the process costs one start, and is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.store.opening import carefully
from models.setup import Setup

GPU = Setup("openvino", "gpu")
DIES = """
import os, sys
from pathlib import Path
from agent.store.opening import carefully
from models.setup import Setup
with carefully(Path(sys.argv[1]), Setup("openvino", "gpu")):
    os._exit(139)
"""


def test_the_start_after_a_crash_takes_the_cpu_and_the_one_after_that_tries_again(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False, timeout=60).returncode == 139
    with carefully(tmp_path, GPU) as (setup, notes):
        assert setup.device == "cpu"
        assert [note.code for note in notes] == ["device-crashed"]
        assert "gpu" in notes[0].message
    with carefully(tmp_path, GPU) as (setup, notes):
        assert (setup, notes) == (GPU, ())


def test_an_accelerator_that_opens_or_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    with carefully(tmp_path, GPU):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no"), carefully(tmp_path, GPU):
        raise ValueError("no")
    assert not list(tmp_path.iterdir())


def test_the_cpu_is_opened_without_ado(tmp_path: Path) -> None:
    for setup in (Setup(), Setup(device="cpu")):
        with carefully(tmp_path / "none", setup) as (given, notes):
            assert (given, notes) == (setup, ())
            assert not (tmp_path / "none").exists()
