"""Freed memory goes back to the system. In a process of its own: what pytest has allocated before would hide it."""

import subprocess
import sys

import pytest

from agent.host import heap

MIB = 1 << 20
SCRIPT = """
import sys, threading
from agent.host import heap
from agent.host.process import rss_bytes

heap.share()
returned = heap.Returned()
returned.tick(1)
kept = []

def work():
    pieces = [bytes(100_000) for _ in range(300)]  # too small to be mapped alone
    kept.append(pieces[-1])  # which holds the end of the heap

for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
full = rss_bytes()
returned.tick(heap.EVERY_NS)  # too early
early = rss_bytes()
returned.tick(heap.EVERY_NS + 1)
print(full, early, rss_bytes())
"""


@pytest.mark.skipif(heap._library() is None, reason="another C library than glibc")
def test_what_threads_have_freed_goes_back_when_it_is_time() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    full, early, after = map(int, said.stdout.split())
    assert full - early < MIB
    assert full - after > 20 * MIB


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_library", lambda: None)
    heap.share()
    heap.Returned().tick(1)
