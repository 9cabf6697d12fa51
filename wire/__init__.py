"""What device and cloud say to each other: messages, topics, ids, limits. Both sides import only this of each other."""

from wire.errors import WireError

__all__ = ["WireError"]
