"""A small grid, interrupted again and again, and continued by the same command until it is done."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from compare import differences, finished
from orders import PLACES, RANDOM, SIGNALS, Fault
from programs import ROOT, RUN, THREE_ROWS, end, end_all, program, started
from warm import HOOK

PENDING = 4  # faults that wait at a time, each for its moment
LAUNCH = 1200  # seconds after which a launch counts as hanging; cores may be busy
GRID = THREE_ROWS.replace("metric: nll}", "metric: nll}, fd: {metric: frechet}") + (
    "analysis: [table_rows]\n"
)
WORDS = (
    *("grid=three_rows", "scale=smoke", "device=cpu", "threads=1", "log_every=1"),
    *("optim.steps=12", "checkpoint_seconds=0.05", "measure.fd.images=66", "eval_batch=16"),
    *("measure.fd.sampler.steps=4", "measure.fd.reference=test", "measure.nll.steps=5"),
)
# What a launch may say when it ends though somebody interfered.
USUAL = ("its process died", "interrupted; the same command continues", "a script failed")


class Grid:
    """The program and its grid in a folder, and what becomes of it undisturbed."""

    def __init__(
        self,
        folder: Path,
        grid: str = GRID,
        words: tuple[str, ...] = WORDS,
        how: Callable[..., subprocess.Popen] = started,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.words, self.how = words, how
        self.grids = program(folder, three_rows=grid).parent
        self.alone = folder / "alone"
        code, _, err = end(self.start(self.alone, 0), LAUNCH)
        if code:
            raise RuntimeError(f"the undisturbed command failed: {err}")
        measurements = [p for p in self.alone.glob("runs/*/measurements/*.json")]
        self.metric = {p.stem: json.loads(p.read_text())["metric"] for p in measurements}

    def start(self, results: Path, number: int, **variables: str) -> subprocess.Popen:
        """The command with this results folder; faults are injected into it from within."""
        results.mkdir(exist_ok=True)
        faults = results.with_name(f"{results.name}.faults")
        faults.mkdir(exist_ok=True)
        (faults / "journal.jsonl").touch()
        path = os.pathsep.join([str(HOOK), str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables |= {"FAULTS": str(faults), "GRIDS": str(self.grids), "PYTHONPATH": path}
        words = (*self.words, f"results={results}")
        return self.how(faults, number, RUN, *words, **variables)


@dataclass
class Round:
    """A results folder from nothing to its end, with `limit` faults on the way.

    records: what was injected, as docs/reliability.md tells it. wrong: what must not have been.
    """

    grid: Grid
    results: Path
    deck: deque[Fault]
    limit: int
    records: list[dict] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    launches: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self):
        self.faults = self.results.with_name(f"{self.results.name}.faults")
        self.pending: dict[int, Fault] = {}
        self.seen_since: dict[int, float] = {}  # of faults from outside: when their phase began
        self.stopped: list[tuple[float, list[int]]] = []  # until when, processes
        self.roles: dict[int, str] = {}  # of processes: worker or script
        self.read = self.hit = 0  # lines of the journal; faults of this launch

    def run(self) -> "Round":
        """Goes through it; `wrong` is empty when nothing was lost."""
        try:
            while not self._launch():
                pass
            for process in self.launches:  # workers whose launcher was killed save what they have
                self._wait_for(process.pid)
            code, out, err = end(self.grid.start(self.results, len(self.launches)), LAUNCH)
            if code or "nothing to do" not in out:
                self.wrong.append(f"something was still to do: {out}{err}")
        except TimeoutError as error:
            self.wrong.append(str(error))
        finally:
            self._continue(always=True)
            end_all(self.launches)
            self.deck.extendleft(self.pending.values())
        self.wrong += differences(self.results, self.grid.alone)
        self.wrong += self._finished_twice()
        for record in self.records:
            record["lost"] = "nothing" if not self.wrong else "; ".join(self.wrong)
        return self

    def _launch(self) -> bool:
        """Starts the command and disturbs it until it ends; whether all is done."""
        process = self.grid.start(self.results, len(self.launches))
        self.launches.append(process)
        self.hit, deadline = 0, time.monotonic() + LAUNCH
        while process.poll() is None:
            while self.deck and len(self.pending) < min(PENDING, self.limit - len(self.records)):
                self._order(self.deck.popleft())
            self._see_what_fired()
            self._from_outside(process)
            self._continue()
            if time.monotonic() > deadline:
                raise TimeoutError(f"a launch did not end in {LAUNCH} s")
            time.sleep(0.02)
        self._see_what_fired()
        code, out, err = end(process)
        for record in self.records[len(self.records) - self.hit :]:
            record["outcome"] = "continued by the same command" if code else "went on"
        killed = code < 0 or code == 130
        if (not self.hit and code) or (code and not killed and not any(u in err for u in USUAL)):
            self.wrong.append(f"exit code {code}: {err.strip().splitlines()[-1:]}")
        if "Traceback" in out + err:
            self.wrong.append(f"a traceback in {process.files[1]}")
        if self.wrong and code:
            raise TimeoutError("the same command does not continue")
        return code == 0

    def _order(self, fault: Fault) -> None:
        self.pending[fault.n] = fault
        if fault.moment != RANDOM:
            path = self.faults / f"order-{fault.n:04d}.json"
            path.with_suffix(".new").write_text(json.dumps(fault.order))
            os.rename(path.with_suffix(".new"), path)

    def _see_what_fired(self) -> None:
        lines = (self.faults / "journal.jsonl").read_text().splitlines()
        for line in map(json.loads, lines[self.read :]):
            if "role" in line:
                self.roles[line["pid"]] = line["role"]
            if "fired" in line:
                self._fired(self.pending[line["fired"]], line["targets"])
        self.read = len(lines)

    def _fired(self, fault: Fault, targets: list[int]) -> None:
        del self.pending[fault.n]
        self.hit += 1
        where = {"where": PLACES[fault.phase], "target": fault.target}
        moment = {"n": fault.n, "moment": f"{fault.phase}, {fault.moment}"}
        self.records.append({"fault": fault.signal} | where | moment | {"outcome": "hung"})
        if "STOP" in fault.signal:
            self.stopped.append((time.monotonic() + fault.rest, targets))

    def _from_outside(self, process: subprocess.Popen) -> None:
        """Sends the signals whose phase is under way, at their time."""
        for fault in [f for f in self.pending.values() if f.moment == RANDOM]:
            found, now = self._workers(process.pid).get(fault.phase), time.monotonic()
            if found is None:
                self.seen_since.pop(fault.n, None)
            elif now - self.seen_since.setdefault(fault.n, now) > fault.delay:
                targets = {
                    "worker": [found],
                    "launcher": [process.pid],
                    "both": _group(process.pid),
                }[fault.target]
                for pid in targets:
                    _send(pid, SIGNALS[fault.signal])
                self._fired(fault, targets)

    def _workers(self, launcher: int) -> dict[str, int]:
        """The phases that are under way, each with a process that is at it."""
        members, found = _group(launcher), {}
        for path in self.results.glob("runs/*/owner*.json"):
            try:
                pid = json.loads(path.read_text())["pid"]
            except (OSError, ValueError):
                continue
            stage = path.name.split(".")[1]
            metric = self.grid.metric.get(stage)
            phase = {None: "training", "nll": "likelihood", "frechet": "sampling"}[metric]
            if pid in members:
                found[phase] = pid
        roles = {self.roles[pid]: pid for pid in members if pid in self.roles}
        if "script" in roles:
            found["table"] = roles["script"]
        if not found:
            found["starting"] = roles.get("worker", launcher)
        return found

    def _continue(self, always: bool = False) -> None:
        """SIGCONT to those that were stopped for long enough."""
        for entry in list(self.stopped):
            until, targets = entry
            if always or time.monotonic() > until:
                for pid in targets:
                    _send(pid, signal.SIGCONT)
                self.stopped.remove(entry)

    def _finished_twice(self) -> list[str]:
        times = finished(self.faults / "journal.jsonl")
        return [f"{stage}: finished {n} times" for stage, n in times.items() if n > 1]

    def _wait_for(self, group: int) -> None:
        deadline = time.monotonic() + LAUNCH
        while _group(group):
            self._continue()
            if time.monotonic() > deadline:
                raise TimeoutError("processes of a killed launch do not end")
            time.sleep(0.05)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


def _group(leader: int) -> list[int]:
    """The processes of a launch that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append(int(name))
    return found
