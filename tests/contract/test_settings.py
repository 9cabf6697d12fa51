"""Ordered settings: valid ones are kept when the device does well with them, others never stay, whatever is killed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from world import FakeClock

from agent import config
from agent.core.updates import Entry, When
from agent.errors import Rejected
from agent.settings import Keeping, Offers, begin, go_back, settle, wanted
from agent.store.journal import Journal
from agent.store.settings import SettingsFiles
from agent.update import Now
from wire.orders import ConfigOrder, Desired

GOOD, OLD, BAD = "[decide]\nconfirm_frames = 5\n", "[decide]\nconfirm_frames = 4\n", "[decide]\nconfirm = 5\n"
OWN = '[device]\nid = "d"\nstate_dir = "{state}"\n[[camera]]\nname = "a"\nurl = "synthetic:1"\n'


class Shop:
    """A device with its own file and a vision that begins a new life at each reload."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "device.toml"
        self.path.write_text(OWN.format(state=folder / "state"))
        self.clock = FakeClock()
        self.journal = Journal(folder / "state" / "models")
        self.files = SettingsFiles(folder / "state" / "settings")
        self.ills: list[str] = []
        self.kept = ""
        self.reloads = 0
        self.offers = Offers(self.journal, lambda text: config.load(self.path, ordered=text), self.now)
        self.life()

    def now(self) -> Now:
        stamp = self.clock.now()
        local = datetime.fromtimestamp(0, UTC).time()
        return Now(When(wall_ns=stamp.wall_ns, boot_ns=stamp.boot_ns, boot="b"), local, sure=True)

    def life(self) -> None:
        self.config = config.load(self.path)
        begin(self.journal, self.files, self.now().when)
        self.keeping = Keeping(
            self.journal, self.files, self.now, self.config.ordered, self.config.ordered_trouble,
            check=lambda text: config.load(self.path, ordered=text), ills=lambda: self.ills, kept=lambda: self.kept,
            reload=self.reload, trial_s=60.0,
        )  # fmt: skip

    def reload(self) -> None:
        self.reloads += 1

    def order(self, revision: int, text: str) -> Entry:
        order = Desired(revision=revision, ordered_at=datetime.now(UTC), config=ConfigOrder(text=text))
        self.journal.keep_newest(order)
        self.offers.turn()
        return self.entry

    @property
    def entry(self) -> Entry:
        entry = self.journal.read("config")
        assert entry is not None
        return entry

    def taken_up(self, revision: int, text: str) -> None:
        assert self.order(revision, text).state == "verified"
        self.keeping.turn()
        self.keeping.turn()
        assert self.reloads == revision
        self.keeping.close()
        self.life()
        assert self.config.ordered == text
        assert self.entry.state == "trial"

    def kept_after_its_trial(self) -> None:
        self.keeping.turn()
        self.clock.advance(61)
        self.keeping.turn()
        assert self.entry.state == "committed"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_settings_lie_between_the_enrolment_and_the_own_file_which_wins(shop: Shop) -> None:
    shop.files.put(GOOD + "[placement]\noverflow = 'drop'\n")
    assert config.load(shop.path).decide.confirm_frames == 5
    shop.path.write_text(shop.path.read_text() + "[decide]\nconfirm_frames = 9\n")
    loaded = config.load(shop.path)
    assert (loaded.decide.confirm_frames, loaded.placement.overflow) == (9, "drop")


def test_good_settings_are_taken_up_in_place_and_kept(shop: Shop) -> None:
    shop.taken_up(1, GOOD)
    shop.kept_after_its_trial()
    assert shop.journal.config_revision == 1
    assert config.load(shop.path).decide.confirm_frames == 5


@pytest.mark.parametrize("text", [BAD, "not toml", '[device]\nid = "other"', '[update]\nroot_file = "/x"'])
def test_settings_that_are_not_valid_here_are_refused_and_never_in_force(shop: Shop, text: str) -> None:
    entry = shop.order(1, text)
    assert (entry.state, entry.code) == ("rejected", "update-config")
    assert entry.text
    assert shop.files.in_force() == ""
    assert shop.journal.config_revision == 0


def test_a_device_that_does_worse_goes_back_by_itself(shop: Shop) -> None:
    shop.taken_up(1, OLD)
    shop.kept_after_its_trial()
    shop.taken_up(2, GOOD)
    shop.ills = ["camera a: camera-auth"]
    for _ in range(6):
        shop.keeping.turn()
        shop.clock.advance(60)
    shop.keeping.turn()
    assert (shop.entry.state, shop.entry.code) == ("rolled-back", "update-unhealthy")
    assert "camera-auth" in shop.entry.text
    assert shop.files.in_force() == OLD
    assert shop.journal.config_revision == 1
    shop.keeping.turn()
    assert shop.reloads == 3


def test_a_device_that_was_ill_before_need_not_be_well_now(shop: Shop) -> None:
    shop.ills = ["camera a: camera-auth"]
    shop.taken_up(1, GOOD)
    shop.kept_after_its_trial()


def test_settings_that_a_reload_did_not_take_go(shop: Shop) -> None:
    shop.order(1, GOOD)
    shop.keeping.turn()
    shop.keeping.turn()
    shop.kept = "old configuration kept, the new one is bad [port-in-use]"
    shop.keeping.turn()
    assert (shop.entry.state, shop.entry.code) == ("rolled-back", "update-config")
    assert shop.files.in_force() == ""


def test_two_crashes_with_them_bring_the_former_back(shop: Shop) -> None:
    shop.taken_up(1, GOOD)
    shop.life()
    assert (shop.entry.state, shop.entry.crashes) == ("trial", 1)
    shop.life()
    assert (shop.entry.state, shop.entry.code) == ("rolled-back", "update-crashed")
    assert shop.files.in_force() == ""


def test_a_cut_between_journal_and_file_is_mended_either_way(shop: Shop) -> None:
    shop.taken_up(1, GOOD)
    shop.files.put("")
    assert settle(shop.journal, shop.files) == GOOD == shop.files.in_force()
    assert go_back(shop.journal, shop.files, "update-config", "why", shop.now().when)
    shop.files.put(GOOD)
    assert settle(shop.journal, shop.files) == "" == shop.files.in_force()
    assert wanted(None, shop.files) == ""
    assert not go_back(shop.journal, shop.files, "update-config", "why", shop.now().when)


def test_settings_in_force_that_fit_no_more_do_not_keep_the_device_from_its_work(shop: Shop) -> None:
    shop.files.put('[[alert]]\nname = "x"\nlabel = "Banana"\ncameras = ["b"]\n')
    loaded = config.load(shop.path)
    assert loaded.alert == ()
    assert 'names the camera "b"' in loaded.ordered_trouble
    with pytest.raises(Rejected):
        config.load(shop.path, ordered=shop.files.in_force())


def test_a_newer_order_takes_the_place_of_one_that_waits(shop: Shop) -> None:
    shop.order(1, GOOD)
    assert shop.order(2, OLD).revision == 1
    shop.keeping.turn()
    assert (shop.entry.state, shop.entry.code) == ("failed", "update-superseded")
    shop.offers.turn()
    assert (shop.entry.revision, shop.entry.state) == (2, "verified")


def test_settings_in_force_that_come_again_with_a_newer_order_are_not_tried_again(shop: Shop) -> None:
    shop.taken_up(1, GOOD)
    shop.kept_after_its_trial()
    shop.order(2, GOOD)
    shop.keeping.turn()
    assert (shop.entry.revision, shop.entry.state) == (2, "committed")
    assert shop.files.in_force() == GOOD
