"""Faults from within: a process sends a signal to itself, or to who started it, in mid-action.

Python imports this module at its start when its folder is on PYTHONPATH, so that the launcher, its
workers and the scripts all have it. It does nothing without the variable FAULTS, a folder:

  order-*.json   what is to happen next time that something is done: phase, moment, skip (so many
                 times before), number (of the signal), target; the first process to come takes it
  journal.jsonl  a line for each order carried out, for each stage of a run that is finished, and
                 for each worker and script that begins

GRIDS is where the grids are, also for the scripts. MACHINE makes a machine of that name of this
one, and SILENCE is how long others are waited for.
"""

import functools
import glob
import importlib.machinery
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

# Of the path that a file is to have: in which phase it is written.
WRITTEN = {
    r"checkpoints/checkpoint-": "checkpoint",
    r"checkpoints/snapshot-": "snapshot",
    r"/log\.jsonl$": "log",
    r"/(config|provenance)\.json$|/trained$": "record",
    r"\.part/\d+-\d+\.npz$": "part",
    r"measurements/\w+\.npz$": "arrays",
    r"measurements/\w+\.json$": "measurement",
    r"/progress[^/]*$": "progress",
    r"/tables/": "table",
    r"/figures/": "figure",
    r"/cache/": "statistics",
}
FINISHED = re.compile(r"/trained$|measurements/\w+\.json$")
seen = Counter()
os_replace, os_link, os_unlink = os.replace, os.link, os.unlink


def note(**what) -> None:
    """A line of the journal, written at once."""
    line = (json.dumps(what | {"pid": os.getpid()}) + "\n").encode()
    file = os.open(f"{os.environ['FAULTS']}/journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line)
    os.close(file)


def happens(phase: str, moment: str, unfinished: str | None = None) -> None:
    """Carries out an order for this phase and moment, if there is one."""
    for path in glob.glob(f"{os.environ['FAULTS']}/order-*.json"):
        try:
            order = json.loads(Path(path).read_text())
        except (OSError, ValueError):
            continue  # another process has just taken it
        if (order["phase"], order["moment"]) != (phase, moment):
            continue
        seen[path] += 1
        if seen[path] <= order["skip"]:
            continue
        try:
            os.rename(path, path.replace("order-", "taken-"))
        except OSError:
            continue
        carry_out(order, unfinished)


def carry_out(order: dict, unfinished: str | None) -> None:
    me, parent = os.getpid(), os.getppid()
    if os.getsid(parent) != os.getsid(me):  # this is the launcher, which tidies up
        parent = me
    targets = {"worker": [me], "launcher": [parent], "both": [parent, me]}[order["target"]]
    note(fired=order["n"], targets=targets)
    if unfinished is not None:  # as it is in the middle of a write
        os.truncate(unfinished, os.stat(unfinished).st_size // 2)
    for pid in targets:
        os.kill(pid, order["number"])
    if order["number"] == signal.SIGKILL and unfinished is not None:
        time.sleep(60)  # does not come back


def phase_of(path: str) -> str | None:
    return next((phase for words, phase in WRITTEN.items() if re.search(words, path)), None)


def replace(source, target, **how) -> None:
    phase = phase_of(str(target))
    if phase:
        happens(phase, "half written", str(source))
        happens(phase, "before replace")
    os_replace(source, target, **how)
    if FINISHED.search(str(target)):
        note(finished=str(target))
    if phase:
        happens(phase, "after replace")


def link(source, target, **how) -> None:
    os_link(source, target, **how)
    happens("claim", "taken")


def unlink(path, **how) -> None:
    mine = os.path.basename(path).startswith("owner")
    if mine:
        happens("claim", "before it is given back")
    os_unlink(path, **how)
    if mine:
        happens("claim", "given back")


def before(name: str, first):
    """A change of a module: what is called so begins with `first`, a function of nothing."""

    def change(module) -> None:
        owner, _, last = name.rpartition(".")
        owner = getattr(module, owner) if owner else module
        do = getattr(owner, last)

        @functools.wraps(do)
        def done(*given, **named):
            first()
            return do(*given, **named)

        setattr(owner, last, done)

    return change


def sampling(module) -> None:
    do = module.ancestral

    def ancestral(*given, on_step=lambda: None, **named):
        return do(*given, on_step=lambda: (happens("sampling", "step"), on_step()), **named)

    module.ancestral = ancestral


def configured(module) -> None:
    """A module as the variables say."""
    name = module.__name__
    if name == "experiments.claims" and "SILENCE" in os.environ:
        module.SILENCE = float(os.environ["SILENCE"])
        module.BEAT = module.SILENCE / 6
    if name in ("experiments.claims", "core.files") and "MACHINE" in os.environ:
        module.here = lambda: [os.environ["MACHINE"]]
    if name == "experiments.grid" and "GRIDS" in os.environ:
        module.HERE = Path(os.environ["GRIDS"])


def settle() -> None:
    """Configures what was imported before the variables were set; for processes that are forked."""
    for name in ("core.files", "experiments.claims", "experiments.grid"):
        configured(sys.modules[name])


def program_begins() -> None:
    note(role="script" if "/analysis/" in sys.argv[0] else "launcher")


CHANGES = {
    "experiments.grid": configured,
    "core.trainer": before("Trainer.one_step", lambda: happens("training", "step")),
    "core.diffusion.samplers": sampling,
    "core.diffusion.likelihood": before("bound_terms", lambda: happens("likelihood", "step")),
    "core.metrics.distances": before("frechet", lambda: happens("distance", "step")),
    "core.files": configured,
    "experiments.worker": before("main", lambda: note(role="worker")),
    "core.command": before("start", program_begins),
    "experiments.claims": configured,
}


class Changing:
    """Finds the modules of CHANGES as ever, and changes them once they are loaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module) -> None:
            load(module)
            CHANGES[name](module)

        spec.loader.exec_module = exec_module
        return spec


if "FAULTS" in os.environ:
    os.replace, os.link, os.unlink = replace, link, unlink
    sys.meta_path.insert(0, Changing)
