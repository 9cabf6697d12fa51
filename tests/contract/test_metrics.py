"""What Prometheus is told of answers: all of them, each once, whenever it asks."""

import threading

from prometheus_client import generate_latest

from agent.host.metrics import Metrics, Sample


def told(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics._registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_whoever_asks_sees_every_answer_so_far() -> None:
    metrics = Metrics(0, lambda: [Sample("shelfwire_cameras", "How many.", 2.0)])
    for n, camera in ((1, "door"), (70, "till")):
        for _ in range(n):
            metrics.answered(camera, 12.0)
    seen = told(metrics)
    assert seen["shelfwire_cameras"] == 2
    assert seen['shelfwire_capture_to_answer_seconds_count{camera="door"}'] == 1
    assert seen['shelfwire_capture_to_answer_seconds_count{camera="till"}'] == 70
    assert seen['shelfwire_capture_to_answer_seconds_bucket{camera="till",le="0.01"}'] == 0
    assert seen['shelfwire_capture_to_answer_seconds_bucket{camera="till",le="0.02"}'] == 70
    assert told(metrics) == seen, "and none of them twice"


def test_answers_of_many_threads_are_counted_once() -> None:
    metrics = Metrics(0, list)
    answers = 5000

    def answer(camera: str) -> None:
        for _ in range(answers):
            metrics.answered(camera, 3.0)

    threads = [threading.Thread(target=answer, args=(camera,)) for camera in "abca"]
    for thread in threads:
        thread.start()
    for _ in range(20):
        told(metrics)
    for thread in threads:
        thread.join()
    seen = told(metrics)
    counts = [seen[f'shelfwire_capture_to_answer_seconds_count{{camera="{camera}"}}'] for camera in "abc"]
    assert counts == [2 * answers, answers, answers]
