"""Who does what on this machine: tasks in their order, then parts of what others do."""

import multiprocessing
import os
import struct
from dataclasses import replace

import pytest

from core.config import metric_of, to_dict
from experiments import launch
from experiments.costs import task_costs
from experiments.execute import Task
from experiments.files import write_bytes, write_json
from experiments.grid import expand_each
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs

WORDS = ("grid=sampling_steps", "scale=smoke")


class Pipe:
    def __init__(self):
        self.sent, self.broken = [], False

    def send(self, what):
        if self.broken:
            raise BrokenPipeError
        self.sent.append(what)


class Process:
    """One that has ended."""

    exitcode = -9

    def __init__(self):
        self.sentinel, end = os.pipe()
        os.close(end)

    def join(self, timeout=None):
        pass

    def is_alive(self):
        return False


class Board:
    def __init__(self, title, total, *_):
        self.total, self.said, self.shown = total, [], []

    def say(self, text):
        self.said.append(text)

    def worker(self, *what):
        self.shown.append(what)

    def idle(self, i):
        pass

    def progress(self, done):
        pass


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The runs of L_simple (three rows) and of L_hybrid; workers that are none."""
    monkeypatch.setattr(launch, "Board", Board)
    start = lambda self, i: launch._Worker(Process(), Pipe())  # noqa: E731
    monkeypatch.setattr(launch._Pool, "_start", start)
    monkeypatch.setattr(Task, "needs_training", property(lambda self: not self.run.trained))
    request = parse([*WORDS, f"results={tmp_path}"])
    return tasks_of(distinct(expand_each(request), Runs(tmp_path / "runs")), request)


def pool_of(tasks: list[Task]) -> launch._Pool:
    return launch._Pool("t", tasks, lambda: None, lambda: False, "no", 2, 1, 0)


@pytest.fixture
def pool(tasks):
    """Of two workers."""
    return pool_of(tasks)


def train(task: Task) -> None:
    write_json(task.run.folder / "config.json", to_dict(task.config))
    write_bytes(task.run.folder / "trained", b"")


def measure(task: Task, asked) -> None:
    content = {"metric": metric_of(asked.settings), "result": {}}
    write_json(task.run.folder / "measurements" / f"{asked.id}.json", content)


def given(pool, i: int) -> Task | None:
    return pool.workers[i].task


def test_who_has_nothing_left_helps_with_the_measurements_of_another(pool):
    for i in range(2):
        pool._give(i)
    simple, hybrid = given(pool, 0), given(pool, 1)
    # A likelihood has no sampler: DDIM's row asks for none of its own.
    likelihoods = sum(asked.name.startswith("nll") for asked in hybrid.asked)
    assert len(simple.asked) == 3 * len(hybrid.asked) - likelihoods > len(hybrid.asked)
    pool._answer(1, ("done",))
    assert given(pool, 1) is None  # the other one is training yet
    train(simple)
    pool._give(1)
    assert given(pool, 1) == replace(simple, part="measurements") and pool.workers[1].helps
    assert pool.workers[1].pipe.sent[-1] == (given(pool, 1), "no")
    pool._answer(1, ("busy",))  # there was nothing that nobody had
    assert given(pool, 1) is None
    pool.workers[1].rests = 0
    pool._give(1)  # and later there may be
    assert given(pool, 1) is not None
    for asked in simple.asked[1:]:
        measure(simple, asked)
    pool._answer(1, ("done",))
    assert given(pool, 1) is None  # the last one is in the other's hands
    pool._answer(0, ("done",))
    assert pool.outcome.done == 2 and not pool.queue and not pool.outcome.failed


def test_what_is_done_is_counted_once_however_it_is_called(pool):
    for i in range(2):
        pool._give(i)
    simple = given(pool, 0)
    costs = task_costs(simple)
    assert len(costs) == 1 + len(simple.asked)
    pool._answer(0, ("report", "train", 1, 4, ""))
    assert pool._partly() == pytest.approx(costs["train"] / 4)
    train(simple)
    assert pool._partly() == pytest.approx(costs["train"])
    same = [asked for asked in simple.asked if asked.words == simple.asked[0].words]
    assert len(same) == 3  # one of each row
    measure(simple, same[0])
    pool._answer(0, ("report", same[0].words, 1, 2, ""))
    expected = costs["train"] + costs[same[0].id] + costs[same[1].id] / 2
    assert pool._partly() == pytest.approx(expected)
    for asked in simple.asked:
        measure(simple, asked)
    assert pool._partly() == pytest.approx(sum(costs.values()))
    pool._answer(0, ("done",))
    assert pool.finished == pytest.approx(sum(costs.values()))


def test_a_helper_s_end_is_not_the_task_s(pool):
    for i in range(2):
        pool._give(i)
    simple = given(pool, 0)
    train(simple)
    pool._answer(1, ("done",))
    done, said = pool.outcome.done, len(pool.board.said)
    pool._answer(1, ("done",))
    assert (pool.outcome.done, len(pool.board.said)) == (done, said)
    pool.workers[1].rests = 0
    pool._give(1)
    pool._answer(1, ("failed", "no room", False))
    assert pool.outcome.failed == {simple.words: "no room"}


@pytest.fixture
def helped(pool):
    """Worker 1 has nothing to do but to help worker 0."""
    for i in range(2):
        pool._give(i)
    train(given(pool, 0))
    pool._answer(1, ("done",))
    pool.workers[1].rests = 0
    return pool


def test_a_helper_that_is_killed_fails_nothing(helped):
    helped._give(1)
    before = helped.workers[1]
    helped._died(1)
    assert helped.outcome.failed == {} and "that helped died (signal 9)" in helped.board.said[-1]
    assert helped.workers[1] is not before and given(helped, 1) is None  # and rests at first
    helped._died(0)
    assert list(helped.outcome.failed.values()) == [
        "its process died (signal 9); the same command continues it"
    ]


def test_a_worker_that_was_killed_while_it_had_nothing_to_do_ends_nothing(helped):
    before = helped.workers[1]
    before.pipe.broken = True
    helped._give(1)
    helped.workers[1].pipe = multiprocessing.Pipe()[0]  # whose other end is gone
    helped.workers[0].pipe, other = multiprocessing.Pipe()
    helped.workers[0].process.sentinel = other
    helped._listen()
    assert helped.workers[1] is not before and helped.outcome.failed == {}


def test_a_worker_that_is_killed_in_the_middle_of_its_answer_has_died(pool):
    for i in range(2):
        pool._give(i)
    words = given(pool, 0).words
    pool.workers[0].pipe, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"the beginning")
    theirs.close()
    pool.workers[1].task = None
    pool._listen()
    assert "its process died" in pool.outcome.failed[words]


def test_a_worker_that_alone_is_told_to_end_is_replaced_and_the_others_go_on(pool):
    for i in range(2):
        pool._give(i)
    told, last = pool.workers[0], given(pool, 1)
    pool.queue.append((last, "no"))
    pool._answer(0, ("interrupted",))
    assert pool.outcome.interrupted and told.pipe.sent[-1] is None
    assert pool.workers[0] is not told and given(pool, 0) == last
    told, pool.signals = pool.workers[1], 1
    pool._answer(1, ("interrupted",))  # as all are
    assert pool.workers[1] is told and given(pool, 1) is None


def test_tasks_of_the_same_run_cost_what_each_of_them_asks_for(tasks):
    """As in a job of packed measurements."""
    train(tasks[0])
    alone = [replace(tasks[0], part="measurements", asked=(asked,)) for asked in tasks[0].asked]
    pool = pool_of(alone[:2])
    assert pool.board.total == pytest.approx(sum(sum(task_costs(t).values()) for t in alone[:2]))
    for i in range(2):
        pool._give(i)
        measure(alone[i], alone[i].asked[0])
    pool._answer(0, ("done",))
    assert pool.finished + pool._partly() == pytest.approx(pool.board.total)
    pool._answer(1, ("done",))
    assert pool.finished == pytest.approx(pool.board.total)
