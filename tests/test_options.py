"""Options of speed and memory: the numbers stay within rounding of plain float32 training."""

import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.networks.unet import ResidualBlock
from core.trained import load_trained
from core.trainer import Trainer
from core.training import train
from tests.test_training import IMAGES, KEEPING, tiny

OPTIONS = {
    "microbatch": {"microbatch": 3},
    "channels_last": {"channels_last": True},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "compile": {"compile": True},
}
NO_COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
TAKEN_UP = [(name, objective) for name in OPTIONS for objective in ("hybrid", "vlb")]
TAKEN_UP.remove(("compile", "vlb"))  # minutes, and the compiled network is that of hybrid
MARKS = {"compile": (NO_COMPILER, pytest.mark.slow)}


@pytest.mark.parametrize(
    "name, objective", [pytest.param(*both, marks=MARKS.get(both[0], ())) for both in TAKEN_UP]
)
def test_an_option_taken_up_in_mid_training_gives_the_gradient_of_plain_training(name, objective):
    """Gradients, since Adam turns the sign of a gradient that is only rounding into a step."""
    config = tiny(objective, steps=20)
    plain = Trainer(config, IMAGES, KEEPING)
    for _ in range(8):  # for L_vlb: until the weights of the draws are no longer one
        plain.one_step()
    plain.log_line()
    other = Trainer(config, IMAGES, replace(KEEPING, **OPTIONS[name]))
    other.load_state_dict(deepcopy(plain.state_dict()))
    plain.one_step()
    other.one_step()
    a, b = plain.log_line(), other.log_line()
    assert a == pytest.approx(b, rel=1e-5)
    size = max(p.grad.abs().max() for p in plain.model.parameters())
    for (name, p), q in zip(plain.model.named_parameters(), other.model.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-5 * size, msg=name)
    if objective == "vlb":
        assert plain.timesteps.warm
        np.testing.assert_allclose(plain.timesteps.history, other.timesteps.history, rtol=1e-5)


def test_fused_steps_are_those_of_the_plain_optimizer():
    config = tiny(steps=20)
    fused, plain = (Trainer(config, IMAGES, KEEPING) for _ in range(2))
    decay = config.optim.weight_decay
    assert fused.optimizer.defaults["fused"]
    plain.optimizer = torch.optim.AdamW(
        plain.model.parameters(), lr=config.optim.rate, weight_decay=decay, fused=False
    )
    for _ in range(5):
        fused.one_step()
        plain.one_step()
    for p, q in zip(fused.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-3 * config.optim.rate)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("there, back", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_checkpoint_of_one_device_goes_on_on_another(there, back):
    config = tiny(steps=20)
    first = Trainer(config, IMAGES, replace(KEEPING, device=there))
    for _ in range(3):
        first.one_step()
    first.log_line()
    second = Trainer(config, IMAGES, replace(KEEPING, device=back))
    second.load_state_dict(deepcopy(first.state_dict()))
    first.one_step()
    second.one_step()
    assert second.log_line() == pytest.approx(first.log_line(), rel=1e-3)


def test_channels_last_holds_from_the_first_convolution_to_the_last_and_when_measured(tmp_path):
    keeping = replace(KEEPING, channels_last=True)
    train(tiny(), IMAGES, tmp_path, keeping)
    trained = load_trained(tmp_path, tiny(), 1.0, 0, keeping)
    plain = load_trained(tmp_path, tiny(), 1.0, 0, KEEPING)
    orders = []
    for module in trained.model.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(
                lambda m, given, out: orders.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    x, t = torch.randn(16, 1, 8, 8, generator=torch.manual_seed(0)), torch.full((16,), 300.0)
    torch.testing.assert_close(trained.model(x, t), plain.model(x, t), rtol=0, atol=1e-5)
    assert orders and all(orders)


@pytest.mark.parametrize("first, then", [(True, False), (False, True)])
def test_a_training_goes_on_in_the_other_order_in_memory(first, then):
    before = Trainer(tiny(), IMAGES, replace(KEEPING, channels_last=first))
    before.one_step()
    after = Trainer(tiny(), IMAGES, replace(KEEPING, channels_last=then))
    after.load_state_dict(deepcopy(before.state_dict()))
    for parameter in after.model.parameters():
        moments = after.optimizer.state[parameter]
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == parameter.stride()
    before.one_step()
    after.one_step()
    assert after.log_line()["loss"] == pytest.approx(before.log_line()["loss"], rel=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(dropout):
    config = tiny()
    config = replace(config, unet=replace(config.unet, dropout=dropout))
    kept, states = {}, {}
    for on in (False, True):
        sizes = kept[on] = []

        def count(x, sizes=sizes):
            sizes.append(x.numel())
            return x

        trained = Trainer(config, IMAGES, replace(KEEPING, gradient_checkpointing=on))
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            trained.one_step()
        for _ in range(2):
            trained.one_step()
        states[on] = trained.model.state_dict()
    assert all(torch.equal(states[False][name], states[True][name]) for name in states[True])
    assert sum(kept[True]) < sum(kept[False]) / 4


def test_bfloat16_trains_close_to_float32_with_weights_kept_in_float32():
    lines = {}
    for precision in ("float32", "bfloat16"):
        trained = Trainer(replace(tiny(), precision=precision), IMAGES, KEEPING)
        trained.one_step()  # before it the output is zero in either precision
        trained.log_line()
        for _ in range(3):
            trained.one_step()
        lines[precision] = trained.log_line()
        assert trained.finite()
        assert {p.dtype for p in trained.model.parameters()} == {torch.float32}
    assert lines["bfloat16"]["loss"] != lines["float32"]["loss"]
    assert lines["bfloat16"]["loss"] == pytest.approx(lines["float32"]["loss"], rel=0.02)
