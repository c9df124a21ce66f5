"""Interrupts small grids again and again, and sees that nothing is lost.

    python tests/faults [faults=200] [hours=H] [seed=0] [lanes=2] [launchers=20] [cold=4]

  faults=N      ends after so many interruptions
  hours=H       or after so many hours; both: whichever comes first
  seed=N        which faults come in which order; the same again with the same seed
  lanes=N       grids at a time, each on a core of its own; in the last fifth of the campaign one
                grid has all cores, so that its workers help each other
  launchers=N   so many launches on a grid of 30 cells at the same time, once; 0: none
  cold=N        each N-th round and what is left alone start their processes as people do, the
                others fork them from one that has everything imported (warm.py); 0: fork all
  folder=FOLDER where everything is kept (default: a temporary folder, kept if anything is lost)

Writes tests/faults/records/interruptions.jsonl and the table of docs/reliability.md. The exit code
is 1 if anything was lost, doubled or changed.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]

import overtaken  # noqa: E402
import records  # noqa: E402
import together  # noqa: E402
from interruptions import Grid, Round  # noqa: E402
from orders import Fault, faults  # noqa: E402
from programs import started  # noqa: E402
from warm import Warm  # noqa: E402

from experiments.board import duration  # noqa: E402

OF_ROUND = 12  # faults until a grid may come to its end
ALONE = 0.8  # share of the campaign in which each grid has a core of its own, and one worker


@dataclass
class Soak:
    """One run of the whole."""

    folder: Path
    wanted: int
    hours: float
    seed: int
    cold: int
    began: float = field(default_factory=time.monotonic)
    records: list[dict] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lane(
        self, number: int, lanes: int, grid: Grid, rounds: Iterator[int], share: float
    ) -> None:
        """Rounds until this share of the campaign is done; of several lanes each has one core,
        where the system can keep a thread to it."""
        if lanes > 1 and hasattr(os, "sched_setaffinity"):
            mine = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {mine[number % len(mine)]})
        seed = self.seed if share < 1 else self.seed + 1
        turn, deck = islice(faults(seed), number, None, lanes), deque()
        server, quick = Warm(), copy(grid)
        quick.how = server.start
        try:
            while (left := self.left(share)) > 0:
                deck.extend(islice(turn, max(0, OF_ROUND + 4 - len(deck))))
                limit, n = min(OF_ROUND, -(-left // lanes)), next(rounds)
                how = grid if self.cold and n % self.cold == self.cold - 1 else quick
                self.add(Round(how, self.folder / f"round{n}", deck, limit).run())
        finally:
            server.close()

    def left(self, share: float) -> int:
        """Interruptions that are still to come of this share of them all."""
        over = time.monotonic() - self.began > 3600 * self.hours * share
        return 0 if over else round(self.wanted * share) - len(self.records)

    def add(self, round: Round) -> None:
        """Keeps what a round has found, and removes its folder if that is nothing."""
        with self.lock:
            self.records += round.records
            self.wrong += round.wrong
            if round.wrong:
                print(f"{round.results}: {'; '.join(round.wrong)}", file=sys.stderr)
            else:
                for path in (round.results, round.faults):
                    shutil.rmtree(path, ignore_errors=True)
            spent, n = time.monotonic() - self.began, len(self.records)
            left = min(spent / max(n, 1) * (self.wanted - n), 3600 * self.hours - spent)
            of = f"of {self.wanted} " if self.wanted < sys.maxsize else ""
            print(
                f"{n} {of}interruptions, {spent / max(n, 1):.1f} s each; "
                f"{len(self.wrong)} wrong; {duration(max(left, 0))} left",
                file=sys.stderr,
            )

    def write(self) -> None:
        """What has come of it: the records, and the table of the page."""
        path = HERE / "records" / "interruptions.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))
        records.PAGE.write_text(records.with_tables(records.PAGE.read_text()))


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    if {"-h", "--help", "help"} & set(words):
        print(__doc__.strip())
        return 0
    given = {
        "faults": 200,
        "hours": 24.0,
        "seed": 0,
        "lanes": 2,
        "launchers": 20,
        "cold": 4,
        "folder": "",
    }
    for word in words:
        key, _, value = word.partition("=")
        try:
            given[key] = type(given[key])(value)
        except (KeyError, ValueError):
            print(f"error: '{word}': --help shows the words that there are", file=sys.stderr)
            return 2
    if any(word.startswith("hours=") for word in words) and not any(
        word.startswith("faults=") for word in words
    ):
        given["faults"] = sys.maxsize
    folder = Path(given["folder"] or tempfile.mkdtemp(prefix="soak.")).absolute()
    soak = Soak(folder, given["faults"], given["hours"], given["seed"], given["cold"])
    print(f"in {folder}; first the same undisturbed", file=sys.stderr)
    server = Warm()
    grid = Grid(folder / "small", how=started if given["cold"] else server.start)
    soak.began, rounds = time.monotonic(), count()
    with ThreadPoolExecutor(given["lanes"]) as pool:
        everyone = range(given["lanes"])
        rest = (len(everyone), grid, rounds, ALONE)
        lanes = [pool.submit(soak.lane, i, *rest) for i in everyone]
    for lane in lanes:
        lane.result()
    soak.lane(0, 1, grid, rounds, 1.0)
    grid.how = server.start
    for n, (phase, moment) in enumerate(overtaken.CASES):
        fault = Fault(n, "SIGSTOP, SIGCONT", "worker", phase, moment)
        soak.add(overtaken.stopped_beyond_silence(grid, folder / f"stopped{n}", fault, silence=6.0))
    if given["launchers"]:
        soak.wrong += many_at_once(soak, given["launchers"])
    server.close()
    soak.write()
    print(records.table(soak.records))
    if soak.wrong:
        print(f"error: {len(soak.wrong)} things are wrong; see {folder}", file=sys.stderr)
        return 1
    if not given["folder"]:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def many_at_once(soak: Soak, launchers: int) -> list[str]:
    """Launchers on the same thirty cells; what is wrong."""
    seeds = f"seeds=[{','.join(map(str, range(10)))}]"
    grid = Grid(soak.folder / "thirty", together.GRID, (*together.WORDS, seeds))
    wrong = together.together(grid, soak.folder / "together", launchers)
    soak.records.append(
        {
            "fault": f"{launchers} launches of the same 30 cells at the same time",
            "where": "everywhere",
            "target": "all",
            "outcome": "each run trained and measured once, one table",
            "lost": "; ".join(wrong) or "nothing",
        }
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
