"""Peak memory of a training step at the paper's networks: python -m benchmarks.memory JSON.

Each case runs in a process of its own, whose peak is what the system says it was.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.lines import Line
from experiments.overrides import ROOT

CASES = {
    "plain": {},
    "microbatches of a quarter": {"quarter": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "both": {"quarter": True, "gradient_checkpointing": True},
}


def measure(network: str, batch: int, threads: int) -> Iterator[Line]:
    """Peak of each case, in GiB, and the time of its step."""
    yield Line("images per step; threads", f"{batch}; {threads}")
    plain = None
    for name, case in CASES.items():
        asked = json.dumps({"network": network, "batch": batch, "threads": threads} | case)
        command = [sys.executable, "-m", "benchmarks.memory", asked]
        done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
        before, peak, seconds = json.loads(done.stdout)
        plain = plain or (peak - before, seconds)
        if name == "plain":
            yield Line("weights, averages and the program, GiB", before)
        yield Line(
            f"{name}: activations, gradients and Adam's moments, GiB; step, s",
            f"{peak - before:.2f} ({(peak - before) / plain[0]:.0%}); "
            f"{seconds:.1f} ({seconds / plain[1]:.0%})",
        )


def one_case(network: str, batch: int, threads: int, quarter=False, **keeping) -> list[float]:
    """GiB before the first step, at the peak, and seconds of the second step."""
    import torch

    from benchmarks.subjects import laptop, paper
    from core.config import Housekeeping
    from core.trainer import Trainer

    torch.set_num_threads(threads)
    subjects = [*paper(threads), laptop("smoke")]
    subject = next(s for s in subjects if s.name == network)
    config = replace(subject.config, optim=replace(subject.config.optim, batch_size=batch))
    subject = replace(subject, config=config)
    housekeeping = Housekeeping("cpu", microbatch=batch // 4 if quarter else 0, **keeping)
    trainer = Trainer(config, subject.images(), housekeeping)
    before = resident()
    trainer.one_step()
    begun = time.perf_counter()
    trainer.one_step()
    seconds = time.perf_counter() - begun
    return [before, resident("VmHWM"), seconds]


def resident(which: str = "VmRSS") -> float:
    """GiB of this process in memory: now, or (VmHWM) at most so far.

    Not getrusage's maximum, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError(f"/proc/self/status has no {which}")


if __name__ == "__main__":
    print(json.dumps(one_case(**json.loads(sys.argv[1]))))
