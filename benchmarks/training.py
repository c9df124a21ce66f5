"""A training step against the bare network, a textbook's network, and peers."""

from collections.abc import Iterator

import torch

from benchmarks.floor import forward_flops, matmul_rate
from benchmarks.lines import Line, at_least, at_most
from benchmarks.peers import all_peers
from benchmarks.subjects import Subject
from benchmarks.textbook import TextbookUNet, training_step
from benchmarks.timing import race
from core.config import Housekeeping
from core.trainer import Trainer


def textbook(subject: Subject) -> TextbookUNet:
    unet = subject.config.unet
    return TextbookUNet(
        subject.size,
        subject.channels,
        subject.learned,
        unet.channels,
        unet.channel_mult,
        unet.res_blocks,
        unet.attention,
        unet.heads,
        unet.dropout,
        unet.conditioning,
    )


def measure(subject: Subject, rounds: int) -> Iterator[Line]:
    """Ratios of one step at a scale; forward and backward count as three forward passes."""
    torch.set_num_threads(subject.threads)
    batch = subject.config.optim.batch_size
    trainer = Trainer(subject.config, subject.images(), Housekeeping("cpu"))
    model, optimizer, plain = trainer.model, trainer.optimizer, textbook(subject)
    x, time = subject.inputs(batch)
    gradient = torch.randn(batch, subject.learned, subject.size, subject.size)
    peers = all_peers(subject)

    def both_ways(network):
        network.zero_grad()
        network(x, time).backward(gradient)

    def bare():
        both_ways(model)
        optimizer.step()

    steps = {
        "step": trainer.one_step,
        "bare": bare,
        "network": lambda: both_ways(model),
        "textbook network": lambda: both_ways(plain),
        "textbook step": training_step(plain, subject.images().batch(range(batch))),
    }
    times = race(steps | {peer.name: peer.step for peer in peers}, rounds)

    flops = 3 * forward_flops(model, x, time)
    rate = flops / times.best("network")
    floor = matmul_rate(subject.threads)
    yield Line("images per step; threads", f"{batch}; {subject.threads}")
    yield Line("training step, ms (best round)", 1e3 * times.best("step"))
    yield Line("network, forward and backward, ms (best round)", 1e3 * times.best("network"))
    yield Line("operations per image and step, GFLOP", flops / batch / 1e9)
    yield Line(
        "network's rate and share of matrix products' rate",
        f"{rate / 1e9:.0f} of {floor / 1e9:.0f} GFLOP/s, {rate / floor:.0%}",
    )
    ratio = times.ratio("step", "bare")
    yield at_most("step / forward, backward and optimizer of the same network", ratio, 1.05)
    ratio = times.ratio("textbook network", "network")
    if subject.name == "laptop":
        yield at_least("textbook's network / ours, forward and backward", ratio, 1.5)
    else:
        yield Line("textbook's network / ours, forward and backward", ratio)
    yield Line("textbook's step / ours", times.ratio("textbook step", "step"))
    for peer in peers:
        theirs = 3 * forward_flops(peer.network, x, time)
        per_flop = times.ratio(peer.name, "step").scaled(flops / theirs)
        yield Line(f"{peer.name}: operations / ours", theirs / flops)
        yield at_least(f"{peer.name}: step / ours, at equal operations", per_flop, 1.0)
