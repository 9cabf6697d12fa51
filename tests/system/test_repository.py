"""The repository as `serve` offers it: to anybody on this machine, and to enrolled devices by their certificate."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from conftest import Postgres
from fleet_shop import Cloud, Device

from agent import config, identity
from agent.core import floor
from agent.errors import Retryable
from agent.host.clock import SystemClock
from agent.link.repository import ModelRepository, open_repository
from cloud.repository import Keys, RepositoryFolder, publish
from cloud.repository.keys import signers_in
from models.bundle import BUILTIN, Bundle, parse_manifest
from wire.orders import ModelOrder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[tuple[Cloud, RepositoryFolder]]:
    """A cloud that was down for two days, so that its timestamp waits to be signed."""
    folder = tmp_path_factory.mktemp("repository")
    before = datetime.now(UTC) - timedelta(days=2)
    repository = RepositoryFolder(
        folder / "cloud" / "repository", folder / "cloud" / "repository-keys", now=lambda: before
    )
    Keys(repository).init(folder / "stick")
    publish(repository, BUILTIN["produce"], signers_in([folder / "stick"]))
    dsn = postgres.create()
    cloud = Cloud(folder, dsn)
    yield cloud, repository
    cloud.close()
    postgres.drop(dsn)


def opened(device: Device) -> ModelRepository:
    return open_repository(config.load(device.config), SystemClock())


def test_an_enrolled_device_trusts_and_fetches_what_was_published(
    shop: tuple[Cloud, RepositoryFolder], tmp_path: Path
) -> None:
    cloud, repository = shop
    device = Device(tmp_path, cloud)
    exit_code, said = device.enroll(cloud.code("till-models"))
    assert exit_code == 0, said
    models = opened(device)
    models.refresh()
    assert models.accepted is not None
    assert models.accepted.signed_at is not None
    assert datetime.now(UTC) - models.accepted.signed_at < timedelta(minutes=5)  # serve has signed it when it started
    one = repository.published()[0]
    raw = models.manifest(ModelOrder(name=one.name, version=one.version, release=one.release, digest=one.digest))
    bundle = tmp_path / "bundle"
    for file in parse_manifest(raw).files:
        (bundle / file.path).parent.mkdir(parents=True, exist_ok=True)
        models.fetch(file.sha256, file.size_bytes, bundle / file.path)
    (bundle / "bundle.json").write_bytes(raw)
    assert Bundle.load(bundle).ref.digest == one.digest

    cloud.fleet("device", "revoke", "till-models")
    with pytest.raises(Retryable) as caught:
        opened(device).refresh()
    assert caught.value.code in ("update-net", "update-missing")


def test_a_renewal_brings_no_other_root_of_trust(shop: tuple[Cloud, RepositoryFolder], tmp_path: Path) -> None:
    cloud, _ = shop
    device = Device(tmp_path, cloud)
    assert device.enroll(cloud.code("till-renews"))[0] == 0
    answer = device.api("POST", "/v1/device/certificate", json={"v": 1, "csr": identity.make_request().csr})
    assert answer.status_code == 200
    assert answer.json()["root"] == ""


def test_what_operators_see_of_it(shop: tuple[Cloud, RepositoryFolder]) -> None:
    cloud, repository = shop
    pages = cloud.pages
    said = requests.get(f"{pages}api/v1/repository", timeout=20).json()
    assert [bundle["name"] for bundle in said["bundles"]] == ["produce"]
    assert {role["role"]: role["alarm"] for role in said["roles"]} == dict.fromkeys(
        ("root", "targets", "snapshot", "timestamp"), False
    )
    metrics = requests.get(f"{pages}metrics", timeout=20).text
    assert 'shelfwire_repository_alarm{role="timestamp"} 0.0' in metrics
    whole = requests.get(f"{pages}repository/metadata/timestamp.json", timeout=20)
    assert whole.content == (repository.folder / "metadata" / "timestamp.json").read_bytes()
    assert datetime.now(UTC) >= floor.BUILT, "the floor of the clock lies in the future: set agent.core.floor.BUILT"
