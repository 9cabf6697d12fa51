"""Numbers for people, no more exact than it matters."""


def size(n_bytes: float) -> str:
    """Write a size."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes:.0f} B"


def duration(s: float) -> str:
    """Write how long something took or lasts."""
    for unit, unit_s, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if s < most * unit_s:
            return f"{s / unit_s:.0f} {unit}"
    return f"{s / 86_400:,.0f} days"


def many(n: int, what: str) -> str:
    """Write a count with its noun: ``1 record``, ``12 records``."""
    return f"1 {what}" if n == 1 else f"{n:,} {what}s"
