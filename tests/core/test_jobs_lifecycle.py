"""The life of a job: every (state, event), and that the queue's own schema is the one our migration brought."""

import itertools
from pathlib import Path

import pytest
from procrastinate.schema import SchemaManager

from cloud.jobs import lifecycle
from cloud.jobs.lifecycle import EVENTS, OPEN, OVER, STATES, TABLE, Event, State, after, before, target

ALLOWED = {
    "queued": {"start"},
    "running": {"start", "finish", "refuse", "postpone", "bury"},
    "done": set(),
    "failed": set(),
    "dead": set(),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    into = after(state, event)
    assert (into is not None) == (event in ALLOWED[state])
    if into is not None:
        assert into == target(event)
        assert state in before(event)


def test_open_and_over_are_all_states_and_what_is_over_stays() -> None:
    assert set(OPEN) | set(OVER) == set(STATES)
    assert not set(OPEN) & set(OVER)
    assert all(state not in OVER for state, _ in TABLE)


def test_every_open_state_leads_to_an_end() -> None:
    reached: set[State] = set(OVER)
    while more := {state for (state, _), into in TABLE.items() if into in reached} - reached:
        reached |= more
    assert reached == set(STATES)


def test_the_schema_knows_the_same_states() -> None:
    sql = Path(lifecycle.__file__).parents[1] / "store" / "migrations" / "versions" / "v0002_jobs.sql"
    listed = ", ".join(f"'{state}'" for state in STATES)
    assert f"CHECK (state IN ({listed}))" in sql.read_text("utf-8")


def test_the_queue_has_no_migration_that_ours_lacks() -> None:
    """A newer procrastinate with a newer schema needs a migration of ours beside this number."""
    newest = max(path.name for path in Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    assert newest == "03.04.00_50_post_add_retry_failed_job_procedure.sql"
