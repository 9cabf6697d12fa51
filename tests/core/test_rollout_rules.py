"""Who gets an update when, and what stops it; at the end a fleet of 1,000 devices, of which some behave badly."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from cloud.errors import Rejected
from cloud.rollout import lifecycle
from cloud.rollout.lifecycle import BAD, ENDED, PART_TABLE, PARTS, STATES, TABLE, part_after
from cloud.rollout.rules import (
    GRACE_S,
    Batch,
    Doing,
    Limit,
    Member,
    Rules,
    Standing,
    Step,
    next_step,
    parse_batch,
    parse_limit,
    plan,
)

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ALL = Batch(percent=100.0)
RULES = Rules(batches=(Batch(number=1), ALL), soak_s=600.0, deadline_s=3600.0, min_sample=1)


def members(n: int, per_store: int = 2) -> list[Member]:
    return [Member(f"till-{i}", f"store-{i // per_store}") for i in range(n)]


def part(n: int, state: str = "waiting", batch: int = 0, **other: object) -> Doing:
    made = Doing(f"till-{n}", f"store-{n}", batch, n, state, online=True)  # type: ignore[arg-type]
    if state != "waiting":
        made = replace(made, ordered_at=NOW)
    return replace(made, **other)  # type: ignore[arg-type]


def run(*parts: Doing, batch: int = 0, state: str = "running", rules: Rules = RULES, after_s: float = 0.0) -> Step:
    standing = Standing(state, batch)  # type: ignore[arg-type]
    return next_step(standing, parts, rules, NOW + timedelta(seconds=after_s))


# -- the plan ------------------------------------------------------------------------------------------------------


def test_ten_percent_are_inside_twenty_five_percent_for_any_fleet() -> None:
    rng = random.Random(1)
    for _ in range(50):
        fleet = members(rng.randint(1, 300))
        rng.shuffle(fleet)
        low, high = sorted(rng.uniform(0.5, 100) for _ in range(2))
        few = {one.member.device for one in plan(fleet, [Batch(percent=low)], "r1")}
        many = {one.member.device for one in plan(fleet, [Batch(percent=high)], "r1")}
        assert few
        assert few <= many


def test_each_rollout_begins_with_other_devices() -> None:
    firsts = {plan(members(100), [Batch(number=1)], f"r{n}")[0].member.device for n in range(40)}
    assert len(firsts) > 20


def test_a_plan_does_not_depend_on_the_order_of_the_fleet_and_names_each_device_once() -> None:
    fleet = members(200)
    batches = [Batch(number=3), Batch(percent=25.0), ALL]
    first = plan(fleet, batches, "r1")
    assert plan(list(reversed(fleet)), batches, "r1") == first
    assert sorted(one.member.device for one in first) == sorted(member.device for member in fleet)
    assert [one.batch for one in first] == sorted(one.batch for one in first)
    assert Counter(one.batch for one in first) == {0: 3, 1: 47, 2: 150}


def test_a_batch_can_name_a_label_or_a_shop_and_devices_in_no_batch_are_left_out() -> None:
    fleet = [Member("a", "s1", frozenset({"canary"})), Member("b", "s1"), Member("c", "s2")]
    found = plan(fleet, [parse_batch("label=canary:all"), parse_batch("store=s1:1"), parse_batch("store=s1:all")], "r")
    assert {one.member.device: one.batch for one in found}.keys() == {"a", "b"}
    assert found[0].member.device == "a"


@pytest.mark.parametrize("text", ["3", "10%", "2.5%", "all", "label=canary:all", "store=store-12:1"])
def test_batches_read_as_they_are_written(text: str) -> None:
    assert str(parse_batch(text)) == text


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "some", "label=:1", "ring=1:2", "10 %"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_batch(text)
    assert caught.value.code == "bad-batch"
    assert caught.value.hint


def test_limits_read_as_they_are_written() -> None:
    assert [str(parse_limit(text)) for text in ("0", "2", "5%")] == ["0", "2", "5%"]
    with pytest.raises(Rejected, match="no limit"):
        parse_limit("many")


# -- the tables ----------------------------------------------------------------------------------------------------


def test_the_tables_lead_somewhere_and_never_out_of_an_end() -> None:
    for (state, _), into in TABLE.items():
        assert state in STATES
        assert into in STATES
        assert state not in lifecycle.OVER
    for (part_, _), into_ in PART_TABLE.items():
        assert part_ in PARTS
        assert into_ in PARTS
    assert part_after("done", "order") is None, "nobody is ordered twice"
    assert set(BAD) < set(ENDED)


# -- steps ---------------------------------------------------------------------------------------------------------


def test_the_first_batch_alone_is_ordered_first() -> None:
    assert run(part(0), part(1, batch=1), part(2, batch=1)).order == ("till-0",)


def test_the_next_batch_opens_when_the_first_has_soaked() -> None:
    parts = (part(0, "done"), part(1, batch=1))
    first = run(*parts)
    assert first.order == ()
    assert "soaks" in first.reason
    assert first.standing.good_since == NOW
    early = next_step(first.standing, parts, RULES, NOW + timedelta(seconds=599))
    assert early.order == ()
    then = next_step(first.standing, parts, RULES, NOW + timedelta(seconds=600))
    assert then.standing.batch == 1
    assert then.order == ("till-1",)


def test_a_device_that_goes_back_in_the_soak_stops_the_next_batch() -> None:
    parts = (part(0, "rolled-back"), part(1, batch=1))
    step = next_step(Standing("running", 0, NOW), parts, RULES, NOW + timedelta(seconds=600))
    assert step.standing.state == "aborted"
    assert "rolled-back" in step.reason
    assert step.order == ()


def test_one_device_in_a_shop_is_under_way_at_a_time() -> None:
    same = [replace(part(n), store="store-1") for n in range(3)]
    assert run(*same).order == ("till-0",)
    same[0] = replace(same[0], state="ordered", ordered_at=NOW)
    assert run(*same).order == ()
    assert next_step(Standing("running"), same[1:], RULES, NOW, taken={"store-1"}).order == (), "of another rollout"


def test_devices_without_a_shop_do_not_share_a_budget() -> None:
    assert len(run(*(replace(part(n), store="") for n in range(3))).order) == 3


def test_no_more_than_at_once_are_under_way() -> None:
    assert len(run(*(part(n) for n in range(9)), rules=replace(RULES, at_once=4)).order) == 4


def test_devices_that_are_offline_hold_nothing_up_and_catch_up_within_the_budget() -> None:
    away = part(0, online=False)
    parts = (away, part(1, "done"), part(2, batch=1))
    step = next_step(Standing("running", 0, NOW), parts, RULES, NOW + timedelta(seconds=600))
    assert step.order == ("till-2",), "the next batch goes on without it"
    last = (away, part(1, "done"), part(2, "done", batch=1))
    step = next_step(Standing("running", 1, NOW), last, RULES, NOW + timedelta(seconds=600))
    assert step.standing.state == "catching-up"
    assert step.order == ()
    back = (replace(away, online=True), replace(part(3, "ordered"), store="store-0"), *last[1:])
    assert next_step(step.standing, back, RULES, NOW).order == (), "its shop has one under way"
    assert next_step(step.standing, (back[0], *last[1:]), RULES, NOW).order == ("till-0",)


def test_a_batch_of_which_nobody_is_there_proves_nothing() -> None:
    step = next_step(Standing("running", 0, NOW), (part(0, online=False), part(1, batch=1)), RULES, NOW)
    assert step.order == ()
    assert "must be judged by" in step.reason


def test_silence_past_the_deadline_counts_and_aborts() -> None:
    late_s = RULES.deadline_s + GRACE_S + 1
    heard = part(0, "ordered", heard=True, online=False)
    assert run(heard, part(1, batch=1), after_s=late_s - 2).silent == ()
    step = run(heard, part(1, batch=1), after_s=late_s)
    assert step.silent == ("till-0",)
    assert step.standing.state == "aborted", "it began, and was never heard again: that may be our doing"


def test_an_order_that_nobody_took_is_taken_back() -> None:
    step = run(part(0, "ordered", online=False), part(1, batch=1), after_s=RULES.deadline_s + GRACE_S + 1)
    assert step.take_back == ("till-0",)
    assert step.silent == ()
    assert step.standing.state == "running"


def test_each_way_to_end_badly_has_its_own_limit() -> None:
    for name in BAD:
        limits = {other: Limit(percent=100.0) for other in BAD} | {name: Limit(number=0)}
        rules = replace(RULES, limits=limits, success_percent=0.0)
        assert run(part(0, name), part(1), rules=rules).standing.state == "aborted"
        for other in BAD:
            if other != name:
                assert run(part(0, other), part(1), rules=rules).standing.state == "running"


def test_a_part_is_not_judged_by_one_device_of_many() -> None:
    rules = replace(RULES, min_sample=5)
    parts = [part(0, "failed"), *(part(n, "ordered") for n in range(1, 20))]
    assert run(*parts, rules=rules).standing.state == "running"
    parts[1:5] = [part(n, "done") for n in range(1, 5)]
    assert run(*parts, rules=rules).standing.state == "aborted", "1 of 5 is above 10 %"


def test_a_batch_below_the_success_that_was_asked_for_waits_for_a_person() -> None:
    limits = {name: Limit(percent=50.0) for name in BAD}
    parts = [part(0, "failed"), *(part(n, "done") for n in range(1, 10)), part(10, batch=1)]
    step = run(*parts, rules=replace(RULES, limits=limits, success_percent=95.0))
    assert (step.standing.state, step.code) == ("paused", "success-low")
    assert "9 of 10" in step.reason


def test_paused_means_nobody_new_but_what_is_under_way_counts() -> None:
    assert run(part(0), state="paused").order == ()
    assert run(part(0, "rolled-back"), part(1, batch=1), state="paused").standing.state == "aborted"


def test_a_rollout_that_is_over_does_nothing() -> None:
    for state in lifecycle.OVER:
        assert run(part(0), state=state) == Step(Standing(state))


# -- a fleet -------------------------------------------------------------------------------------------------------

TICK_S = 300.0


@dataclass
class Fleet:
    """1,000 devices in memory, three in a shop. Each behaves in one way; the clock is counted."""

    ways: dict[str, str]
    rules: Rules
    rng: random.Random
    now: datetime = NOW
    standing: Standing = field(default_factory=lambda: Standing("running"))
    parts: dict[str, Doing] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)
    opened: list[int] = field(default_factory=list)
    reason: str = ""

    def __post_init__(self) -> None:
        fleet = [Member(device, f"store-{n // 3}") for n, device in enumerate(self.ways)]
        for one in plan(fleet, self.rules.batches, "r1"):
            device = one.member.device
            self.parts[device] = Doing(device, one.member.store, one.batch, one.place)

    def tick(self) -> None:
        self.now += timedelta(seconds=TICK_S)
        hours = (self.now - NOW).total_seconds() / 3600
        for device, doing in self.parts.items():
            way = self.ways[device]
            online = hours > 30 if way == "offline" else not (way == "flaky" and self.rng.random() < 0.3)
            doing = replace(doing, online=online)
            if doing.state in ("ordered", "silent") and self.now >= self.ends.get(device, self.now):
                doing = self._end(doing, way)
            self.parts[device] = doing
        step = next_step(self.standing, list(self.parts.values()), self.rules, self.now)
        self._do(step)
        self._check(step)

    def _end(self, doing: Doing, way: str) -> Doing:
        event = {"reject": "reject", "fail": "fail", "go-back": "roll-back", "silent": None}.get(way, "commit")
        into = part_after(doing.state, event) if event else None  # type: ignore[arg-type]
        return replace(doing, state=into or doing.state, heard=True)

    def _do(self, step: Step) -> None:
        for device in step.order:
            took_s = 8 * 3600 if self.ways[device] == "slow" else self.rng.uniform(300, 2400)
            self.ends[device] = self.now + timedelta(seconds=took_s)
            self.parts[device] = replace(self.parts[device], state="ordered", ordered_at=self.now)
        for device in step.silent:
            assert self.ways[device] in ("silent", "slow"), "nobody else is called silent"
            self.parts[device] = replace(self.parts[device], state="silent")
        for device in step.take_back:
            self.parts[device] = replace(self.parts[device], state="waiting", ordered_at=None)
        if step.standing.state != self.standing.state:
            steps = {(state, into) for (state, _), into in TABLE.items()}
            assert (self.standing.state, step.standing.state) in steps, "the rules keep to the table"
        if step.standing.batch != self.standing.batch:
            self.opened.append(step.standing.batch)
        self.standing, self.reason = step.standing, step.reason

    def _check(self, step: Step) -> None:
        under_way = Counter(doing.store for doing in self.parts.values() if doing.state == "ordered")
        assert not under_way or max(under_way.values()) == 1, "one device per store"
        assert under_way.total() <= self.rules.at_once
        for device in step.order:
            assert self.parts[device].batch <= self.standing.batch
            assert self.parts[device].online

    def go(self, most_h: float) -> None:
        while self.standing.state in ("running", "catching-up") and self.now < NOW + timedelta(hours=most_h):
            self.tick()

    @property
    def counts(self) -> Counter[str]:
        return Counter(doing.state for doing in self.parts.values())


def fleet(rules: Rules, seed: int, **bad: int) -> Fleet:
    rng = random.Random(seed)
    ways = [way.replace("_", "-") for way, n in bad.items() for _ in range(n)]
    ways += ["good"] * (1000 - len(ways))
    rng.shuffle(ways)
    return Fleet({f"till-{n}": way for n, way in enumerate(ways)}, rules, rng)


FLEET_RULES = Rules(
    batches=(Batch(number=10), Batch(percent=10.0), Batch(percent=40.0), ALL), soak_s=1800.0, deadline_s=4 * 3600.0,
    min_sample=20, at_once=200, success_percent=80.0, limits={name: Limit(percent=8.0) for name in BAD},
)  # fmt: skip


def test_a_fleet_with_some_bad_devices_gets_through_and_those_that_were_away_catch_up() -> None:
    some = fleet(FLEET_RULES, 5, silent=10, slow=10, reject=20, fail=10, go_back=15, offline=60, flaky=50)
    some.go(80)
    assert some.standing.state == "finished", some.reason
    assert some.opened == [1, 2, 3]
    counts = some.counts
    assert counts == {"done": 945, "rejected": 20, "failed": 10, "rolled-back": 15, "silent": 10}


@pytest.mark.parametrize("way", ["silent", "reject", "fail", "go_back"])
def test_a_fleet_on_which_the_model_is_bad_is_left_alone_early(way: str) -> None:
    bad = fleet(FLEET_RULES, 6, **{way: 400})
    bad.go(80)
    assert bad.standing.state == "aborted"
    touched = sum(state in ENDED or state == "ordered" for state in bad.counts.elements())
    assert touched <= 100, "it never left the second batch"
