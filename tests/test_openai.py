"""OpenAI's released models and ours: the same names, shapes, function and flags."""

import openai_unet
import pytest
import torch

from core.build import denoiser
from core.chains import training_chain
from core.data.images import enlarged
from core.diffusion.process import Diffusion
from core.interop import openai
from core.interop.released import MODELS, named
from core.networks.unet import UNet
from experiments.grid import expand
from experiments.import_openai import measuring
from experiments.overrides import parse
from experiments.runs import digest

# Arguments of their network: images' channels, C, outputs, blocks, attention where the image was
# divided by so much, widths in units of C, heads, scale-shift, classes.
IMAGENET = (3, 128, 6, 3, (4, 8), (1, 2, 3, 4), 4, True)
CIFAR = (3, 128, 6, 3, (2, 4), (1, 2, 2, 2), 4, True)
LARGE = (3, 192, 6, 3, (4, 8), (1, 2, 3, 4), 4, True, 1000)
UPSAMPLER = (3, 192, 6, 2, (16, 32), (1, 1, 2, 2, 4, 4), 4, True, 1000)
LSUN = (3, 128, 6, 2, (16,), (1, 1, 2, 2, 4, 4), 1, False)
# T, schedule, time on a scale of 1000. With T = 1000 a time that is not rescaled is on that scale.
COSINE, UNSCALED = (4000, "cosine", True), (4000, "cosine", False)
UPSAMPLING, SHORT = (4000, "linear", False), (1000, "linear", True)
# Objective, lambda, timesteps.
HYBRID, VLB = ("hybrid", 0.001, "uniform"), ("vlb", 0.001, "loss_second_moment")
WEAK = ("hybrid", 0.00025, "uniform")
# ..., millions of parameters, ..., (dropout, lr, batch, steps).
PUBLISHED = {
    "imagenet64_uncond_100M_1500K": (IMAGENET, 121.06, COSINE, HYBRID, (0, 1e-4, 128, 1_500_000)),
    "imagenet64_uncond_vlb_100M_1500K": (IMAGENET, 121.06, COSINE, VLB, (0, 1e-4, 128, 1_500_000)),
    "cifar10_uncond_50M_500K": (CIFAR, 52.55, COSINE, HYBRID, (0.3, 1e-4, 128, 500_000)),
    "cifar10_uncond_vlb_50M_500K": (CIFAR, 52.55, COSINE, VLB, (0.3, 1e-4, 128, 500_000)),
    "imagenet64_cond_270M_250K": (LARGE, 273.05, UNSCALED, WEAK, (0, 3e-4, 2048, 250_000)),
    "upsample_cond_500K": (UPSAMPLER, 279.79, UPSAMPLING, WEAK, (0, 3e-4, 256, 500_000)),
    "lsun_uncond_100M_1200K_bs128": (LSUN, 113.68, SHORT, HYBRID, (0, 1e-4, 128, 1_200_000)),
    "lsun_uncond_100M_2400K_bs64": (LSUN, 113.68, SHORT, HYBRID, (0, 2e-5, 64, 2_400_000)),
}


def test_the_published_models_are_all_there():
    assert [model.name for model in MODELS] == list(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_openais_network(name):
    arguments, millions, *_ = PUBLISHED[name]
    kind = openai_unet.SuperResModel if name.startswith("upsample") else openai_unet.UNetModel
    with torch.device("meta"):
        theirs = kind(*arguments)
    wanted = {name: tuple(x.shape) for name, x in theirs.state_dict().items()}
    assert openai.shapes(named(name).network()) == wanted
    count = sum(x.numel() for x in theirs.state_dict().values())
    assert count == pytest.approx(millions * 1e6, abs=0.005e6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_flags_of_the_readme_are_the_fields_of_a_configuration(name):
    config = named(name).config("0123")
    objective, optim = config.objective, config.optim
    chain = config.diffusion.T, config.diffusion.schedule, config.diffusion.rescaled_time
    loss = objective.name, objective.vlb_weight, objective.timesteps
    rest = config.unet.dropout, optim.lr, optim.batch_size, optim.steps
    assert (chain, loss, rest) == PUBLISHED[name][2:]
    assert optim.ema == (0.9999,) and config.data.digest == "0123" and config.source == "openai"
    assert config.data.low == (64 if name == "upsample_cond_500K" else 0)


def test_a_network_is_told_the_time_as_it_was_trained():
    for name, told in (
        ("imagenet64_uncond_100M_1500K", [0, 0.25, 999.75]),
        ("imagenet64_cond_270M_250K", [0, 1, 3999]),
    ):
        chain = training_chain(named(name).config().diffusion)
        assert Diffusion(chain).network_time(torch.tensor([1, 2, 4000])).tolist() == told
        kept = Diffusion(chain.respaced([2, 4000]))
        assert kept.network_time(torch.tensor([1, 2])).tolist() == told[1:]


def networks(heads, scale_shift, classes, low, dtype):
    """OpenAI's network at a small size, and ours with its weights."""
    theirs_kind = openai_unet.SuperResModel if low else openai_unet.UNetModel
    theirs = openai_unet.filled(
        theirs_kind(3, 64, 6, 2, (2, 4), (1, 2, 3), heads, scale_shift, classes or None)
    )
    conditioning = "scale_shift" if scale_shift else "additive"
    sizes = {"size": 16, "in_channels": 6 if low else 3, "out_channels": 6, "channels": 64}
    ours = UNet(
        **sizes,
        channel_mult=(1, 2, 3),
        res_blocks=2,
        attention=(8, 4),
        heads=heads,
        conditioning=conditioning,
        classes=classes,
    ).eval()
    ours.load_state_dict(openai.from_openai(ours, theirs.state_dict(), "theirs"))
    return theirs.to(dtype), ours.to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("low", [0, 4])
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
@torch.inference_mode()
def test_our_network_is_the_same_function(heads, scale_shift, classes, low, dtype, tolerance):
    theirs, ours = networks(heads, scale_shift, classes, low, dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 16, 16, generator=generator).to(dtype)
    small = torch.rand(2, 3, 4, 4, generator=generator).to(dtype) * 2 - 1
    label = torch.tensor([1, 7]) if classes else None
    t = torch.tensor([17.25, 3999.0])
    given = torch.cat([x, enlarged(small, 16)], dim=1) if low else x
    wanted = theirs(x, t, small, label) if low else theirs(x, t, label)
    found = ours(given, t, label)
    assert wanted.abs().mean() > 0.1
    assert (found - wanted).abs().max() < tolerance


@torch.inference_mode()
def test_a_prediction_is_the_noise_and_v_that_their_code_makes_of_the_outputs():
    theirs, ours = networks(4, True, 0, 0, torch.float32)
    diffusion = Diffusion(training_chain(named("imagenet64_cond_270M_250K").config().diffusion))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 3000])
    eps, v = denoiser(ours, diffusion)(x, t)
    out = theirs(x, t - 1)
    torch.testing.assert_close(eps, out[:, :3], rtol=0, atol=1e-5)
    torch.testing.assert_close(v, (out[:, 3:] + 1) / 2, rtol=0, atol=1e-5)


def test_there_and_back_again_is_the_same_state():
    _, ours = networks(4, True, 10, 0, torch.float32)
    state = ours.state_dict()
    back = openai.from_openai(ours, openai.to_openai(ours, state), "ours")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_command_that_measures_a_model_is_of_its_configuration(model, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.grid.content_digest", lambda path: "0123")
    if model.enlarges:
        return
    words = measuring(model.config("0123"), tmp_path, "images")
    (cell,) = expand(parse(words)).cells
    assert cell.config == model.config("0123") and len(cell.measurements) == 2


def test_a_grid_of_the_paper_finds_the_models_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.grid.content_digest", lambda path: "0123")
    words = ["grid=schedule_ablation", "scale=cifar10", "data_path=x", "source=openai"]
    found = {cell.words: cell.run_id for cell in expand(parse([*words, "seeds=[0]"])).cells}
    for row, name in (
        ("4K cosine L_hybrid", "cifar10_uncond_50M_500K"),
        ("4K cosine L_vlb", "cifar10_uncond_vlb_50M_500K"),
    ):
        assert found[row] == digest(named(name).config("0123"))
    words[:2] = ["grid=gan_comparison", "scale=imagenet64"]
    found = {cell.words: cell for cell in expand(parse([*words, "seeds=[0]"])).cells}
    assert found["large"].run_id == digest(named("imagenet64_cond_270M_250K").config("0123"))
    (table_4,) = (item.settings for item in found["large"].measurements)
    assert (table_4.images, table_4.sampler.steps, table_4.neighbours) == (50_000, 250, 5)
    words[:2] = ["grid=model_mix", "scale=imagenet64"]
    found = {cell.words: cell for cell in expand(parse([*words, "seeds=[0]"])).cells}
    hybrid = found["4K cosine L_hybrid"]
    assert hybrid.run_id == digest(named("imagenet64_uncond_100M_1500K").config("0123"))
    vlb = digest(named("imagenet64_uncond_vlb_100M_1500K").config("0123"))
    assert any(item.partner == vlb for item in hybrid.measurements)
