"""Topics: a device id is one level and nothing else, whoever says it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import topics
from wire.errors import WireError

HOSTILE_IDS = [
    "",
    ".",
    "..",
    "../../etc",
    "a/b",
    "/a",
    "a/",
    "+",
    "#",
    "a+",
    "a#",
    "$SYS",
    "-a",
    "_a",
    ".a",
    "a b",
    " a",
    "a\n",
    "a\x00",
    "ä",
    "a\u202eb",
    "\ud800",
    "a" * 65,
    "a" * 65_536,
    "٣",  # a digit to str.isdigit, not to us
]


def short(value: str) -> str:
    return ascii(value)[:40]


@pytest.mark.parametrize("device", HOSTILE_IDS, ids=short)
def test_a_hostile_device_id_names_no_topic(device: str) -> None:
    with pytest.raises(WireError) as caught:
        topics.topic(device, topics.RESULTS)
    assert caught.value.code == "bad-device"
    assert caught.value.hint
    assert len(str(caught.value).encode()) < 1_000


@pytest.mark.parametrize(
    "name",
    [
        *(f"shelfwire/v1/{device}/results" for device in HOSTILE_IDS if not device.startswith("a/")),
        "",
        "/",
        "shelfwire/v1",
        "shelfwire/v1/",
        "shelfwire/v1/dev-001",
        "shelfwire/v1/dev-001/",
        "shelfwire/v2/dev-001/results",
        "Shelfwire/v1/dev-001/results",
        "/shelfwire/v1/dev-001/results",
        "x/shelfwire/v1/dev-001/results",
        "$share/ingest/shelfwire/v1/dev-001/results",
        "shelfwire/v1/dev-001/results\n",
        "shelfwire/v1//results",
    ],
    ids=short,
)
def test_a_hostile_topic_is_refused(name: str) -> None:
    with pytest.raises(WireError) as caught:
        topics.split(name)
    assert caught.value.code == "bad-topic"
    assert len(str(caught.value).encode()) < 1_000


@pytest.mark.parametrize("tail", ["../dev-002/results", "dev-002/results", "/results", "results/", "+/results"])
def test_climbing_out_of_ones_topic_leads_nowhere(tail: str) -> None:
    device, rest = topics.split(f"shelfwire/v1/dev-001/{tail}")
    assert device == "dev-001"
    assert rest not in {topics.STATUS, topics.RESULTS, topics.ALERTS, topics.PICTURES, topics.RECEIPTS_UP}


@pytest.mark.parametrize("device", ["a", "0", "store-0042-a", "A.b_c-9", "a" * 64, "a..b"])
@pytest.mark.parametrize("rest", [topics.STATUS, topics.RESULTS, topics.RECEIPTS_DOWN])
def test_a_topic_comes_apart_as_it_was_made(device: str, rest: str) -> None:
    assert topics.split(topics.topic(device, rest)) == (device, rest)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_topic_of_ours_or_a_wire_error(name: str) -> None:
    try:
        device, rest = topics.split(name)
    except WireError as error:
        assert error.code == "bad-topic"
    else:
        assert topics.topic(device, rest) == name


@settings(deadline=None)
@given(st.text(max_size=70))
def test_any_text_is_a_device_id_or_a_wire_error(device: str) -> None:
    try:
        name = topics.topic(device, topics.STATUS)
    except WireError as error:
        assert error.code == "bad-device"
    else:
        assert name.count("/") == 3
        assert topics.split(name) == (device, topics.STATUS)


def test_filters_cover_every_device() -> None:
    assert topics.every_device(topics.RESULTS) == "shelfwire/v1/+/results"
    assert topics.shared("ingest", topics.ALERTS) == "$share/ingest/shelfwire/v1/+/alerts"
