"""Who does what on this machine: tasks in their order, then parts of what others do."""

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
        self.sent = []

    def send(self, what):
        self.sent.append(what)


class Board:
    def __init__(self, *_):
        self.said, self.shown = [], []

    def say(self, text):
        self.said.append(text)

    def worker(self, *what):
        self.shown.append(what)

    def idle(self, i):
        pass


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Of two workers that are none, for the runs of L_simple (three rows) and of L_hybrid."""
    monkeypatch.setattr(launch, "Board", Board)
    start = lambda self, i: launch._Worker(None, Pipe())  # noqa: E731
    monkeypatch.setattr(launch._Pool, "_start", start)
    monkeypatch.setattr(Task, "needs_training", property(lambda self: not self.run.trained))
    request = parse([*WORDS, f"results={tmp_path}"])
    tasks = tasks_of(distinct(expand_each(request), Runs(tmp_path / "runs")), request)
    return launch._Pool("t", tasks, lambda: None, lambda: False, "no", 2, 1, 0)


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
    likelihoods = sum(asked.name == "nll" for asked in hybrid.asked)
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
