"""What the machine's sensors say, read from sysfs."""

from pathlib import Path


def hottest_c(sys: Path = Path("/sys")) -> float | None:
    """Give the temperature of the hottest sensor; None where the machine has none."""
    readings = [number(path) for path in sys.glob("class/thermal/thermal_zone*/temp")]
    # Zones that are switched off show nonsense.
    good = [reading / 1000 for reading in readings if reading is not None and 0 < reading < 150_000]
    return max(good, default=None)


def text(path: Path) -> str | None:
    """Read a small file of the kernel's; None when it is not there or not readable."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def number(path: Path, base: int = 10) -> int | None:
    """Read a number from such a file; None when there is none."""
    try:
        return int(text(path) or "", base)
    except ValueError:
        return None
