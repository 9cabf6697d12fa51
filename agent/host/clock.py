"""The machine's clocks."""

import ctypes
import threading
import time

from agent.ports import ClockTrust, Stamp

TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""

TRUST_FOR_NS = 10 * 10**9
"""How long one look at the kernel's synchronisation state is used."""


class _Timex(ctypes.Structure):
    """struct timex with every mode bit off: a read. Only its size matters, so it is generous."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 508))


class SystemClock:
    """The real clocks of this machine."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._trust: ClockTrust = "unsure"
        self._looked_ns = -TRUST_FOR_NS

    def now(self) -> Stamp:
        """Read the wall clock and CLOCK_BOOTTIME."""
        return Stamp(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def trust(self) -> ClockTrust:
        """Ask the kernel whether a time service keeps the wall clock right."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if now_ns - self._looked_ns >= TRUST_FOR_NS:
            state = self._libc.adjtimex(ctypes.byref(_Timex()))
            self._trust = "synced" if 0 <= state < TIME_ERROR else "unsure"
            self._looked_ns = now_ns
        return self._trust

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for the event on the real clock."""
        return event.wait(timeout_s)


def boot_id() -> str:
    """Tell this boot from others; empty where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - one read, no path work
            return file.read().strip()
    except OSError:
        return ""
