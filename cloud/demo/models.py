"""The demo's repository of models: signed, with the bundle that its devices run and a next one to be rolled out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from models.bundle import BUILTIN, MANIFEST

NAME: Final = "produce"
COMMAND_S: Final = 120.0

Run = Callable[..., dict[str, Any]]


def prepare(folder: Path, run_json: Run) -> Path:
    """Make the repository in the cloud's folder, unless it is there; gives the file with its root of trust.

    `run_json` runs a command of the cloud with --json.
    """
    data, keys = folder / "cloud", folder / "keys"
    root = keys / "root.json"
    if not root.exists():
        made = run_json("cloud", "fleet", "keys", "init", str(keys), *_with(data), timeout_s=COMMAND_S)
        root = Path(made["root_file"])
        for bundle in (BUILTIN[NAME], _next(folder)):
            words = ("fleet", "publish", str(bundle), "--keys", str(keys), *_with(data))
            run_json("cloud", *words, timeout_s=COMMAND_S)
    return root


def _with(data: Path) -> tuple[str, ...]:
    return "--data", str(data), "--json"


def _next(folder: Path) -> Path:
    """The shipped bundle again, as a higher release: the same answers, so that it gets through."""
    made = folder / f"{NAME}-next"
    files = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(BUILTIN[NAME], made, dirs_exist_ok=True, ignore=files)
    manifest = json.loads((made / MANIFEST).read_text("utf-8"))
    manifest |= {"release": manifest["release"] + 1, "version": f"{manifest['version']}-next"}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return made
