"""The floor under every network: how fast this machine multiplies matrices.

python -m benchmarks.floor BEGIN SECONDS prints the rate of one thread within a window of time.
"""

import subprocess
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
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


def together(processes: int, seconds: float = 4.0) -> float:
    """Rate of so many processes at once, all in all, over the rate of one alone.

    What the cores share (caches, memory, power, a physical core below two virtual ones) is shared
    by whatever runs on them. Counted within one window of time that all of them work through.
    """

    def rate(count: int) -> float:
        begin = time.time() + 15  # torch is imported until then
        command = [sys.executable, "-m", "benchmarks.floor", str(begin), str(seconds)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return sum(float(process.communicate()[0]) for process in running)

    return rate(processes) / rate(1)


def steady_rate(begin: float, seconds: float) -> float:
    """Operations per second of one thread from `begin` (as time.time()) for so long."""
    torch.set_num_threads(1)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    torch.mm(a, b)
    if time.time() > begin:
        raise RuntimeError("not ready in time")
    done = 0
    while (now := time.time()) < begin + seconds:
        torch.mm(a, b)
        done += now >= begin
    return 2 * 512**3 * done / seconds


def forward_flops(network, *inputs) -> int:
    """Operations of one forward pass, a multiplication and an addition counted as two."""
    # The counter does not know the processor's fused attention; matrix products it knows.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        network(*inputs)
    return counter.get_total_flops()


if __name__ == "__main__":
    print(steady_rate(float(sys.argv[1]), float(sys.argv[2])))
