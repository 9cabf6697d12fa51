"""Look at everything that can be wrong with this device, within 10 seconds, and say what to do about it.

Works with the daemons dead, without a configuration, without root and without a network; changes nothing. The last
line is a short code to read out over the phone; docs/codes.md explains each.

Exit code 0 fine, 1 warnings, 2 failures, 3 when a check could not be made.
"""

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict

from agent import checks
from agent.checks import AREAS, CHECK_S, Context, Finding
from agent.checks.finding import NOT_RUN
from agent.cli import doctor_text
from agent.cli.common import add_config, add_json, on_terminal, say_error
from agent.host.process import age_s

WHOLE_S = 10.0
"""How long the whole run may take, its start included."""

SPARE_S = 1.0
"""What is kept back of it, to print and to end."""

QUICK_CHECK_S = 1.4
"""How long one check may take with --quick: two seconds as a whole, most of the rest for the start."""

_SINCE = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"only these areas: {', '.join(AREAS)}")
    parser.add_argument("--list", action="store_true", help="say what is looked at, and look at nothing")
    parser.add_argument("--quick", action="store_true", help="under 2 s: opens no camera, runs no model, sends nothing")
    parser.add_argument("--deep", action="store_true", help="check the store against its invariants too")
    parser.add_argument("--since", type=_span_s, metavar="SPAN", help="also count what went wrong in 30min, 1h, 2d")
    parser.add_argument(
        "--patience", type=float, default=CHECK_S, metavar="S",
        help="seconds for each check (default %(default)g); more than that may take longer than 10 s as a whole",
    )  # fmt: skip
    parser.add_argument("-v", "--verbose", action="store_true", help="show what a check that fails logs")
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Look, print, and give the exit code."""
    unknown = [area for area in options.areas if area not in AREAS]
    if unknown:
        say_error("area", f"there is no area {unknown[0]!r}", f"take some of: {', '.join(AREAS)}")
        return NOT_RUN
    if options.list:
        print(_list(options.areas, as_json=options.json))
        return 0
    if not options.verbose:  # a check that fails is told among the others; its trace is for developers
        logging.getLogger().addHandler(logging.NullHandler())
    patience_s = min(options.patience, QUICK_CHECK_S) if options.quick else options.patience
    context = Context.load(
        options.config, quick=options.quick, deep=options.deep, since_s=options.since, patience_s=patience_s
    )
    found = checks.examine(context, options.areas, _deadline_s(patience_s))
    code = checks.exit_code(found)
    device = context.config.device.id if context.config else ""
    took_s = age_s()
    if options.json:
        print(json.dumps(as_json(found, device, took_s), indent=2))
    else:
        print(doctor_text.write(found, device, took_s, colour=on_terminal(sys.stdout)))
    sys.stdout.flush()
    return code


def _deadline_s(patience_s: float) -> float:
    """What is left of the ten seconds: starting has taken some. With more patience it is as long as it takes."""
    if patience_s > CHECK_S:
        return 4 * patience_s
    return max(1.0, WHOLE_S - SPARE_S - age_s())


def as_json(found: Sequence[Finding], device: str, took_s: float) -> dict[str, object]:
    """Give what was found for programs."""
    overall = ("ok", "warning", "failure", "not-run")[checks.exit_code(found)]
    return {
        "schema": 1,
        "device": device,
        "overall": overall,
        "code": checks.spoken(found),
        "took_s": round(took_s, 2),
        "checks": [{**asdict(finding), "who": finding.who} for finding in found],
    }


def _list(areas: Sequence[str], *, as_json: bool) -> str:
    chosen = [check for check in checks.CHECKS if not areas or check.area in areas]
    if as_json:
        return json.dumps([{"name": c.name, "area": c.area, "looks_at": c.looks_at, "quick": c.quick} for c in chosen])
    return "\n".join(f"{check.area:<13} {check.looks_at}" for check in chosen)


def _span_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError("write a number and a unit: 30min, 1h, 2d")
    return float(match[1]) * _SINCE[match[2]]
