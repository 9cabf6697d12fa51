"""How many frames per second this machine's model answers: what the demo's overload is a multiple of.

`python -m cloud.demo.capacity CORE` prints the figure for one core, with two threads at work, as a small device has it.
"""

import os
import subprocess
import sys
import threading
import time

from models import Classifier, resolve

import numpy as np  # isort: skip - after models, which sets the decoder's limits

SECONDS = 1.0
THREADS = 2
TIMEOUT_S = 60.0


def measure(seconds: float = SECONDS) -> float:
    """Frames per second that `THREADS` threads classify on the cores that this process may use."""
    picture = np.random.default_rng(7).integers(0, 256, (180, 320, 3), np.uint8)
    done = [0] * THREADS
    stop = threading.Event()

    def work(place: int) -> None:
        worker = classifier.worker()
        while not stop.is_set():
            worker.classify(picture)
            done[place] += 1

    with Classifier.open(resolve("produce"), workers=THREADS) as classifier:
        classifier.worker().classify(picture)
        threads = [threading.Thread(target=work, args=(place,)) for place in range(THREADS)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join()
        return sum(done) / (time.monotonic() - began_s)


def of_core(core: int) -> float:
    """Measure in a process of its own that is bound to one core."""
    command = [sys.executable, "-m", "cloud.demo.capacity", str(core)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return float(answer.stdout)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})  # before the runtime asks how many cores there are
    print(measure())
