"""`shelfwire-cloud ingest` that ends like a kill -9 at a chosen step: FAIL_AT=committed:3 is the third commit."""

import os
import sys
from collections import Counter

import cloud.cli.ingest
from cloud.cli import main
from cloud.ingest import Ingest

step, _, count = os.environ.get("FAIL_AT", "").partition(":")
happened: Counter[str] = Counter()


def perhaps_die(name: str) -> None:
    happened[name] += 1
    if name == step and happened[name] == int(count):
        os._exit(137)


class FailingIngest(Ingest):
    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, on_step=perhaps_die, **options)  # type: ignore[arg-type, misc]


cloud.cli.ingest.Ingest = FailingIngest  # type: ignore[misc]
sys.exit(main(sys.argv[1:]))
