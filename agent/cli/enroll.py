"""Make this device a member of the fleet, by the one-time code that the operator gives you.

    sudo shelfwire-agent enroll https://cloud.example:8443 --code ABCD-EFGH-JKLM

It makes the device's key, has it certified, and then shows line by line that broker and API let the device in; what
does not work names who must act. A try that fails leaves the device as it was, and can be made again. Exit code 1: the
device is enrolled, but something on the way to the cloud needs somebody.
"""

import argparse
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent import config as configuration
from agent import identity
from agent.cli.common import add_config, add_json
from agent.errors import Rejected
from agent.host import services
from agent.link import proof
from agent.link.enrolment import FirstContact, check_url
from agent.link.proof import Step
from wire import enrolment
from wire.errors import WireError

SLOW_CLOCK = timedelta(days=6)
FAST_CLOCK = timedelta(days=60)
"""A clock that is slower or faster than this lets certificates look as if they did not count."""
GOOD_CLOCK = timedelta(minutes=5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", metavar="URL", help="the cloud's address for devices, as the operator's command printed")
    parser.add_argument("--code", required=True, metavar="CODE", help="the one-time code, like ABCD-EFGH-JKLM")
    parser.add_argument("--force", action="store_true", help="replace the identity that this device has")
    parser.add_argument("--no-restart", action="store_true", help="do not restart the services")
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Enrol; gives 0, or 1 when something beside the enrolment needs somebody."""
    tell = _Teller(quiet=options.json)
    url, code = check_url(options.url), _code(options.code)
    state_dir = _find_state_dir(options.config)
    _check_former(state_dir, force=options.force)
    tell.say(f"Enrolling this device with {url}")
    contact = FirstContact(url)
    welcome = contact.hello(code)
    tell.step(Step("cloud", "proves that it knows the code"))
    tell.step(_check_clock(welcome, datetime.now(UTC)))
    _check_name(welcome, options.config)
    request = identity.pending_request(state_dir, code.id)
    told = contact.enrol(code, welcome, request.csr)
    folder = identity.install(state_dir, told, request.key)
    root = identity.keep_root(state_dir, told.root)
    identity.give_to_agent(state_dir)
    own = identity.read(state_dir)
    assert own is not None
    tell.step(Step("certificate", f"{own.device} of {told.store}, until {own.not_after:%Y-%m-%d}; it renews itself"))
    tell.step(Step("identity", f"kept in {folder}"))
    tell.step(_check_config(told, options.config, state_dir))
    if root is not None:
        tell.step(Step("models", f"updates are trusted by {root}"))
    for prove in proof.PROOFS:
        tell.step(prove(told, state_dir))
    restarted = [] if options.no_restart else _restart(tell)
    return tell.end(own, told, folder, restarted)


def _code(text: str) -> enrolment.Code:
    try:
        return enrolment.parse_code(text)
    except WireError as error:
        raise Rejected(error.code, str(error), error.hint) from None


def _find_state_dir(config: Path) -> Path:
    """Find where the identity goes, and see early that this user may write there: later the code would be used."""
    try:
        state_dir = configuration.state_dir_of(config)
    except Rejected as error:
        if error.code == "config-unreadable" and os.geteuid() != 0:
            raise _needs_root(f"{config} is not for this user") from error
        raise
    nearest = next(place for place in (state_dir, *state_dir.absolute().parents) if _is_there(place))
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise _needs_root(f"this user may not write into {nearest}")
    return state_dir


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except PermissionError:
        return False


def _needs_root(why: str) -> Rejected:
    return Rejected("needs-root", why, "run it with sudo: sudo shelfwire-agent enroll ...; the code was not used")


def _check_former(state_dir: Path, *, force: bool) -> None:
    """See whether an identity that still counts would be lost."""
    if force:
        return
    former = identity.read(state_dir)
    if former is not None and former.left(datetime.now(UTC)) > timedelta():
        raise Rejected(
            "already-enrolled",
            f"this device is enrolled as {former.device}, until {former.not_after:%Y-%m-%d}",
            "shelfwire-agent doctor shows whether it works; add --force to replace it",
        )


def _check_clock(welcome: enrolment.Welcome, now: datetime) -> Step:
    """Compare the clock with the cloud's, which is proved. Raises `Rejected` (``clock-wrong``)."""
    ahead = now - welcome.now
    if not -SLOW_CLOCK < ahead < FAST_CLOCK:
        raise Rejected(
            "clock-wrong",
            f"this device's clock says {now:%Y-%m-%d %H:%M}, the cloud's {welcome.now:%Y-%m-%d %H:%M} (UTC): with that "
            "no certificate counts",
            "set the clock: timedatectl set-ntp true, or timedatectl set-time; then run this again with the same code",
        )
    if abs(ahead) > GOOD_CLOCK:
        way = "ahead" if ahead > timedelta() else "behind"
        return Step("clock", f"{abs(ahead).total_seconds() / 60:,.0f} minutes {way}", "clock-off",
                    "let a time server keep it: timedatectl set-ntp true")  # fmt: skip
    return Step("clock", f"{ahead.total_seconds():+.0f} s from the cloud's")


def _check_config(told: enrolment.Identity, path: Path, state_dir: Path) -> Step:
    """See that the user's configuration, which goes before what came with the enrolment, does not stand in its way."""
    try:
        found = configuration.load(path, state_dir)
    except Rejected as error:
        return Step("config", str(error), error.code, error.hint)
    ours = {"broker": told.broker, "api": told.api}
    others = [f'{key} = "{value}"' for key in ours if (value := getattr(found.cloud, key)) != ours[key]]
    if others:
        cure = f"take that out of [cloud] in {path}, unless it is meant so"
        return Step("config", f"{path} names another cloud: {', '.join(others)}", "config-other-cloud", cure)
    return Step("config", f"{path} is fine" if path.exists() else "none of your own; none is needed")


def _check_name(welcome: enrolment.Welcome, path: Path) -> None:
    """See that the code is for the device that the user's own configuration speaks of, where it speaks of one."""
    wanted = configuration.own_id(path)
    if wanted is not None and wanted != welcome.device:
        raise Rejected(
            "code-other-device",
            f"the code is for {welcome.device}, but {path} says that this device is {wanted}",
            f"ask for a code for {wanted}, or take [device] id out of {path}: it comes with the enrolment",
        )


def _restart(tell: "_Teller") -> list[str]:
    """Let the services begin anew with the new identity, where systemd runs and knows them."""
    for state in services.restart():
        name = state.unit.removesuffix(".service")
        if state.active == "active":
            tell.step(Step("services", f"{name} started: {state.status}"))
        else:
            cure = f"journalctl -u {name} -n 20 says why"
            text = f"{name} is {state.active}: {state.status}"
            tell.step(Step("services", text.removesuffix(": "), "services-restart", cure))
    return [state.unit for state in services.states() if state.active == "active"]


class _Teller:
    """Says each step as it is done, or keeps them all for programs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._steps: list[Step] = []

    def say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)

    def step(self, step: Step) -> None:
        self._steps.append(step)
        mark = "" if step.good else f"  [{step.code}]"
        self.say(f"  {step.name:<12} {step.text}{mark}")
        if not step.good:
            self.say(f"  {'':<12} cure: {step.cure}")

    def end(self, own: identity.Own, told: enrolment.Identity, folder: Path, restarted: list[str]) -> int:
        heard = all(step.good for step in self._steps if step.name in ("broker", "api"))
        good = heard and all(step.good or step.code == "clock-off" for step in self._steps)
        if self._quiet:
            steps = [
                {"step": s.name, "ok": s.good, "text": s.text, "code": s.code, "cure": s.cure} for s in self._steps
            ]
            print(json.dumps({
                "device": own.device, "store": told.store, "certificate_until": own.not_after.isoformat(),
                "broker": told.broker, "api": told.api, "identity": str(folder), "steps": steps, "heard": heard,
                "restarted": restarted,
            }, indent=2))  # fmt: skip
        elif heard:
            more = "" if good else " See the lines with a cure."
            self.say(f"{own.device} is enrolled; the cloud has heard from it.{more}")
        else:
            self.say(f"{own.device} is enrolled, but does not reach all of its cloud yet: see the lines with a cure.")
        return 0 if good else 1
