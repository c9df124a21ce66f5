"""What a grid would cost: counts against real networks, sums, and that nothing is started."""

import re
from dataclasses import replace

import pytest
import torch

from core import build
from core.config import TrainConfig, UNetConfig
from core.errors import Refused
from experiments import plan
from experiments.costs import task_costs
from experiments.files import write_json
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import distinct, main, tasks_of
from experiments.runs import Runs

SMALL = UNetConfig(channels=16, channel_mult=(1, 2), res_blocks=1, attention=(8,))
FORM = (3, 16, 10)


def real(unet=SMALL):
    return build.network(TrainConfig(unet=unet), *FORM)


def test_the_counts_are_those_of_the_network_itself():
    counts = plan.network(SMALL, True, FORM)
    assert counts.parameters == sum(p.numel() for p in real().parameters())
    sizes = {}
    for n in (1, 3):
        kept = {}
        x, time = torch.randn(n, 3, 16, 16), torch.zeros(n)

        def keep(x, kept=kept):
            if not isinstance(x, torch.nn.Parameter):
                kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = real()(x, time)
        sizes[n] = sum(kept.values())
        del out
    per_image = (sizes[3] - sizes[1]) / 2  # without what does not grow with the batch
    assert counts.activations == pytest.approx(per_image, rel=0.05)


def test_operations_of_one_convolution_are_counted_by_hand():
    """Wider images change nothing but the number of pixels, which all the work is done for."""
    bare = UNetConfig(channels=16, channel_mult=(1,), res_blocks=1, attention=())
    small, large = (plan.network(bare, False, (1, size, 0)).forward_flops for size in (8, 16))
    # Two blocks on the way up, one down, two in the middle; attention in the middle is quadratic.
    n, embedding = 16, 2 * (16 * 64 + 64 * 64) + 5 * 2 * 64 * 32
    convolutions = 9 * (1 * n + 6 * n * n + 2 * (2 * n * n + n * n) + n * 1) + 2 * (2 * n * n)
    attention = n * 3 * n + n * n
    for pixels, counted in ((64, small), (256, large)):
        products = 2 * pixels * n
        expected = embedding + 2 * pixels * (convolutions + attention + products)
        assert counted == expected


def test_checkpointing_keeps_a_fraction():
    kept = plan.network(SMALL, True, FORM, checkpointing=True).activations
    assert 0 < kept < plan.network(SMALL, True, FORM).activations / 3


def tasks(*words, results):
    request = parse(["grid=schedule_ablation", "scale=smoke", f"results={results}", *words])
    grid = expand(request)
    return tasks_of(distinct([grid], Runs(results / "runs")), request)


def test_a_training_is_three_passes_over_every_image_it_sees(tmp_path):
    task = tasks("optim.steps=7", "optim.batch_size=5", results=tmp_path)[4]
    forward = plan.network(task.config.unet, True, (1, 16, 10)).forward_flops
    priced = plan.price(task)
    assert priced.flops["train"] == 3 * 7 * 5 * forward
    assert priced.flops["nll"] == 16 * 40 * forward
    assert priced.flops["fd"] == 80 * 5 * forward
    assert priced.missing == sum(priced.flops.values())


def test_precision_and_checkpointing_have_their_price(tmp_path):
    task = tasks(results=tmp_path)[4]
    plain = plan.price(task)
    half = plan.price(replace(task, config=replace(task.config, precision="bfloat16")))
    assert half.seconds(1.0) == plain.seconds(1.0) / 2 and half.memory < plain.memory
    keeping = replace(task.housekeeping, gradient_checkpointing=True)
    again = plan.price(replace(task, housekeeping=keeping))
    assert again.flops["train"] == pytest.approx(4 / 3 * plain.flops["train"])
    assert again.flops["nll"] == plain.flops["nll"]


def test_what_is_there_is_not_to_be_done_again(tmp_path):
    task = tasks(results=tmp_path)[0]
    nll = next(asked for asked in task.asked if asked.name == "nll")
    before = plan.price(task)
    write_json(task.run.folder / "measurements" / f"{nll.id}.json", {})
    after = plan.price(task)
    assert after.flops == before.flops
    assert before.missing - after.missing == pytest.approx(before.flops["nll"])


def test_weights_that_come_with_the_code_cost_no_training(tmp_path):
    ours, theirs = (tasks(*words, results=tmp_path)[0] for words in ((), ("weights=reference",)))
    both = [plan.price(task) for task in (ours, theirs)]
    assert both[0].missing - both[1].missing == pytest.approx(both[0].flops["train"])
    assert task_costs(ours).keys() - task_costs(theirs).keys() == {"train"}


def test_what_is_drawn_in_two_stages_costs_the_same_once_it_is_measured(tmp_path):
    request = parse(["grid=two_stage", "scale=smoke", f"results={tmp_path}"])
    grids, runs = [expand(request)], Runs(tmp_path / "runs")
    totals = []
    for _ in range(2):
        some = tasks_of(distinct(grids, runs), request)
        totals.append(re.search(r"(\S+) PFLOP in all", plan.report("t", some, 1))[1])
        for task in some:
            for asked in task.asked:
                write_json(task.run.folder / "measurements" / f"{asked.id}.json", {})
    assert totals[0] == totals[1]


def test_snapshots_that_another_run_needs_take_room(tmp_path):
    task = tasks(results=tmp_path)[0]
    more = plan.price(replace(task, also_at=(0.5, 1.0)))
    assert more.disk == 2 * plan.price(task).disk


def test_microbatches_need_less_memory_and_averages_more(tmp_path):
    task = tasks(results=tmp_path)[0]
    plain = plan.price(task).memory
    parts = replace(task, housekeeping=replace(task.housekeeping, microbatch=4))
    assert plan.price(parts).memory < plain
    optim = replace(task.config.optim, ema=(0.9, 0.99))
    more = replace(task, config=replace(task.config, optim=optim))
    assert plan.price(more).memory - plain == 4 * plan.price(task).parameters
    assert plan.price(more).disk == pytest.approx(1.5 * plan.price(task).disk)


@pytest.mark.parametrize(
    "seconds, text", [(0.0123, "0.0123 s"), (90, "1.5 min"), (7200, "2 h"), (1e8, "27,778 h")]
)
def test_durations_are_in_units_that_people_use(seconds, text):
    assert plan._duration(seconds) == text


def test_plan_says_the_sums_and_starts_nothing(tmp_path, capsys):
    words = ["grid=schedule_ablation", "scale=smoke", f"results={tmp_path / 'none'}", "plan=true"]
    assert main([*words, "throughput=0.001"]) == 0
    slow = capsys.readouterr().out
    assert "6 cells are 6 distinct runs" in slow and "at 0.001 TFLOP/s:" in slow
    assert main(words) == 0
    assert "at 100 TFLOP/s (a fifth of an H100" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("value", ["0", "-3", "fast", "true", "inf"])
def test_a_throughput_that_is_none_is_refused(value):
    with pytest.raises(Refused, match="throughput"):
        parse(["grid=schedule_ablation", "plan=true", f"throughput={value}"])


@pytest.mark.parametrize("scale, weights", [("imagenet64", 121.06), ("cifar10", 52.5)])
def test_the_papers_own_scale_is_priced_before_its_data_are_there(scale, weights, tmp_path, capsys):
    """With the number of weights that OpenAI's networks have."""
    words = ["grid=schedule_ablation", f"scale={scale}", "seeds=[0]", f"results={tmp_path}"]
    assert main([*words, "plan=true"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"{weights:.3g} M") == 6 and "6 distinct runs" in out
    assert not list(tmp_path.iterdir())
    with pytest.raises(Refused, match=r"needs data_path=FOLDER.* experiments/prepare\.py"):
        main([*words, "list=true"])


def test_the_workstation_makes_the_first_table_in_a_day(tmp_path):
    request = parse(["grid=schedule_ablation", "scale=workstation", "plan=true"])
    grid = expand(request)
    runs = tasks_of(distinct([grid], Runs(tmp_path / "runs")), request)
    prices = [plan.price(task, 100.0, grid.form) for task in runs]
    assert len(prices) == 6 and all(10e6 < price.parameters < 20e6 for price in prices)
    hours = sum(price.seconds(price.whole) for price in prices) / 3600
    assert hours == pytest.approx(2.8, rel=0.05)  # and at 12 TFLOP/s still within a day
