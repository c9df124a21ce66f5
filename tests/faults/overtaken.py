"""A worker that is stopped for longer than its claim lives, until another machine has its work."""

import time
from collections import deque
from pathlib import Path

from compare import differences
from interruptions import LAUNCH, Grid, Round
from orders import Fault
from programs import end, end_all

# Where it is stopped; not in the middle of a last write, which it ends with the same content.
CASES = (("training", "step"), ("checkpoint", "before replace"), ("sampling", "step"))


def stopped_beyond_silence(grid: Grid, results: Path, fault: Fault, silence: float) -> Round:
    """A worker is stopped until another machine has taken its work over, then continued.

    The other machine is a launch on this one that cannot see the first one's processes.
    """
    round = Round(grid, results, deque([fault]), 1)
    variables = {"SILENCE": str(silence)}
    first = grid.start(results, 0, MACHINE="one", **variables)
    round._order(fault)
    deadline = time.monotonic() + LAUNCH
    while not round.records and time.monotonic() < deadline and first.poll() is None:
        round._see_what_fired()
        time.sleep(0.02)
    round.launches += [first, grid.start(results, 1, MACHINE="other", **variables)]
    try:
        codes = [end(round.launches[1], LAUNCH)[0]]
        round._continue(always=True)
        codes.append(end(first, LAUNCH)[0])
        if codes != [0, 0]:
            round.wrong.append(f"exit codes {codes}: {first.files[1].read_text()}")
    finally:
        round._continue(always=True)
        end_all(round.launches)
    end(grid.start(results, 2, MACHINE="one", **variables), LAUNCH)  # which tidies up
    round.wrong += differences(results, grid.alone)
    round.wrong += round._finished_twice()
    for record in round.records:
        record |= {
            "fault": f"SIGSTOP for longer than a claim lives ({silence:g} s here)",
            "outcome": "another launch took over; the stopped one wrote nothing more",
            "lost": "; ".join(round.wrong) or "nothing",
        }
    return round
