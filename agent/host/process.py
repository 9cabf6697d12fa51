"""Facts about this process and machine that Linux tells."""

import os
import time
from pathlib import Path


def age_s() -> float:
    """How long this process has run, counted from its start by the kernel, imports included."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return time.process_time()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process, this one by default; 0 when it is gone."""
    return _memory(pid, "VmRSS:")


def peak_rss_bytes(pid: int | None = None) -> int:
    """Give the most resident memory that a process had since its program started; 0 when it is gone.

    Not `ru_maxrss` of getrusage(2): that one begins with the memory of the process which started the program.
    """
    return _memory(pid, "VmHWM:")


def _memory(pid: int | None, name: str) -> int:
    try:
        text = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines())
    return next((int(parts[1]) * 1024 for parts in lines if parts and parts[0] == name), 0)


def disk_bytes(folder: Path) -> tuple[int, int]:
    """Give what this user can still write where `folder` lies, and the size of the whole, in bytes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
