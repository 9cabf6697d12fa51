"""A cloud's store and place for objects, for the tests that need both.

Their packages are imported when a test asks for them: the device's tests run where only the device is installed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cloud.objects import Objects
    from cloud.store import Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Store]":
    """A PostgreSQL of a module's own."""
    from cloud.store import Store

    opened = Store.open(None, tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()


@pytest.fixture
def store(server: "Store") -> "Store":
    """The same, without shards, answers and what came of them."""
    with server.pool.connection() as connection:
        connection.execute(b"TRUNCATE shard, shard_score, verdict, outbound, tally, camera_answer")
    return server


@pytest.fixture
def objects(tmp_path: Path) -> "Objects":
    """A folder for the night's files."""
    from cloud.objects import open_objects

    return open_objects(tmp_path / "objects")
