"""Is the device too hot, slowed down, or short of power?"""

from collections.abc import Iterator
from pathlib import Path

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.host.sensors import hottest_c, number, text

WARM_C = 80.0
"""Most small computers slow down at 80 to 85 degrees."""

THROTTLED_SHARE = 0.01
"""Part of the uptime in which a processor was slowed down that is worth a word."""

# The firmware of a Raspberry Pi tells this (documentation of `vcgencmd get_throttled`).
_PI = "devices/platform/soc/soc:firmware/get_throttled"
_UNDER_VOLTAGE, _THROTTLED, _HOT = 0x1, 0x4, 0x8
_WAS_UNDER_VOLTAGE, _WAS_THROTTLED = 0x10000, 0x40000


def check(context: Context) -> Iterator[Finding]:
    """Look at temperature, throttling and supply voltage, as far as this machine tells."""
    found = [*_power(context.sys), *_throttling(context)]
    hot_c = hottest_c(context.sys)
    yield from found
    if hot_c is not None and hot_c >= WARM_C and not found:
        yield wrong("host", "HOST-6", f"{hot_c:.0f} °C")
    elif hot_c is None and not found:
        yield skipped("host", "temperature", "this machine has no sensor for it")
    elif not found:
        yield fine("host", f"temperature {hot_c:.0f} °C, not slowed down")


def _power(sys: Path) -> Iterator[Finding]:
    flags = number(sys / _PI, base=16)
    alarms = [
        number(name.parent / "in0_lcrit_alarm")
        for name in sys.glob("class/hwmon/hwmon*/name")
        if text(name) == "rpi_volt"
    ]
    if (flags or 0) & _UNDER_VOLTAGE or 1 in alarms:
        yield wrong("host", "HOST-8", "under-voltage now")
    elif (flags or 0) & _WAS_UNDER_VOLTAGE:
        yield wrong("host", "HOST-8", "under-voltage since the device was started", severity="warning")


def _throttling(context: Context) -> Iterator[Finding]:
    flags = number(context.sys / _PI, base=16) or 0
    hot_c = hottest_c(context.sys)
    at = f" at {hot_c:.0f} °C" if hot_c is not None else ""
    if flags & (_THROTTLED | _HOT):
        yield wrong("host", "HOST-7", f"slowed down now{at}")
        return
    share = _throttled_share(context)
    if share > THROTTLED_SHARE:
        detail = f"slowed down for {share:.0%} of the time since it was started"
        yield wrong("host", "HOST-7", detail, severity="warning")
    elif flags & _WAS_THROTTLED:
        yield wrong("host", "HOST-7", "slowed down since the device was started", severity="warning")


def _throttled_share(context: Context) -> float:
    """Part of the uptime that a processor was slowed down for heat, as Intel's tell it."""
    paths = context.sys.glob("devices/system/cpu/cpu*/thermal_throttle/package_throttle_total_time_ms")
    slow_ms = max((number(path) or 0 for path in paths), default=0)
    uptime_s = float((text(context.proc / "uptime") or "0").split()[0])
    return slow_ms / 1000 / uptime_s if uptime_s > 0 else 0.0


CHECK = Check("heat", "host", "temperature, throttling, supply voltage", check)
