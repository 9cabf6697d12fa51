"""The model's self-test, in the child process: its golden inputs, by the runtime that is really used."""

import time
from collections.abc import Callable
from typing import Any

from models import BundleError, Classifier, resolve


def test_model(bundle: str, runtime: str, say: Callable[[dict[str, Any]], None]) -> None:
    """Open the bundle, classify its golden inputs, and say how it went and how long the model itself takes."""
    began_s = time.monotonic()
    try:
        with Classifier.open(resolve(bundle), runtime) as classifier:
            classifier.check_golden()
            ref = classifier.model
            took_s = time.monotonic() - began_s
            say({"code": "", "model": f"{ref.name} {ref.version}", "runtime": classifier.runtime, "took_s": took_s})
    except BundleError as error:
        say({"code": error.code, "message": str(error), "hint": error.hint})
