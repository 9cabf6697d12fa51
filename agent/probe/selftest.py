"""The model's self-test, in the child process: its golden inputs, by the runtime that is really used."""

import json
import time
from collections.abc import Callable
from typing import Any

from models import BundleError, Classifier, resolve
from models.setup import Setup


def test_model(bundle: str, setup: str, say: Callable[[dict[str, Any]], None]) -> None:
    """Open the bundle as `setup` (JSON) says, classify its golden inputs, and say how it went and how long it took."""
    began_s = time.monotonic()
    try:
        with Classifier.open(resolve(bundle), Setup.from_json(json.loads(setup))) as classifier:
            classifier.check_golden()
            ref = classifier.model
            took_s = time.monotonic() - began_s
            said = {"code": "", "model": f"{ref.name} {ref.version}", "runtime": classifier.runtime, "took_s": took_s}
            say({**said, "setup": classifier.setup.brief, "notes": [note.to_json() for note in classifier.notes]})
    except BundleError as error:
        say({"code": error.code, "message": str(error), "hint": error.hint})
