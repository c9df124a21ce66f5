"""Starts programs by forking a process that has everything imported: in no time instead of seconds.

    python warm.py        one line of JSON on stdin for each program: argv, cwd, env, out, err

answers with a line: its process id. When it ends its exit code is in the file `out`.exit. What a
program does is as ever, but that its workers and scripts are forked too. Nothing has been computed
before the fork, so that there are no threads that would be lacking after it.
"""

import contextlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOOK = HERE / "hook"


class Warm:
    """The process that is forked; `start` is as programs.started."""

    def __init__(self):
        path = os.pathsep.join([str(HOOK), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "warm.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"PYTHONPATH": path, "FAULTS": "/", "OMP_NUM_THREADS": "1"}
            | {"COLUMNS": "500"},
        )

    def start(self, folder: Path, number: int, program: Path, *words: str, **variables: str):
        files = folder / f"out{number}", folder / f"err{number}"
        asked = {"argv": [str(program), *words], "cwd": str(folder), "env": variables}
        asked |= {"out": str(files[0]), "err": str(files[1])}
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        return Forked(int(self.server.stdout.readline()), files)

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


class Forked:
    """As subprocess.Popen, of a process that another one has forked."""

    def __init__(self, pid: int, files: tuple[Path, Path]):
        self.pid, self.files = pid, files
        self.code = files[0].with_name(files[0].name + ".exit")

    def poll(self) -> int | None:
        return int(self.code.read_text()) if self.code.exists() else None

    def wait(self, timeout: float = 1200) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked program", timeout)
            time.sleep(0.02)
        return code


class Script:
    """As subprocess.Popen of a script, for experiments/scripts.py."""

    def __init__(self, command: list[str], stdout=None, stderr=None):
        sys.stdout.flush()
        self.pid, self.returncode = os.fork(), None
        if self.pid == 0:
            for number in (signal.SIGINT, signal.SIGTERM):
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
            if stdout is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1), os.dup2(nowhere, 2)
            multiprocessing.process._children.clear()  # which are the launcher's
            run_and_exit(command[1:])

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, how: int = 0) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    @classmethod
    def run(cls, command: list[str]) -> "Script":
        script = cls(command)
        script.wait()
        return script


def run_and_exit(argv: list[str]) -> None:
    """Runs a script in this forked process as Python would, and ends it."""
    sys.argv, code = argv, 1
    try:
        runpy.run_path(argv[0], run_name="__main__")
        for process in multiprocessing.active_children():  # as at the end of any program
            process.terminate()
            process.join()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:  # whatever happens it does not go on as a copy of its parent
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def become(asked: dict) -> None:
    """In the forked process: the program that was asked for."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nowhere, *map(created, (asked["out"], asked["err"])))):
        os.dup2(file, number)
    os.chdir(asked["cwd"])
    os.environ.update(asked["env"])
    sys.modules["sitecustomize"].settle()
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method: context
    launch = sys.modules["experiments.launch"]
    launch.worker_main = partial(with_its_pipe_alone, launch.worker_main)
    scripts = sys.modules["experiments.scripts"]
    quiet = {"DEVNULL": subprocess.DEVNULL, "Popen": Script, "run": Script.run}
    scripts.subprocess = type("subprocess", (), quiet)
    run_and_exit(asked["argv"])


def with_its_pipe_alone(work, pipe, *rest) -> None:
    """A worker, without the pipes to others that it was forked with: they would outlive all."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{name}")
            if kind.startswith("socket:") and int(name) != pipe.fileno():
                os.close(int(name))
    work(pipe, *rest)


def created(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def serve() -> None:
    """Until stdin ends."""
    import experiments.execute
    import experiments.launch
    import experiments.run  # noqa: F401

    running: dict[int, str] = {}

    def reap(*_) -> None:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                path = Path(f"{running.pop(pid)}.exit")
                path.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
                os.rename(path.with_suffix(".new"), path)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        asked = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            become(asked)
        running[pid] = asked["out"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


if __name__ == "__main__":
    serve()
