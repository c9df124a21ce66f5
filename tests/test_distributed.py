"""Training by several processes over gloo: the run of one process, and one set of files."""

import multiprocessing
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from core import checkpoint
from core.config import Housekeeping, TrainConfig, from_dict
from core.data.images import Images
from core.distributed import ALONE, Ranks, join, leave
from core.errors import Refused
from core.trainer import Trainer
from core.training import RESUME, SNAPSHOT, Interrupted, read_log, train

STEPS = 12
CONFIG = from_dict(
    TrainConfig,
    {
        "diffusion": {"T": 40, "schedule": "cosine"},
        "unet": {"channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "attention": [4]},
        "optim": {"steps": STEPS, "batch_size": 8, "lr": 1e-3, "ema": [0.9], "grad_clip": 5.0},
    },
)
KEEPING = Housekeeping(device="cpu", log_every=1, snapshots=(0.5,))


def images():
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 1, 8, 8), generator=g).to(torch.uint8)
    return Images("made up", pixels, None, 0)


def one_process(asked, rank, pipe):
    """What one of them does; sends words about how it ended."""
    torch.set_num_threads(1)
    os.environ |= asked["place"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    ranks, calls = join(), []

    def stop():  # only one of them is told to stop
        calls.append(1)
        return rank == asked["who_stops"] and len(calls) >= asked["stop_after"]

    folder = asked["folder"] / (f"rank{rank}" if asked["apart"] else "")
    folder.mkdir(exist_ok=True)
    said = ""
    try:
        train(asked["config"], images(), folder, asked["keeping"], stop=stop, ranks=ranks)
    except Interrupted:
        said = f"interrupted at {len(calls)}"
    except Refused as error:
        said = f"refused: {error}"
    except OSError as error:
        said = f"failed: {error}"
    leave()
    pipe.send(said)


def together(folder, config, world=2, keeping=KEEPING, stop_after=10**9, who_stops=1, apart=False):
    """Trains with so many processes; returns what each said at its end."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder.mkdir(exist_ok=True)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    asked = {"folder": folder, "config": config, "keeping": keeping, "place": place}
    asked |= {"stop_after": stop_after, "who_stops": who_stops, "apart": apart}
    # Forked from a server that has imported all this once: torch takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "core.training", "core.distributed"])
    pipes = [context.Pipe() for _ in range(world)]
    processes = [
        context.Process(target=one_process, args=(asked, rank, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == world * [0]
    return [ours.recv() for ours, _ in pipes]


def alone(folder, config, keeping=KEEPING):
    folder.mkdir(exist_ok=True)
    train(config, images(), folder, keeping)


def losses(folder):
    return np.array([[line["loss"], line["grad_norm"]] for line in read_log(folder / "log.jsonl")])


def weights(folder):
    state = checkpoint.newest(folder / "checkpoints", SNAPSHOT)
    assert state["step"] == STEPS
    return state


def objective(name, timesteps="uniform"):
    changed = replace(CONFIG.objective, name=name, timesteps=timesteps, history=1)
    return replace(CONFIG, objective=changed)


@pytest.mark.parametrize(
    "config, world, microbatch",
    [
        (objective("hybrid"), 2, 0),
        (objective("vlb", "loss_second_moment"), 2, 0),
        (objective("simple"), 4, 1),
        (objective("gan"), 2, 0),
        (objective("hybrid"), 2, 3),  # microbatches that do not divide a part
    ],
)
def test_several_processes_give_the_run_of_one(tmp_path, config, world, microbatch):
    # A T so short that the importance sampler is warm, and chooses, well before the end.
    config = replace(config, diffusion=replace(config.diffusion, T=30))
    alone(tmp_path / "one", config)
    together(tmp_path / "many", config, world, replace(KEEPING, microbatch=microbatch))
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    for kind in ("model", "ema"):
        states = [state[kind] if kind == "model" else state[kind]["0"] for state in (one, many)]
        for name in states[0]:
            torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-3, atol=2e-5)


def test_the_first_process_writes_and_the_others_do_not(tmp_path):
    together(tmp_path, CONFIG, apart=True)
    assert len(losses(tmp_path / "rank0")) == STEPS
    assert weights(tmp_path / "rank0")
    assert list((tmp_path / "rank1").rglob("*")) == []


def test_one_process_that_is_told_to_stop_stops_all_and_the_run_continues_exactly(tmp_path):
    config = objective("vlb", "loss_second_moment")
    together(tmp_path / "whole", config)
    for who in (0, 1):
        folder = tmp_path / f"parts{who}"
        said = together(folder, config, stop_after=5, who_stops=who)
        assert said == 2 * ["interrupted at 5"]
        assert checkpoint.newest(folder / "checkpoints", RESUME)["step"] == 5
        together(folder, config)
        assert (losses(folder) == losses(tmp_path / "whole")).all()
        whole, parts = weights(tmp_path / "whole"), weights(folder)
        assert all(torch.equal(whole["model"][k], parts["model"][k]) for k in whole["model"])


def test_a_line_of_the_log_that_was_interrupted_is_the_same(tmp_path):
    keeping = replace(KEEPING, log_every=STEPS)
    together(tmp_path / "whole", CONFIG, keeping=keeping)
    together(tmp_path / "parts", CONFIG, keeping=keeping, stop_after=5)
    together(tmp_path / "parts", CONFIG, keeping=keeping)
    assert (losses(tmp_path / "parts") == losses(tmp_path / "whole")).all()


def test_processes_that_found_other_checkpoints_refuse_to_go_on(tmp_path):
    alone(tmp_path / "rank0", CONFIG)  # complete, while rank 1 has nothing
    (tmp_path / "rank0" / "checkpoints").rename(tmp_path / "kept")
    together(tmp_path / "other", CONFIG, stop_after=5)
    (tmp_path / "other" / "checkpoints").rename(tmp_path / "rank0" / "checkpoints")
    said = together(tmp_path, CONFIG, apart=True)
    assert all("differ in their last checkpoint's step: [5, 0]" in words for words in said)


def test_a_failure_to_write_ends_all_processes(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder is to be")
    said = together(tmp_path, CONFIG)
    assert "refused" not in said[0] and "failed" in said[0]
    assert "refused: the first process of this run failed" in said[1]


def test_a_training_that_diverges_ends_all_processes(tmp_path):
    wild = replace(CONFIG, optim=replace(CONFIG.optim, lr=1e30, grad_clip=0.0))
    said = together(tmp_path, wild)
    assert all("refused: training diverged" in words for words in said)


def test_checkpoints_come_when_they_are_due(tmp_path):
    said = together(tmp_path, CONFIG, keeping=replace(KEEPING, checkpoint_seconds=0.0))
    assert said == ["", ""]
    assert len(losses(tmp_path)) == STEPS


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    alone(tmp_path / "one", CONFIG)
    together(tmp_path / "changed", CONFIG, stop_after=5)
    alone(tmp_path / "changed", CONFIG)
    assert losses(tmp_path / "changed") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(Refused, match="batch_size=8 cannot be shared by 3"):
        Trainer(CONFIG, images(), KEEPING, Ranks(0, 3))


def test_parts_are_the_batch_in_order():
    parts = [Ranks(rank, 4).part(8) for rank in range(4)]
    assert [i for part in parts for i in part] == list(range(8))
    assert ALONE.part(8) == range(8)
    assert ALONE.any(True, False) == (True, False)


def test_dropout_differs_between_processes_and_is_the_usual_one_in_the_first(monkeypatch):
    config = replace(CONFIG, unet=replace(CONFIG.unet, dropout=0.5))
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for rank in (ALONE, Ranks(0, 1), Ranks(1, 1)):
        trainer = Trainer(config, images(), KEEPING)
        trainer.ranks = rank
        seeds.clear()
        trainer.one_step()
        if rank is ALONE:
            usual = seeds[-1]
        assert (seeds[-1] == usual) == (rank.rank == 0)
