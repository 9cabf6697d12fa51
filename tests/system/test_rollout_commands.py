"""The operator's commands: plan, rollout, config, label, why, audit. A real database, a real signed repository."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Postgres

from cloud.cli import main
from cloud.repository import Keys, RepositoryFolder
from cloud.repository.keys import signers_in
from cloud.repository.publish import publish
from cloud.rollout.rows import Rollouts
from cloud.store import Store

PRODUCE = Path(__file__).parents[2] / "models" / "produce"
SHIPPED = str(json.loads((PRODUCE / "bundle.json").read_bytes())["release"])

Fleet = Callable[..., dict]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud's folder, with the shipped bundle published as it is and as release 7."""
    folder = tmp_path_factory.mktemp("cloud")
    models = RepositoryFolder.of_cloud(folder)
    Keys(models).init(folder / "keys")
    signers = signers_in([folder / "keys"])
    publish(models, PRODUCE, signers)
    again = folder / "again"
    shutil.copytree(PRODUCE, again, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    manifest = json.loads((again / "bundle.json").read_text())
    (again / "bundle.json").write_text(json.dumps(manifest | {"release": 7}))
    publish(models, again, signers)
    return folder


@pytest.fixture
def fleet(store: Store, dsn: str, data: Path, capsys: pytest.CaptureFixture[str]) -> Fleet:
    """Run a command with --json and give what it says; `code` is the exit code that it must have."""
    with store.pool.connection() as connection:
        for n in range(6):
            connection.execute(
                "INSERT INTO fleet_device (device, store) VALUES (%s, %s)", (f"till-{n}", f"store-{n // 2}")
            )

    def run(*words: str, code: int = 0) -> dict:
        capsys.readouterr()
        assert main(["fleet", *words, "--json", "--dsn", dsn, "--data", str(data)]) == code
        said = capsys.readouterr()
        document = json.loads(said.out or said.err)
        return document.get("error", document)

    return run


def test_what_plan_prints_is_what_start_does(fleet: Fleet) -> None:
    rules = ("--batch", "1", "--batch", "50%", "--batch", "all")
    planned = fleet("plan", "produce", *rules)
    assert planned["rollout"] == "produce-7"
    assert [len(batch["devices"]) for batch in planned["batches"]] == [1, 2, 3]
    assert fleet("rollout", "list")["rollouts"] == [], "nothing has moved"
    fleet("rollout", "start", "produce", *rules)
    shown = fleet("rollout", "show", "produce-7")
    assert [part["device"] for part in shown["parts"]] == [
        one["device"] for batch in planned["batches"] for one in batch["devices"]
    ]
    assert shown["target"]["release"] == 7


def test_labels_pick_devices(fleet: Fleet) -> None:
    assert fleet("label", "till-3", "canary", "small")["labels"] == ["canary", "small"]
    assert fleet("label", "till-3", "small", "--remove")["labels"] == ["canary"]
    planned = fleet("plan", "produce", "--batch", "label=canary:all", "--batch", "all")
    assert [one["device"] for one in planned["batches"][0]["devices"]] == ["till-3"]


def test_pause_resume_abort_revert_why_and_audit(fleet: Fleet, store: Store) -> None:
    fleet("rollout", "start", "produce", "--release", "7", "--id", "r1")
    assert fleet("rollout", "pause", "r1", "--reason", "inventory")["state"] == "paused"
    assert "the rollout is paused (inventory)" in fleet("why", "till-0")["why"]
    assert fleet("rollout", "resume", "r1", "--success", "80")["state"] == "running"
    assert Rollouts(store.pool).one("r1").chosen.success_percent == 80
    assert fleet("rollout", "revert", "r1", code=2)["code"] == "rollout-state"
    with store.pool.connection() as connection:
        connection.execute("UPDATE rollout_part SET state = 'done' WHERE device = 'till-0'")
    assert fleet("rollout", "abort", "r1")["state"] == "aborted"
    assert fleet("rollout", "watch", "r1", code=1)["state"] == "aborted"
    refused = fleet("rollout", "revert", "r1", code=2)
    assert refused["code"] == "revert-bundle"
    assert '"release" to 8' in refused["hint"]
    fleet("rollout", "start", "produce", "--release", SHIPPED, "--id", "r0")
    with store.pool.connection() as connection:
        connection.execute("UPDATE rollout_part SET state = 'done' WHERE device = 'till-0'")
    fleet("rollout", "abort", "r0")
    assert fleet("rollout", "revert", "r0")["devices"] == 1
    assert "was not its turn" in fleet("why", "till-5")["why"]
    whats = [line["what"] for line in reversed(fleet("audit")["lines"])]
    assert whats == ["start", "paused", "rules", "running", "aborted", "start", "aborted", "start"]
    verified = fleet("audit", "--verify")
    assert verified["lines"] == len(whats)
    assert fleet("audit", "--known", "00" * 32, code=1)["why"]


def test_settings_go_the_same_way(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text("[privacy]\npictures = 'none'\n")
    (tmp_path / "bad.toml").write_text("[privacy\n")
    started = fleet("config", "set", str(tmp_path / "good.toml"), "--batch", "store=store-1:all", "--id", "quiet")
    assert started["devices"] == 2
    assert fleet("config", "set", str(tmp_path / "bad.toml"), code=2)["code"] == "config-toml"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "fruit"), "bundle-unpublished"),
        (("plan", "produce", "--batch", "some"), "bad-batch"),
        (("plan", "produce", "--max-silent", "many"), "bad-limit"),
        (("plan", "produce", "--soak", "soon"), "bad-time"),
        (("plan", "produce", "--success", "101"), "bad-rule"),
        (("plan", "produce", "--batch", "label=none:all"), "nobody"),
        (("rollout", "start", "produce", "--id", "a/b"), "bad-id"),
        (("rollout", "pause", "r9"), "rollout-unknown"),
        (("why", "till-9"), "device-unknown"),
        (("label", "till-1", "a b"), "bad-label"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(fleet: Fleet, words: tuple[str, ...], code: str) -> None:
    said = fleet(*words, code=2)
    assert said["code"] == code
    assert said["hint"]


def test_every_page_of_words_can_be_read_by_a_person(
    store: Store, dsn: str, data: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*words: str) -> str:
        capsys.readouterr()
        assert main(["fleet", *words, "--dsn", dsn, "--data", str(data)]) == 0
        return capsys.readouterr().out

    assert "nothing has moved yet" in say("plan", "produce")
    assert "Follow it with" in say("rollout", "start", "produce")
    assert "produce-7" in say("rollout", "list")
    assert "till-5" in say("rollout", "show", "produce-7")
    assert "till-0 runs no model that is known: in produce-7" in say("why", "till-0")
    assert "hash" in say("audit", "--verify")


def test_a_name_is_needed(postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fleet", "rollout", "start"])
    assert "NAME" in capsys.readouterr().err
