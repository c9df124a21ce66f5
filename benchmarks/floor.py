"""The floor under every network: how fast this machine multiplies matrices.

python -m benchmarks.floor prints the rate of one process with one thread, in operations per second.
"""

import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZES = (256, 512, 1024, 2048)


def matmul_rate(threads: int, seconds: float = 1.0) -> float:
    """Floating-point operations per second of float32 matrix products, the best size and round."""
    torch.set_num_threads(threads)
    best = 0.0
    for n in SIZES:
        a, b = torch.randn(n, n), torch.randn(n, n)
        torch.mm(a, b)
        ends = time.perf_counter() + seconds / len(SIZES)
        while True:
            begun = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * n**3 / (time.perf_counter() - begun))
            if time.perf_counter() > ends:
                break
    return best


def together(processes: int) -> float:
    """Rate of so many processes at once, all in all, over the rate of one alone.

    What the cores share (caches, memory, power, a physical core below two virtual ones) is shared
    by whatever runs on them: no work of ours can scale better for long.
    """

    def rates(count: int) -> list[float]:
        command = [sys.executable, "-m", "benchmarks.floor"]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return [float(process.communicate()[0]) for process in running]

    return sum(rates(processes)) / rates(1)[0]


def forward_flops(network, *inputs) -> int:
    """Operations of one forward pass, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops()


if __name__ == "__main__":
    print(matmul_rate(1, seconds=4.0))
