"""The UNet: size, start, conditioning, attention, what it is told; averages of its weights."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.textbook import TextbookUNet
from core import build
from core.config import TrainConfig, UNetConfig
from core.diffusion.process import Diffusion
from core.diffusion.schedules import cosine
from core.errors import Refused
from core.networks.ema import EMA
from core.networks.unet import Attention, ResidualBlock, UNet, attend, group_norm, sinusoids

CONDITIONINGS = pytest.mark.parametrize("conditioning", ["scale_shift", "additive"])


def small(channels=16, **settings):
    """A UNet for 8x8 images of two channels."""
    settings = {"channel_mult": (1, 2), "res_blocks": 1, "attention": (4,), "heads": 2} | settings
    return UNet(8, 2, 3, channels, **settings).eval()


def perturbed(module, scale=0.1):
    """The module with noise on all weights, as zero-initialised layers hide what is before them."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=g)
    return module


def inputs(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 8, 8, generator=g), torch.linspace(0, 900, n)


@pytest.mark.parametrize(
    "size, mult, expected", [(64, (1, 2, 3, 4), 121_063_942), (32, (1, 2, 2, 2), 52_546_438)]
)
def test_the_papers_networks_have_their_number_of_parameters(size, mult, expected):
    with torch.device("meta"):
        unet = UNet(size, 3, 6, 128, mult, 3, (16, 8))
    assert sum(p.numel() for p in unet.parameters()) == expected


@pytest.mark.parametrize("C, millions", [(64, 30.30), (96, 68.13), (128, 121.06), (192, 272.28)])
def test_the_networks_of_figure_10_have_their_number_of_parameters(C, millions):
    with torch.device("meta"):
        unet = UNet(64, 3, 6, C, (1, 2, 3, 4), 3, (16, 8))
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    with torch.device("meta"):  # of Table 4: a vector of 4 C for each of the classes besides
        conditional = UNet(64, 3, 6, C, (1, 2, 3, 4), 3, (16, 8), classes=1000)
    more = sum(p.numel() for p in conditional.parameters()) - sum(
        p.numel() for p in unet.parameters()
    )
    assert more == 1000 * 4 * C


@CONDITIONINGS
@pytest.mark.parametrize("res_blocks, mult", [(1, (1, 2, 2)), (2, (2, 3))])
def test_function_and_gradients_are_those_of_the_network_as_a_textbook_writes_it(
    conditioning, res_blocks, mult
):
    settings = (8, 2, 3, 16, mult, res_blocks, (4,))
    unet = perturbed(UNet(*settings, conditioning=conditioning)).double()
    textbook = TextbookUNet(*settings, conditioning=conditioning).double()
    textbook.load_state_dict(unet.state_dict())
    x, time = inputs()
    outputs = []
    for network in (unet, textbook):
        outputs.append(network(x.double(), time))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    for ours, plain in zip(unet.parameters(), textbook.parameters()):
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-9, atol=1e-10)


@CONDITIONINGS
def test_a_new_network_predicts_zero(conditioning):
    x, time = inputs()
    out = small(conditioning=conditioning)(x, time)
    assert out.shape == (3, 3, 8, 8) and (out == 0).all()


def test_a_new_network_says_no_noise_and_a_variance_halfway_between_the_bounds():
    config = TrainConfig(unet=UNetConfig(channels=16, channel_mult=(1,), res_blocks=1, heads=1))
    denoise = build.denoiser(build.network(config, 2, 8, 0), Diffusion(cosine(10)))
    prediction = denoise(inputs()[0], torch.tensor([1, 5, 10]))
    assert (prediction.eps == 0).all() and (prediction.v == 0.5).all()
    assert prediction.eps.shape == prediction.v.shape == (3, 2, 8, 8)


def test_the_denoiser_splits_the_output_and_tells_the_time_on_a_scale_of_1000():
    told = []

    def model(x, time, label):
        told.append((time.tolist(), label))
        return torch.cat([x, torch.full_like(x, -1), torch.full_like(x, 1)], dim=1)[:, :4]

    denoise = build.denoiser(model, Diffusion(cosine(100).respaced([1, 51, 100])), label="label")
    x = inputs()[0]
    prediction = denoise(x, torch.tensor([1, 2, 3]))
    assert prediction.eps.equal(x) and (prediction.v == 0).all()
    assert told == [([0, 500, 990], "label")]


def test_initial_weights_depend_on_the_seed_alone():
    def weights(seed):
        config = TrainConfig(unet=UNetConfig(channels=16, channel_mult=(1,)), seed=seed)
        return build.network(config, 1, 8, 0).state_dict()

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again, other = weights(0), weights(1)
    assert torch.random.get_rng_state().equal(state)
    assert all(first[name].equal(again[name]) for name in first)
    assert any(not first[name].equal(other[name]) for name in first)


def test_images_that_cannot_be_halved_and_missing_labels_are_refused():
    with pytest.raises(Refused, match="halved"):
        build.network(TrainConfig(), 1, 12, 0)
    labelled = UNetConfig(channels=16, channel_mult=(1,), class_conditional=True)
    with pytest.raises(Refused, match="labels"):
        build.network(TrainConfig(unet=labelled), 1, 8, 0)


@CONDITIONINGS
@pytest.mark.parametrize("channels", [16, 24])
def test_narrow_networks_see_image_and_time(channels, conditioning):
    unet = perturbed(small(channels, conditioning=conditioning))
    x, time = inputs()
    with torch.no_grad():
        out, other_time, other_x = unet(x, time), unet(x, time + 50), unet(x + 0.1, time)
    assert out.isfinite().all()
    assert (out - other_time).abs().amax((1, 2, 3)).min() > 1e-3
    assert (out - other_x).abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize(
    "n, groups", [(16, 4), (24, 6), (40, 10), (32, 8), (64, 32), (128, 32), (384, 32), (6, 3)]
)
def test_groups_are_32_in_wide_networks_and_of_four_channels_in_narrow_ones(n, groups):
    assert group_norm(n).num_groups == groups


@CONDITIONINGS
def test_examples_of_a_batch_do_not_mix(conditioning):
    unet = perturbed(small(conditioning=conditioning))
    x, time = inputs()
    with torch.no_grad():
        together, alone = unet(x, time)[1:2], unet(x[1:2], time[1:2])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_labels_matter_to_a_class_conditional_network():
    unet = perturbed(small(classes=4))
    x, time = inputs()
    with torch.no_grad():
        out = [unet(x, time, torch.full((3,), label)) for label in (0, 0, 3)]
    assert out[0].equal(out[1])
    assert (out[0] - out[2]).abs().amax((1, 2, 3)).min() > 1e-3
    assert small().label_embedding is None


def conditioned_block(scale_shift, values):
    """A residual block of 8 channels with identity convolutions, told `values` by its condition."""
    block = ResidualBlock(8, 8, 5, 0.0, scale_shift)
    with torch.no_grad():
        for conv in (block.conv_in, block.conv_out):
            nn.init.dirac_(conv.weight)
            conv.bias.zero_()
        block.condition.weight.zero_()
        block.condition.bias.copy_(values)
    return block


def test_conditioning_is_a_scale_and_a_shift_after_the_norm_or_an_addition_before_it():
    g = torch.Generator().manual_seed(0)
    x, embedding = torch.randn(2, 8, 4, 4, generator=g), torch.zeros(2, 5)
    w, b = torch.randn(2, 8, generator=g)
    W, B = w[:, None, None], b[:, None, None]
    h = F.silu(F.group_norm(x, 2))
    with torch.no_grad():
        ours = conditioned_block(True, torch.cat([w, b]))(x, embedding)
        torch.testing.assert_close(ours, x + F.silu(F.group_norm(h, 2) * (1 + W) + B))
        ours = conditioned_block(False, b)(x, embedding)
        torch.testing.assert_close(ours, x + F.silu(F.group_norm(h + B, 2)))


def test_dropout_acts_in_training_only():
    unet = perturbed(small(dropout=0.5))
    x, time = inputs()
    with torch.no_grad():
        assert unet(x, time).equal(unet(x, time))
        unet.train()
        assert not unet(x, time).equal(unet(x, time))


@pytest.mark.parametrize("d, length", [(8, 64), (3, 5), (1, 1)])
def test_attend_is_pytorchs_scaled_dot_product_attention(d, length):
    q, k, v = torch.randn(3, 6, d, length, generator=torch.Generator().manual_seed(0)) * 3
    expected = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v)))
    torch.testing.assert_close(attend(q, k, v), expected.transpose(1, 2))


def test_attention_begins_as_the_identity_and_moves_with_the_pixels():
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))

    def shuffled(z):
        return z.flatten(2)[:, :, order].view_as(z)

    with torch.no_grad():
        assert Attention(8, 2)(x).equal(x)
        attention = perturbed(Attention(8, 2), scale=0.5)
        torch.testing.assert_close(attention(shuffled(x)), shuffled(attention(x)))
        assert (attention(x) - x).abs().max() > 0.1


def test_each_attention_head_is_an_attention_of_its_own():
    """With the second head's values at zero, the output is that of the first head's channels."""
    attention, d = perturbed(Attention(8, 2), scale=0.5), 4
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in attention.qkv.parameters():
            parameter[5 * d :] = 0  # ordered [heads, (q, k, v), d]: the last d are head 2's values
        q, k, v = attention.qkv(attention.norm(x).flatten(2))[:, : 3 * d].split(d, 1)
        head = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v)))
        weight, bias = attention.project.weight[:, :d, 0], attention.project.bias
        expected = x + (head @ weight.T + bias).transpose(1, 2).view_as(x)
        torch.testing.assert_close(attention(x), expected)


def test_attention_needs_channels_that_the_heads_divide():
    with pytest.raises(ValueError, match="heads"):
        Attention(6, 4)


def test_time_becomes_cosines_and_sines_at_geometric_frequencies():
    time, n = torch.tensor([0.0, 1.0, 3.25, 999.75]), 32
    ours = sinusoids(time, n)
    frequency = [10_000 ** (-i / 16) for i in range(16)]
    for row, t in zip(ours, time.tolist()):
        expected = [f(t * w) for f in (math.cos, math.sin) for w in frequency]
        np.testing.assert_allclose(row, expected, atol=1e-4)
    # The product of two embeddings depends on the difference of the times alone.
    pairs = sinusoids(torch.tensor([5.0, 8.0, 105.0, 108.0]), n)
    assert (pairs[0] @ pairs[1]).item() == pytest.approx((pairs[2] @ pairs[3]).item(), abs=1e-3)


# Averages of the weights.


def history(rates, updates=6):
    """A layer trained by made-up steps, its EMA, and the weights before and after each step."""
    layer = nn.Linear(3, 2)
    ema, weights = EMA(layer, rates), [layer.weight.detach().clone()]
    for step in range(updates):
        with torch.no_grad():
            layer.weight += torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        weights.append(layer.weight.detach().clone())
        ema.update()
    return layer, ema, weights


def test_averages_are_geometric_sums_of_the_weights_at_every_rate():
    rates = (0.9, 0.5, 0.0)
    _, ema, weights = history(rates)
    n = len(weights) - 1
    for i, rate in enumerate(rates):
        expected = rate**n * weights[0]
        for k in range(1, n + 1):
            expected = expected + (1 - rate) * rate ** (n - k) * weights[k]
        torch.testing.assert_close(ema.state_dict()[str(i)]["weight"], expected)


def test_averaging_leaves_the_weights_alone_and_starts_from_them():
    layer, ema, weights = history((0.9, 0.99), updates=0)
    assert ema.state_dict()["1"]["weight"].equal(layer.weight)
    layer, ema, weights = history((0.9,))
    assert layer.weight.equal(weights[-1]) and layer.weight.requires_grad
    assert not ema.state_dict()["0"]["weight"].requires_grad


def test_saved_averages_go_on_as_the_originals():
    layer, ema, _ = history((0.9, 0.5))
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    resumed = EMA(layer, (0.9, 0.5))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for average in (ema, resumed):
        average.update()
    for i in ("0", "1"):
        for name, tensor in ema.state_dict()[i].items():
            assert tensor.equal(resumed.state_dict()[i][name])
    assert not ema.state_dict()["0"]["weight"].equal(ema.state_dict()["1"]["weight"])


def test_an_average_can_be_loaded_as_the_networks_weights():
    _, ema, _ = history((0.9,))
    other = nn.Linear(3, 2)
    other.load_state_dict(ema.state_dict()["0"])
    assert other.weight.equal(ema.state_dict()["0"]["weight"])
