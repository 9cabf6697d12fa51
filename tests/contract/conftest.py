"""A cloud's store and place for objects, for the tests that need both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.objects import Objects, open_objects
from cloud.store import Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A PostgreSQL of a module's own."""
    opened = Store.open(None, tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()


@pytest.fixture
def store(server: Store) -> Store:
    """The same, without shards, answers and what came of them."""
    with server.pool.connection() as connection:
        connection.execute(b"TRUNCATE shard, shard_score, verdict, outbound, tally, camera_answer")
    return server


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """A folder for the night's files."""
    return open_objects(tmp_path / "objects")
