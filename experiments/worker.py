"""A worker process: takes tasks from a pipe, reports on it, and stops when told or orphaned."""

import contextlib
import os
import signal
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

REPORT_EVERY = 0.2  # seconds; a step of a small network is shorter


def main(pipe: Connection, stopping: Event, threads: int, gpu: str | None) -> None:
    """Executes (task, wait) pairs until None comes. Answers with tuples that begin with a word.

    ("report", stage, done, total, words) on the way; ("done" | "busy" | "interrupted",) or
    ("failed", message, whether it would fail the other tasks too) at the end of each task.
    """
    # Ctrl-C reaches the whole process group; only the launcher acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = []  # a plain object: the event has a lock, which a handler may find taken
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    parent = os.getppid()

    import torch  # late: the environment above must be set first

    from core.errors import DiskFull, Refused
    from core.training import Interrupted
    from experiments.execute import execute
    from experiments.stages import Course

    torch.set_num_threads(threads)
    reported = 0.0

    def stop() -> bool:
        return bool(told) or stopping.is_set() or os.getppid() != parent

    def report(stage: str, done: int, total: int, words: str) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_EVERY or done in (0, total):
            reported = time.monotonic()
            tell("report", stage, done, total, words)

    def tell(*answer) -> None:
        with contextlib.suppress(OSError):  # the launcher was killed, as `stop` will say
            pipe.send(answer)

    def order() -> tuple | None:
        with contextlib.suppress(EOFError, OSError):
            return pipe.recv()

    while (given := order()) is not None:
        task, wait = given
        try:
            answer = (execute(task, Course(report, stop, wait)),)
        except Interrupted:
            answer = ("interrupted",)
        except Refused as error:
            answer = ("failed", str(error), isinstance(error, DiskFull))
        except Exception as error:
            traceback.print_exc()
            answer = ("failed", f"{type(error).__name__}: {error}", False)
        tell(*answer)
