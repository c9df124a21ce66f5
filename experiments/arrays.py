"""How a launch becomes job arrays: which jobs, what waits for what, how many at a time."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.measurements import in_parts
from experiments.execute import Task
from experiments.jobs import Job


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted together.

    after: the array whose i-th job must have succeeded before the i-th job here begins. behind: the
    array that must have ended before any job here begins. at_once: jobs of it at a time.
    """

    jobs: tuple[Job, ...]
    after: int | None = None
    behind: int | None = None
    at_once: int = 1


def arrays(
    title: str, tasks: list[Task], *, pack: int, split: bool, share: int, longest: int, at_once: int
) -> list[Array]:
    """The arrays of a launch, each behind those that it waits for.

    pack: tasks of one job, side by side. split: a job for each measurement, after its training's,
    and several for one of more than `share` images. longest: jobs of an array. at_once: jobs of all
    arrays of trainings at a time, and as many of all arrays of measurements.
    """
    first = _packed(title, [t for t in tasks if not split or t.needs_training], pack)
    alone = [] if not split else [t for t in tasks if not t.needs_training]
    if split:
        first = [Job(j.title, _parts(j.tasks, "training"), j.side_by_side) for j in first]
    followers = {id(j): _measuring(title, j.tasks, pack, share) if split else [] for j in first}
    # Those with most followers come first, so that the followers' i-th array belongs to the first
    # jobs, one by one.
    first.sort(key=lambda job: -len(followers[id(job)]))

    trainings, measurements = [], []
    for jobs in _chunks(first, longest):
        trainings.append(Array(tuple(jobs)))
        for i in range(max(len(followers[id(job)]) for job in jobs)):
            later = [followers[id(job)][i] for job in jobs if len(followers[id(job)]) > i]
            measurements.append(Array(tuple(later), after=len(trainings) - 1))
    rest = _chunks(_measuring(title, alone, pack, share), longest)
    measurements += [Array(tuple(jobs)) for jobs in rest]
    limited = _limited(trainings, at_once, 0)
    return limited + _limited(measurements, at_once, len(limited))


def _packed(title: str, tasks: list[Task], pack: int) -> list[Job]:
    return [Job(_name(title, some), tuple(some), pack) for some in _chunks(tasks, pack)]


def _parts(tasks: Iterable[Task], part: str) -> tuple[Task, ...]:
    return tuple(replace(task, part=part) for task in tasks)


def _measuring(title: str, tasks: Iterable[Task], pack: int, share: int) -> list[Job]:
    """Jobs for what is missing of the tasks' measurements."""
    single = []
    for task in _parts(tasks, "measurements"):
        for asked in task.missing:
            shared = in_parts(asked.settings)
            helpers = max(1, math.ceil(asked.settings.images / share)) if shared else 1
            words = f"{task.words} {asked.words}"
            one = replace(task, words=words, asked=(asked,), helping=helpers > 1)
            single += [one] * helpers
    return _packed(title, single, pack)


def _name(title: str, tasks: list[Task]) -> str:
    """Of a job: the grid, its first task and how many others."""
    words = re.sub(r"[^\w.=-]+", "-", tasks[0].words)
    return f"{title}:{words}" + (f"+{len(tasks) - 1}" if len(tasks) > 1 else "")


def _chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _limited(some: list[Array], at_once: int, offset: int) -> list[Array]:
    """The arrays with at_once shared out; where that is too few, one array waits for another.

    offset: of their numbers in the launch.
    """
    lanes = min(at_once, len(some))
    shares = [at_once // lanes + (lane < at_once % lanes) for lane in range(lanes)]
    return [
        replace(
            array,
            at_once=shares[i % lanes],
            behind=offset + i - lanes if i >= lanes else None,
        )
        for i, array in enumerate(some)
    ]
