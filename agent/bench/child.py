"""The process that measures setups: `python -m agent.bench.child`, with its settings as JSON on standard input.

It says in lines of JSON on standard output which setup has its turn, so that one which ends this process is known, and
at last all figures. What it may do to a device is bounded: it stays behind everything else when it is told to.
"""

import json
import sys
from pathlib import Path
from typing import Any

from agent.bench.measure import Bench
from agent.bench.surroundings import possible
from agent.core.setups import Figures, candidates, way
from agent.host.child import Say, own_output, stay_behind
from agent.host.processor import Others, share_cores
from models import Bundle, BundleError
from models.labelled import Labelled
from models.setup import Setup


def main(settings: dict[str, Any]) -> None:
    """Be the child."""
    say = own_output()
    stay_behind(int(settings["niceness"]), int(settings["memory_bytes"]))
    try:
        others = Others()
        figures = [each.to_json() for each in _measure(settings, say)]
        say({"figures": figures, "others": others.part()})
    except BundleError as error:
        say({"error": error.code, "message": str(error), "hint": error.hint})
    except MemoryError:
        say({"error": "no-memory", "message": "the model takes more memory than it may", "hint": ""})


def _measure(settings: dict[str, Any], say: Say) -> list[Figures]:
    workers = int(settings["workers"])
    share_cores(workers)
    bundle = Bundle.load(settings["bundle"])
    skipped = {way(Setup.from_json(said)): str(why) for said, why in settings["skipped"]}
    setups = candidates(possible(bundle.manifest, workers), Setup.from_json(settings["asked"]))
    labelled = [Labelled(Path(path), label) for path, label in settings["labelled"]]

    def tell(part: float, setup: Setup) -> None:
        say({"part": round(part, 4), "setup": setup.to_json()})

    bench = Bench(bundle, workers, float(settings["seconds"]), Path(settings["cache"]), labelled, tell)
    measured = {each.setup: each for each in bench.measure([s for s in setups if way(s) not in skipped])}
    return [measured.get(setup) or Figures(setup, trouble=skipped[way(setup)]) for setup in setups]


if __name__ == "__main__":
    main(json.load(sys.stdin))
