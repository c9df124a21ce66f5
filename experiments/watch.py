"""Following a grid that is worked on elsewhere, by what its run folders say."""

import time
from collections import Counter
from collections.abc import Callable

from experiments import progress
from experiments.board import Board, duration
from experiments.costs import measurement_evaluations, training_evaluations
from experiments.execute import Task
from experiments.submitted import Queue

EVERY = 2.0  # seconds between two looks
SHOWN = 30  # lines at a time


def is_done(task: Task) -> bool:
    """Whether the task has its training and its measurements."""
    return task.run.trained and not task.missing


def follow(title: str, tasks: list[Task], queue: Queue, step: Callable[[], bool]) -> None:
    """Shows states, steps and the time left until all is done or nobody works on it any more.

    step: called before each look; whether the caller itself still has something to start.
    """
    whole = {task.run.id: sum(_costs(task).values()) for task in tasks}
    board, idle = Board(title, sum(whole.values())), 0
    with board:
        while idle < 3:
            starting, began = step(), time.monotonic()
            states, done, waits = Counter(), 0.0, False
            for task in tasks:
                state, share = _look(task, queue, board)
                states[state] += 1
                waits |= state != "done" and queue.holds(task.run)
                done += share
            words = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
            board.progress(done, words)
            if states["done"] == len(tasks):
                break
            working = starting or waits or states["running"]
            idle = 0 if working else idle + 1
            # A look at thousands of runs takes a while: then less often.
            time.sleep(max(EVERY, 5 * (time.monotonic() - began)))
    board.say(f"{title}: {words}")


def _costs(task: Task) -> dict[str, float]:
    """Of each stage, done or not: "train", and the measurements by their ids."""
    costs = {"train": training_evaluations(task.config)}
    for asked in task.asked:
        costs[asked.id] = measurement_evaluations(task.config, asked.settings)
    return costs


def _look(task: Task, queue: Queue, board: Board) -> tuple[str, float]:
    """The task's state and how much of it is done; shows it while it runs."""
    costs = _costs(task)
    has = {"train": task.run.trained} | {asked.id: task.run.has(asked.id) for asked in task.asked}
    done = sum(cost for stage, cost in costs.items() if has[stage])
    if all(has.values()):
        board.gone(task.run.id)
        return "done", done
    state = task.run.look(queue.holds)
    if state == "trained":
        state = "started"  # it lacks measurements
    seen = progress.read(task.run.folder) if state == "running" else []
    for stage in seen:
        if not has.get(stage.key, True):
            done += costs[stage.key] * stage.share
    if state != "running":
        board.gone(task.run.id)
    elif seen:
        first = seen[0]
        left = f"{duration(first.left)} left" if first.left is not None else ""
        words = f"{first.done:,} of {first.total:,}  {left}  {first.words}"
        name = f"{task.words} ({task.run.id})"
        board.worker(task.run.id, name, first.stage, first.done, first.total, words)
    return state, done
