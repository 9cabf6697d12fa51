"""`shelfwire-cloud serve` whose gateway ends the process like a kill -9 at a step: FAIL_AT=committed."""

import os
import sys

import cloud.web.app
from cloud.cli import main
from cloud.gateway import Gateway


def perhaps_die(name: str) -> None:
    if name == os.environ.get("FAIL_AT"):
        os._exit(137)


class FailingGateway(Gateway):
    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, on_step=perhaps_die, **options)  # type: ignore[arg-type]


cloud.web.app.Gateway = FailingGateway  # type: ignore[misc]
sys.exit(main(sys.argv[1:]))
