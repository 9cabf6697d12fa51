"""What every page and call of one server shares."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from cloud.store.read import Reader
from cloud.web.hub import Hub


@dataclass(frozen=True, slots=True)
class Parts:
    """The store's reader, the hub, the clock, the metrics and the version of the pages."""

    reader: Reader
    hub: Hub
    now: Callable[[], datetime]
    metrics: CollectorRegistry
    version: str


def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


Shared = Annotated[Parts, Depends(_parts)]
