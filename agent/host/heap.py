"""The C library's heap: glibc gives each thread one of its own and keeps what was freed; a small device wants it back.

Pictures of several megabytes come and go on every thread here, and a model that is loaded leaves as much again as it
needs. Other C libraries (musl) have neither of the two calls, and need none.
"""

import ctypes
import os
from functools import cache

M_ARENA_MAX = -8
"""Its number in malloc.h, mallopt(3)."""
HEAPS = 2
EVERY_NS = 15_000_000_000


def share() -> None:
    """Let all threads share two heaps, unless MALLOC_ARENA_MAX says otherwise. For the start of a process: glibc
    looks at it once, when a second thread asks for memory."""
    library = _library()
    if library is not None and "MALLOC_ARENA_MAX" not in os.environ:
        library.mallopt(M_ARENA_MAX, HEAPS)


class Returned:
    """Gives freed memory back to the system every 15 seconds, which takes a few milliseconds."""

    def __init__(self) -> None:
        self._due_ns = 0

    def tick(self, boot_ns: int) -> None:
        """Call it every second or so, with the nanoseconds since the boot."""
        library = _library()
        if library is not None and boot_ns >= self._due_ns:
            self._due_ns = boot_ns + EVERY_NS
            library.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """This process's C library if it is glibc."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
