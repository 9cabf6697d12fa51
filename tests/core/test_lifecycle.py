"""The life of an update: every (kind, state, event), that no bad model can be kept, and that the docs draw it."""

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest

from agent.core import lifecycle
from agent.core.lifecycle import (
    CODES,
    EVENTS,
    NEW_ANSWERS,
    ONLY,
    OVER,
    POSTS,
    STATES,
    TABLE,
    Event,
    State,
    What,
    after,
    ending,
)
from wire.orders import UpdateState

DOCS = Path(__file__).parents[2] / "docs" / "updates.md"
WAYS_OUT = {"reject", "fail"}
ALLOWED: dict[State, dict[Event, State]] = {
    "idle": {"order": "offered"},
    "offered": {"confirm": "committed", "defer": "deferred", "fetch": "downloading", "verify": "verified"},
    "deferred": {"confirm": "committed", "defer": "deferred", "fetch": "downloading", "verify": "verified"},
    "downloading": {"defer": "deferred", "verify": "verified"},
    "verified": {"compile": "compiled", "activate": "trial"},
    "compiled": {"match": "golden", "restart": "verified"},
    "golden": {"watch": "shadow", "restart": "verified"},
    "shadow": {"activate": "trial", "restart": "verified"},
    "trial": {"commit": "committed", "roll-back": "rolled-back"},
    "committed": {"order": "offered", "roll-back": "rolled-back"},
    "rejected": {"order": "offered"},
    "failed": {"order": "offered"},
    "rolled-back": {"order": "offered"},
}


@pytest.mark.parametrize(("what", "state", "event"), list(itertools.product(get_args(What), STATES, EVENTS)))
def test_every_event_in_every_state(what: What, state: State, event: Event) -> None:
    if event in WAYS_OUT:
        expected = {"reject": "rejected", "fail": "failed"}[event] if state not in (*OVER, "trial") else None
    else:
        expected = ALLOWED[state].get(event)
    if ONLY.get((state, event), what) != what:
        expected = None
    assert after(what, state, event) == expected


def test_the_wire_knows_the_same_states() -> None:
    assert get_args(UpdateState) == STATES == tuple(POSTS)


def reachable(what: What, without: State | None = None) -> set[State]:
    reached: set[State] = {"idle"}
    while True:
        more = {after(what, s, e) for s, e in TABLE if s in reached and s != without} - reached - {None}
        if not more:
            return reached
        reached |= more  # type: ignore[arg-type]


def test_a_model_comes_into_trial_only_through_every_gate() -> None:
    assert "trial" in reachable("model")
    for gate in ("downloading", "verified", "compiled", "golden", "shadow"):
        assert "trial" not in reachable("model", without=gate)  # type: ignore[arg-type]


def test_a_new_model_is_kept_only_by_its_trial_and_what_ran_already_by_confirmation() -> None:
    assert {(s, e) for (s, e), into in TABLE.items() if into == "committed"} == {
        ("trial", "commit"), ("offered", "confirm"), ("deferred", "confirm"),
    }  # fmt: skip
    assert "committed" not in {after("model", "shadow", event) for event in EVENTS}


def test_every_state_can_be_reached_and_every_one_under_way_has_an_owner_a_deadline_and_an_end() -> None:
    assert reachable("model") == set(STATES)
    for state, post in POSTS.items():
        assert post.owner in ("sync", "vision")
        if state in OVER:
            assert post.limit_s is None
        else:
            assert post.limit_s
            assert post.ends
            assert after("model", state, post.ends) in OVER
            assert after("config", state, post.ends) in OVER


def test_the_new_model_answers_in_trial_and_when_committed_and_in_no_other_state() -> None:
    assert NEW_ANSWERS == ("trial", "committed")
    assert POSTS["trial"].owner == "vision"


@pytest.mark.parametrize("code", CODES)
def test_every_code_ends_a_trial_by_the_way_back(code: str) -> None:
    assert ending("trial", code) == "roll-back"
    assert CODES[code].meaning
    assert CODES[code].cure
    assert CODES[code].event in ("defer", "reject", "fail", "roll-back")


def test_steps_of_one_kind_are_in_the_table() -> None:
    assert set(ONLY) <= set(TABLE)


@pytest.mark.parametrize("made", [lifecycle.mermaid, lifecycle.deadlines_table, lifecycle.codes_table])
def test_the_documentation_shows_this_table(made: object) -> None:
    """To renew them: python tests/core/test_lifecycle.py."""
    assert made() in DOCS.read_text("utf-8")  # type: ignore[operator]


BY_HAND = {"update-running", "update-busy", "update-none-before", "update-folder-missing"}
"""What only `shelfwire-agent model` says: no update ends by it."""


def test_every_code_that_the_device_says_is_in_the_table_and_every_one_in_the_table_is_said() -> None:
    agent = Path(lifecycle.__file__).parents[1]
    files = [path for path in agent.rglob("*.py") if path != Path(lifecycle.__file__)]
    said = {code for path in files for code in re.findall(r'"(update-[a-z-]+)"', path.read_text("utf-8"))}
    assert said - BY_HAND - set(CODES) == set()
    assert set(CODES) - said == set()


def renew() -> None:
    """Write the drawing and the tables into the documentation, each between its two comments."""
    text = DOCS.read_text("utf-8")
    parts = {
        "diagram": f"```mermaid\n{lifecycle.mermaid()}\n```",
        "states": lifecycle.deadlines_table(),
        "codes": lifecycle.codes_table(),
    }
    for name, part in parts.items():
        head, rest = text.split(f"<!-- {name} -->\n")
        text = f"{head}<!-- {name} -->\n{part}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    DOCS.write_text(text, "utf-8")


if __name__ == "__main__":
    renew()
