"""What people see while a grid runs: a line per worker and one for the whole, with an ETA.

On a terminal the lines stay in place; elsewhere (a log file, CI) a line is printed when a run
begins or ends a stage, and a summary now and then.
"""

import time
from collections.abc import Hashable, Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Board:
    """The display of one launch. `total` is its work, in the unit that `progress` is told.

    workers: keys of the lines that are there from the beginning; others come when they are used.
    """

    EVERY = 30.0  # seconds between two summaries where there is no terminal

    def __init__(self, title: str, total: float, workers: Iterable[Hashable] = ()):
        self.total, self.done, self.began = max(total, 1e-9), 0.0, None
        self._printed = self._told = 0.0  # when a summary, and what comes last, was said
        self.title = title
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal
        self._stages: dict[Hashable, tuple[str, str]] = {}
        if self.live:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[words]}", markup=False),
                console=self.console,
                refresh_per_second=5,
            )
            self._whole = self._bars.add_task(title, total=self.total, words="")
            self._lines = {
                key: self._bars.add_task("", total=1, words="starting") for key in workers
            }

    def __enter__(self) -> "Board":
        if self.live:
            self._bars.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.live:
            self._bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def worker(
        self, key: Hashable, name: str, stage: str, done: int, total: int, words: str
    ) -> None:
        """What a worker does now."""
        if self.live:
            share = f"{stage} {100 * done / max(total, 1):.0f} %  {words}"
            if key not in self._lines:
                self._lines[key] = self._bars.add_task("", total=1, words="")
            self._bars.update(
                self._lines[key], description=name, total=total, completed=done, words=share
            )
        elif self._stages.get(key) != (name, stage):
            self._stages[key] = name, stage
            self.say(f"{name}: {stage}")
        elif done >= total and words and time.monotonic() - self._told > self.EVERY:
            # What comes after everything that is counted, such as features of a whole data set.
            self._told = time.monotonic()
            self.say(f"{name}: {stage}: {words}")

    def idle(self, key: Hashable) -> None:
        """The worker has nothing left to do."""
        if self.live:
            self._bars.update(self._lines[key], description="", completed=0, words="idle")

    def gone(self, key: Hashable) -> None:
        """The worker has ended, and its line goes."""
        self._stages.pop(key, None)
        if self.live and key in self._lines:
            self._bars.remove_task(self._lines.pop(key))

    def progress(self, done: float, words: str = "") -> None:
        """Work done so far in this launch."""
        if self.began is None and done > 0:
            self.began, self._first = time.monotonic(), done
        self.done = done
        text = f"{100 * done / self.total:.0f} %  {self.eta()}" + (f"  {words}" if words else "")
        if self.live:
            self._bars.update(self._whole, completed=done, words=text)
        elif time.monotonic() - self._printed > self.EVERY:
            self._printed = time.monotonic()
            self.say(f"{self.title}: {text}")

    def eta(self) -> str:
        """Time left at the rate so far; what comes after all that is counted has none."""
        if self.done >= self.total:
            return "finishing"
        if self.began is None or time.monotonic() - self.began < 3 or self.done <= self._first:
            return "estimating the time left"
        rate = (self.done - self._first) / (time.monotonic() - self.began)
        return f"{duration((self.total - self.done) / rate)} left"
