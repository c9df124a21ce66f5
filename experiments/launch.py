"""Running a grid on this machine: a pool of worker processes, cores / threads at a time."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

import torch

from core import build
from experiments.board import Board
from experiments.costs import task_costs
from experiments.execute import Task
from experiments.worker import main as worker_main

REST = 5.0  # seconds until a worker asks again whether it can help
NARROW = 64  # a network with fewer channels runs fastest on one core

# glibc reads these when a process starts. By default it gives freed activations back to the system
# and takes them anew at each step: 3,500 page faults, a tenth of a laptop-scale training step and a
# quarter of an evaluation of 128 images. Large pages are another twentieth of a step.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def cores() -> int:
    """Processor cores that this process may use: its affinity and, in a SLURM job, its share."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(there, int(os.environ.get("SLURM_CPUS_PER_TASK", there)))


@dataclass
class _Worker:
    """helps: with the measurements of a run that another worker has. stage: that it is in, "train"
    or a measurement's id, and `share` how much of its cost is done."""

    process: multiprocessing.Process
    pipe: Connection
    task: Task | None = None
    wait: str = "no"
    helps: bool = False
    stage: str = ""
    share: float = 0.0
    rests: float = 0.0  # until then it does not look for work of others


@dataclass
class Outcome:
    """What became of a launch."""

    done: int
    failed: dict[str, str]  # run, in words -> one line
    interrupted: bool


def set_allocator() -> None:
    """For processes that this one will start."""
    for key, value in ALLOCATOR.items():
        os.environ.setdefault(key, value)


def here(
    title: str,
    tasks: list[Task],
    on_done: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    workers: int | None = None,
    wait: str = "until done",
) -> Outcome:
    """Does all tasks with so many processes, or as the cores allow; survives the failure of one.

    `on_done` is called in this process after each, `stop` is asked every second. When it says so,
    and at Ctrl-C or SIGTERM, workers save and stop. wait: for runs that others work on, when all
    else is done (execute.Course).
    """
    housekeeping = tasks[0].housekeeping
    gpus = torch.cuda.device_count() if build.device(housekeeping).type == "cuda" else 0
    wide = any(task.config.unet.base >= NARROW for task in tasks)
    threads = housekeeping.threads or (cores() if wide and not gpus else 1)
    workers = min(workers or gpus or max(1, cores() // threads), len(tasks))
    if not housekeeping.threads and not gpus:
        threads = max(1, cores() // workers)
    return _Pool(title, tasks, on_done, stop, wait, workers, threads, gpus).run()


class _Pool:
    def __init__(self, title, tasks, on_done, stop, wait, workers: int, threads: int, gpus: int):
        self.context = multiprocessing.get_context("spawn")
        self.stopping = self.context.Event()
        self.threads, self.gpus, self.on_done, self.stop = threads, gpus, on_done, stop
        self.wait, self.signals = wait, 0
        self.queue = deque((task, "no") for task in tasks)
        self.costs: dict[str, dict[str, float]] = {}  # of what is not counted as finished, by run
        for task in tasks:  # several may be of one run
            self.costs.setdefault(task.run.id, {}).update(task_costs(task))
        total = sum(sum(costs.values()) for costs in self.costs.values())
        self.board = Board(title, total, range(workers))
        self.finished = 0.0
        self.outcome = Outcome(0, {}, False)
        set_allocator()
        self.workers = [self._start(i) for i in range(workers)]

    def _start(self, i: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(self.gpus)]
        gpu = names[i % self.gpus] if self.gpus else None
        arguments = (theirs, self.stopping, self.threads, gpu)
        process = self.context.Process(target=worker_main, args=arguments, daemon=True)
        # SLURM sends its warning to every process of a job, and who has no handler for it dies. The
        # workers inherit the mask, and are told by this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(process, ours)

    def run(self) -> Outcome:
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self.board:
                for i in range(len(self.workers)):
                    self._give(i)
                while any(worker.task for worker in self.workers):
                    self._listen()
                    if (self.signals or self.stop()) and not self.stopping.is_set():
                        self.stopping.set()
                        again = " (again to stop at once)" if self.signals else ""
                        self.board.say(f"stopping: each worker saves its run first{again}")
        finally:
            for worker in self.workers:
                self._dismiss(worker)
            for number, handler in previous.items():
                signal.signal(number, handler)
        self.outcome.interrupted |= self.stopping.is_set() or self.signals > 0
        return self.outcome

    def _on_signal(self, number, frame) -> None:
        """The first time the loop begins to stop, the second time all ends at once."""
        self.signals += 1
        if self.signals > 1:
            for worker in self.workers:
                worker.process.kill()
            raise KeyboardInterrupt

    def _give(self, i: int) -> None:
        """The next task to worker i, if there is one; else a part of what another one does."""
        worker = self.workers[i]
        worker.task, worker.stage, worker.share, worker.helps = None, "", 0.0, False
        if not self.signals and not self.stopping.is_set():
            if self.queue:
                worker.task, worker.wait = self.queue.popleft()
            elif time.monotonic() >= worker.rests and (shared := self._shared()):
                worker.task, worker.wait, worker.helps = shared, "no", True
        if worker.task:
            with contextlib.suppress(OSError):  # it was killed meanwhile, as `_listen` will see
                worker.pipe.send((worker.task, worker.wait))
        else:
            self.board.idle(i)

    def _shared(self) -> Task | None:
        """The measurements of a trained run of which more are missing than workers are at it."""
        busy = [worker.task for worker in self.workers if worker.task]
        for task in busy:
            at_it = sum(other.run.id == task.run.id for other in busy)
            if task.part != "training" and len(task.missing) > at_it and not task.needs_training:
                return replace(task, part="measurements")
        return None

    def _listen(self) -> None:
        """Waits for the next answer of any worker, or its death."""
        channels = {w.pipe: i for i, w in enumerate(self.workers) if w.task}
        channels |= {w.process.sentinel: i for i, w in enumerate(self.workers) if w.task}
        ready = wait(list(channels), timeout=1.0)
        for i in {channels[channel] for channel in ready}:
            worker = self.workers[i]
            try:
                if worker.pipe.poll():
                    self._answer(i, worker.pipe.recv())
                elif not worker.process.is_alive():
                    self._died(i)
            except (EOFError, OSError):  # the latter in the middle of an answer
                self._died(i)
        for i, worker in enumerate(self.workers):
            if worker.task is None:
                self._give(i)
        self.board.progress(self.finished + self._partly())

    def _partly(self) -> float:
        """What is done of the tasks that workers have: whole stages, and parts of others."""
        done = 0.0
        for task in {w.task.run.id: w.task for w in self.workers if w.task}.values():
            for stage, cost in self.costs[task.run.id].items():
                there = task.run.trained if stage == "train" else task.run.has(stage)
                mine = (w for w in self.workers if w.task and w.task.run.id == task.run.id)
                share = sum(w.share for w in mine if w.stage == stage)
                done += cost if there else min(cost, cost * share)
        return done

    def _stage(self, task: Task, name: str) -> str:
        """The stage that a worker reports by its words: of several so called, the one not done."""
        if name == "train":
            return name
        return next((asked.id for asked in task.missing if asked.words == name), "")

    def _answer(self, i: int, answer: tuple) -> None:
        worker = self.workers[i]
        name = worker.task.words
        if answer[0] == "report":
            _, stage, done, total, words = answer
            self.board.worker(i, name, stage, done, total, words)
            stage = self._stage(worker.task, stage)
            worker.stage, worker.share = stage, done / max(total, 1)
            return
        if worker.helps and answer[0] in ("done", "busy"):
            # Who has the task says what became of it; what is left of it others have, for now.
            worker.rests = time.monotonic() + REST
        elif answer[0] == "busy" and worker.wait == "no":
            self.queue.append((worker.task, self.wait))
        elif answer[0] == "interrupted":
            self.outcome.interrupted = True
            if not self.signals and not self.stopping.is_set():
                # It alone was told to end, and would stop in whatever it is given.
                self._dismiss(worker)
                self.workers[i] = self._start(i)
        else:
            self._count(worker)
            if answer[0] == "done":
                self.outcome.done += 1
                self.board.say(f"{name}: done")
            elif answer[0] == "busy":
                self.board.say(f"{name}: others work on it")
            else:
                _, message, fails_all = answer
                self._failed(name, message)
                if fails_all:
                    self.queue.clear()
            self.on_done()
        self._give(i)

    def _count(self, worker: _Worker) -> None:
        """What its task has cost is finished, unless another worker has that task."""
        if not worker.helps:
            costs = self.costs[worker.task.run.id]
            stages = ("train", *(asked.id for asked in worker.task.asked))
            self.finished += sum(costs.pop(stage, 0.0) for stage in stages)

    def _failed(self, name: str, message: str) -> None:
        self.outcome.failed[name] = message
        self.board.say(f"{name}: FAILED")

    def _died(self, i: int) -> None:
        """A worker killed from outside, by the system for want of memory for instance."""
        worker = self.workers[i]
        worker.process.join()
        code = worker.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        if not self.signals and not self.stopping.is_set():
            self._count(worker)
            name, rests = worker.task.words, 0.0
            if worker.helps:  # what it had is left to the worker that has the task
                self.board.say(f"{name}: a process that helped died ({how})")
                rests = time.monotonic() + REST
            else:
                self._failed(name, f"its process died ({how}); the same command continues it")
            self.workers[i] = self._start(i)
            self.workers[i].rests = rests
        self._give(i)

    def _dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError, ValueError):
            worker.pipe.send(None)
        worker.process.join(timeout=10)
        if worker.process.is_alive():
            worker.process.kill()
