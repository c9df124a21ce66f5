"""Which faults are injected: each a function of a seed and its number, all kinds about as often."""

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass

SIGNALS = {"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2, "SIGSTOP, SIGCONT": signal.SIGSTOP}
TARGETS = ("worker", "launcher", "both")
WRITES = ("half written", "before replace", "after replace")
RANDOM = "at a random time"

# Phase -> moments at which hook/sitecustomize.py can act.
INSIDE = {
    "claim": ("taken", "before it is given back", "given back"),
    "training": ("step",),
    "checkpoint": WRITES,
    "snapshot": WRITES,
    "log": WRITES,
    "record": WRITES,
    "likelihood": ("step",),
    "sampling": ("step",),
    "distance": ("step",),
    "part": WRITES,
    "arrays": WRITES,
    "measurement": WRITES,
    "statistics": WRITES,
    "table": WRITES,
    "figure": WRITES,
}
# As docs/reliability.md sums them up.
PLACES = dict.fromkeys(INSIDE, "measuring") | {
    "starting": "starting",
    "claim": "taking or giving back a claim",
    "training": "training",
    "sampling": "sampling",
    **dict.fromkeys(("checkpoint", "snapshot", "log", "record"), "writing checkpoints"),
    **dict.fromkeys(("part", "arrays", "measurement", "statistics"), "writing measurements"),
    **dict.fromkeys(("table", "figure"), "writing tables"),
}
OUTSIDE = ("starting", "training", "likelihood", "sampling", "table")


@dataclass(frozen=True)
class Fault:
    """A signal to a worker (or script), to the launcher, or to all processes of a launch.

    moment: what the process is doing, or RANDOM: `delay` seconds after the phase was seen to begin.
    skip: so often the moment passes first. rest: seconds from SIGSTOP to SIGCONT.
    """

    n: int
    signal: str
    target: str
    phase: str
    moment: str
    skip: int = 0
    delay: float = 0.0
    rest: float = 0.5

    @property
    def order(self) -> dict:
        """As hook/sitecustomize.py reads it."""
        number = int(SIGNALS[self.signal])
        return {key: getattr(self, key) for key in ("n", "phase", "moment", "skip", "target")} | {
            "number": number
        }


def faults(seed: int) -> Iterator[Fault]:
    """Without end; the phases and the pairs of signal and target come in shuffled turns."""
    numbers = random.Random(seed)
    inside = [(phase, moment) for phase, moments in INSIDE.items() for moment in moments]
    places = _turns(inside + 3 * [(phase, RANDOM) for phase in OUTSIDE], numbers)
    hows = _turns([(name, target) for name in SIGNALS for target in TARGETS], numbers)
    for n, ((phase, moment), (name, target)) in enumerate(zip(places, hows)):
        if moment == "half written":  # which is so only when the writer is killed
            name, target = "SIGKILL", "both" if target == "launcher" else target
        skip = numbers.randrange(8) if moment == "step" else 0
        yield Fault(
            n, name, target, phase, moment, skip, numbers.uniform(0, 0.4), numbers.uniform(0.2, 1)
        )


def _turns(things: list, numbers: random.Random) -> Iterator:
    while True:
        yield from numbers.sample(things, len(things))
