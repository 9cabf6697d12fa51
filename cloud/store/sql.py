"""SQL kept as SQL: a file of statements, each under a line ``-- name: what_it_is``."""

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statements(path: Path) -> dict[str, str]:
    """Read the statements of a file by their names."""
    parts = _NAME.split(path.read_text("utf-8"))
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
