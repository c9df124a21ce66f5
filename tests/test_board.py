"""What people see while a grid runs, where there is no terminal."""

import time

import pytest

from experiments.board import Board, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when they are added."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lengths_of_time_are_for_people():
    assert [duration(s) for s in (41.6, 200, 7500)] == ["42 s", "3 min 20 s", "2 h 05 min"]


def test_the_time_left_is_at_the_rate_so_far(clock):
    board = Board("all", 100)
    board.progress(10)
    assert board.eta() == "estimating the time left"
    clock[0] += 60
    board.progress(40)
    assert board.eta() == "2 min 00 s left"


def test_nobody_is_told_that_no_time_is_left_while_something_goes_on(clock, capsys):
    """Features of a data set are computed after the last image, which is all that is counted."""
    board = Board("all", 100)
    board.progress(10)
    clock[0] += 60
    board.progress(100)
    for done in (1000, 2000, 3000, 4000):
        board.worker(0, "row", "fd", 100, 100, f"features of {done} of 9000")
        clock[0] += 20
    assert capsys.readouterr().err.splitlines() == [
        "all: 10 %  estimating the time left",
        "all: 100 %  finishing",
        "row: fd",
        "row: fd: features of 2000 of 9000",
        "row: fd: features of 4000 of 9000",
    ]
