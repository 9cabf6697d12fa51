"""The queue to the thread that spools: bounded, never blocking, and at a stop nothing in it is forgotten."""

import threading

import numpy as np

from agent.overflow import Job, Overflow
from agent.ports import Frame, Lane, Picture, Stamp

PICTURE: Picture = np.zeros((10, 10, 3), np.uint8)  # 300 bytes


def job(number: int, *, copy: bool = False) -> Job:
    return Job(Frame("shelf", number, PICTURE, Stamp(0, 0)), Lane.BATCH, "test", {}, copy=copy)


def test_it_takes_what_its_bytes_allow() -> None:
    queue = Overflow(1200)
    assert [queue.put(job(n, copy=True)) for n in range(5)] == [True, True, True, True, False]
    assert not queue.has_room(job(9).frame, copy=True)
    assert not queue.has_room(job(9).frame)


def test_an_overload_leaves_a_quarter_to_copies() -> None:
    queue = Overflow(1200)
    assert [queue.put(job(n)) for n in range(4)] == [True, True, True, False]
    assert not queue.has_room(job(9).frame)
    assert queue.has_room(job(9).frame, copy=True)
    assert [queue.put(job(n, copy=True)) for n in range(2)] == [True, False]


def test_it_takes_so_many_frames_however_small_they_are() -> None:
    queue = Overflow(1 << 20, limit_frames=4)
    assert [queue.put(job(n)) for n in range(4)] == [True, True, True, False]
    assert [queue.put(job(n, copy=True)) for n in range(2)] == [True, False]
    for _ in range(2):
        assert not queue.has_room(job(9).frame)
        assert queue.take() is not None
    assert queue.has_room(job(9).frame)


def test_a_picture_larger_than_all_of_it_waits_alone() -> None:
    queue = Overflow(100)
    assert queue.put(job(1))
    assert not queue.put(job(2))


def test_a_stop_waits_for_what_is_under_way() -> None:
    queue, done = Overflow(), []

    def work() -> None:
        while (taken := queue.take()) is not None:
            assert queue.release(taken)
            done.append(taken.frame.number)

    for n in range(5):
        queue.put(job(n))
    thread = threading.Thread(target=work)
    thread.start()
    assert queue.close(10) == []
    thread.join(10)
    assert done == [0, 1, 2, 3, 4]
    assert not queue.put(job(6)), "nothing is taken any more"


def test_what_is_not_done_in_time_is_given_up_and_cannot_be_released_later() -> None:
    queue = Overflow()
    for n in range(3):
        queue.put(job(n))
    in_hand = queue.take()
    assert in_hand is not None
    assert [left.frame.number for left in queue.close(0)] == [0, 1, 2]
    assert not queue.release(in_hand)
    assert queue.take() is None
