"""A real PostgreSQL for the whole run with a database for each test, and a real mosquitto for each module."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from broker import Device, make_broker
from prometheus_client import CollectorRegistry
from web_browser import browser, served, shop, visit

from cloud.broker import CLOUD, Broker
from cloud.ingest import Ingest
from cloud.store import Store

__all__ = ["browser", "served", "shop", "visit"]


class Postgres:
    """One embedded server whose own database is the template of all others."""

    def __init__(self, folder: Path) -> None:
        self._owner = Store.open(None, folder)
        self._owner.pool.close()
        self._admin = self._owner.dsn.replace("/shelfwire?", "/postgres?")
        self._numbers = itertools.count(1)

    def create(self) -> str:
        """Make a database at the newest schema, and give its DSN."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE shelfwire")
        return self._owner.dsn.replace("/shelfwire?", f"/{name}?")

    def drop(self, dsn: str) -> None:
        """Delete a database: thousands of small files that a stop would have to bring to the disk first."""
        name = dsn.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._owner.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.close()


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """A fresh database at the newest schema."""
    made = postgres.create()
    yield made
    postgres.drop(made)


@pytest.fixture
def store(dsn: str, tmp_path: Path) -> Iterator[Store]:
    """An open store on a fresh database."""
    opened = Store.open(dsn, tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that knows the devices shop-1 to shop-3; tests that kill it start it again."""
    started = make_broker(tmp_path_factory.mktemp("broker"))
    yield started
    started.stop()


@pytest.fixture
def device(broker: Broker) -> Iterator[Callable[[str], Device]]:
    """Connects devices by name, and disconnects them after the test."""
    connected: list[Device] = []

    def connect(name: str = "shop-1") -> Device:
        connected.append(Device(broker, name))
        return connected[-1]

    yield connect
    for one in connected:
        one.close()


@pytest.fixture
def ingest(broker: Broker, store: Store) -> Iterator[Callable[..., Ingest]]:
    """Starts ingesters on the test's broker and store, and stops them after the test; none may have crashed."""
    started: list[Ingest] = []
    crashes: list[BaseException] = []
    numbers = itertools.count(1)

    def start(
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_step: Callable[[str], None] = lambda _: None,
        into: Store | None = None,
    ) -> Ingest:
        one = Ingest(
            into or store,
            broker.options(CLOUD, f"ingest-{next(numbers)}"),
            now=now,
            registry=CollectorRegistry(),
            on_crash=crashes.append,
            on_step=on_step,
        )
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()
    assert not crashes
