"""What is exported for diffusers: diffusers itself draws the same images from the same noise."""

import json
import os
from dataclasses import replace

import numpy as np
import openai_unet
import pytest
import torch
from safetensors import safe_open

from benchmarks import peers
from core import build, checkpoint
from core.chains import sampling_chain, training_chain
from core.config import (
    DataConfig,
    DiffusionConfig,
    Housekeeping,
    ObjectiveConfig,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
    to_dict,
)
from core.diffusion import samplers
from core.diffusion.process import Diffusion
from core.errors import Refused
from core.interop.diffusers import export, main
from core.interop.diffusers_unet import architecture, heads_and_groups, state, time_settings
from core.interop.released import MODELS
from core.trained import load_trained
from core.training import SNAPSHOT

SIZE, CLASSES = 16, 5
TINY = TrainConfig(
    data=DataConfig("folder"),
    unet=UNetConfig(channels=64, channel_mult=(1, 2, 2), res_blocks=1, attention=(8, 4), heads=4),
    optim=OptimConfig(steps=3),
)


@pytest.fixture(scope="module")
def diffusers():
    """The package; its absence is a failure where the environment says that it must be there."""
    try:
        return peers.imported("diffusers")
    except ModuleNotFoundError:
        if os.environ.get("PEERS_MUST_BE_THERE"):
            raise
        pytest.skip("diffusers is not installed: make bench does it")


def unet(**changes) -> TrainConfig:
    return replace(TINY, unet=replace(TINY.unet, **changes))


def chain(T, schedule, objective="hybrid", rescaled=True) -> TrainConfig:
    diffusion = DiffusionConfig(T, schedule, rescaled)
    return replace(TINY, diffusion=diffusion, objective=ObjectiveConfig(objective))


def run_of(config: TrainConfig, folder):
    """A run's folder with random weights."""
    model = openai_unet.filled(build.network(config, 3, SIZE, CLASSES))
    # Small outputs, as of a trained network: x_0 is not clipped everywhere.
    model.out[2].weight.data.mul_(0.3)
    state = {"config": json.dumps(to_dict(config)), "images": [3, SIZE, CLASSES], "step": 3}
    checkpoint.save(folder / "checkpoints", SNAPSHOT, 3, state | {"ema": {"0": model.state_dict()}})
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    return folder


def drawn_here(folder, config, sampler: SamplerConfig, label=None, variance="learned"):
    """Two images in [-1, 1], with noise from a generator."""
    trained = load_trained(folder, config, 1.0, 0, Housekeeping(device="cpu"))
    diffusion = Diffusion(sampling_chain(config.diffusion, sampler))
    denoise, g = build.denoiser(trained.model, diffusion, "float32", label), noise()
    if sampler.name == "ddim":
        return samplers.ddim(denoise, diffusion, g(), g)
    return samplers.ancestral(denoise, diffusion, g(), g, variance)


def noise():
    generator = torch.Generator().manual_seed(3)
    return lambda: torch.randn(2, 3, SIZE, SIZE, generator=generator)


@torch.inference_mode()
def drawn_there(package, out, name, steps, label=None, exact=None):
    """The same by diffusers' own loop. exact: alpha_bar in place of its float32 product."""
    model = package.UNet2DModel.from_pretrained(out, subfolder="unet")
    scheduler = getattr(package, name).from_pretrained(out, subfolder="scheduler")
    if exact is not None:
        scheduler.alphas_cumprod = torch.as_tensor(exact)
    if steps:
        scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    how = {"use_clipped_model_output": True} if "DDIM" in name else {}
    for t in scheduler.timesteps:
        out = model(x.float(), t, class_labels=label).sample
        x = scheduler.step(out, t, x, generator=generator, **how).prev_sample
    return x.float()


UNETS = {
    "scale-shift, 4 heads": {},
    "additive, 4 heads": {"conditioning": "additive"},
    "1 head, several widths": {"heads": 1, "channel_mult": (1, 2, 3), "attention": (16, 4)},
    "1 head, no attention but the middle": {"heads": 1, "attention": ()},
    "2 blocks, one stage": {"res_blocks": 2, "channel_mult": (1,), "attention": (16,)},
}


@pytest.mark.parametrize("name", UNETS)
@torch.inference_mode()
def test_the_network_is_the_same_function(name, diffusers, tmp_path):
    config = unet(**UNETS[name])
    run_of(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    ours = load_trained(tmp_path / "run", config, 1.0, 0, Housekeeping(device="cpu")).model
    x, t = noise()(), torch.tensor([1, 3997])
    diffusion = Diffusion(training_chain(config.diffusion))
    wanted = ours(x, diffusion.network_time(t))
    assert wanted.abs().mean() > 0.1
    assert (theirs(x, t - 1).sample - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_which_of_openais_models_it_has_networks_for(model, diffusers):
    """Names and shapes; those with one head, or with attention at one width.

    The upsampler's has no pipeline all the same.
    """
    ours, config = model.network(), model.config()
    if model.name.startswith("imagenet64"):
        with pytest.raises(Refused, match="attention heads of one width, and the 4 heads"):
            heads_and_groups(ours)
        return
    timing, told = time_settings(Diffusion(training_chain(config.diffusion)))
    given = 6 if model.enlarges else 3
    settings = architecture(config.unet, model.size, given, 6) | heads_and_groups(ours) | timing
    settings["num_class_embeds"] = model.classes or None
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(**settings).state_dict()
    found = state(ours, ours.state_dict(), told)
    assert {k: x.shape for k, x in found.items()} == {k: x.shape for k, x in theirs.items()}


CHAINS = {
    "a few of 4000, cosine": (chain(4000, "cosine"), 20),
    "a few of 4000, linear": (chain(4000, "linear"), 20),
    "a few of 1000, told t itself": (chain(1000, "linear"), 13),
    "a few of 4000, told t itself": (chain(4000, "cosine", rescaled=False), 20),
    "all of 30": (chain(30, "cosine"), None),
    "all of 30, variance beta": (chain(30, "cosine", "simple"), None),
    "a few of 4000, variance beta": (chain(4000, "linear", "simple"), 20),
}


@pytest.mark.parametrize("name", CHAINS)
def test_its_ancestral_sampler_draws_the_same_images(name, diffusers, tmp_path):
    config, steps = CHAINS[name]
    run_of(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    variance = "beta" if config.objective.name == "simple" else "learned"
    ours = drawn_here(tmp_path / "run", config, SamplerConfig(steps=steps), variance=variance)
    exact = training_chain(config.diffusion).alpha_bar[1:]
    there = drawn_there(diffusers, tmp_path / "out", "DDPMScheduler", steps, exact=exact)
    assert 0.1 < ours.std() < 1.5
    assert (there - ours).abs().max() < 2e-5
    # Its own tables are products in float32, in which 1 - alpha_bar of the first steps is lost.
    rounded = drawn_there(diffusers, tmp_path / "out", "DDPMScheduler", steps)
    assert (rounded - ours).abs().max() < 2e-3


@pytest.mark.parametrize("objective", ["hybrid", "simple"])
def test_its_ddim_sampler_draws_the_same_images(objective, diffusers, tmp_path):
    config = chain(4000, "cosine", objective)
    run_of(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", "ddim")
    ours = drawn_here(tmp_path / "run", config, SamplerConfig("ddim", 20, "ddim"))
    exact = training_chain(config.diffusion).alpha_bar[1:]
    there = drawn_there(diffusers, tmp_path / "out", "DDIMScheduler", 20, exact=exact)
    assert (there - ours).abs().max() < 2e-5
    rounded = drawn_there(diffusers, tmp_path / "out", "DDIMScheduler", 20)
    assert (rounded - ours).abs().max() < 2e-3


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_its_pipelines_draw_the_same_images(sampler, diffusers, tmp_path):
    run_of(TINY, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", sampler)
    name, more = "DDPMPipeline", {}
    stride = "paper"
    if sampler == "ddim":
        name, more, stride = "DDIMPipeline", {"use_clipped_model_output": True}, "ddim"
    pipeline = getattr(diffusers, name).from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    more |= {"num_inference_steps": 10, "output_type": "np", "generator": generator}
    there = np.asarray(pipeline(batch_size=2, **more).images).transpose(0, 3, 1, 2)
    ours = drawn_here(tmp_path / "run", TINY, SamplerConfig(sampler, 10, stride))
    assert np.abs(there - (ours / 2 + 0.5).clamp(0, 1).numpy()).max() < 0.01


def test_a_class_conditional_network_is_given_its_labels(diffusers, tmp_path, capsys):
    config = unet(class_conditional=True)
    run_of(config, tmp_path / "run")
    main(["export", str(tmp_path / "run"), str(tmp_path / "out")])
    assert "class_labels=" in capsys.readouterr().out
    assert not (tmp_path / "out" / "model_index.json").exists()
    label = torch.tensor([1, 4])
    ours = drawn_here(tmp_path / "run", config, SamplerConfig(steps=10), label)
    exact = training_chain(config.diffusion).alpha_bar[1:]
    there = drawn_there(diffusers, tmp_path / "out", "DDPMScheduler", 10, label, exact)
    assert (there - ours).abs().max() < 2e-5
    other = drawn_there(diffusers, tmp_path / "out", "DDPMScheduler", 10, label - 1, exact)
    assert (other - ours).abs().max() > 0.01


REFUSED = {
    "4 heads of this network are 32 and 48 channels": unet(channel_mult=(1, 2, 3)),
    "this network has 4, 8, 12 and 32, as all": unet(channels=16),
    "begins at the width of its first stage": unet(channel_mult=(2, 2)),
    "no pipeline of pixels for a network that enlarges": replace(TINY, data=DataConfig(low=8)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_diffusers_has_no_network_for_is_refused(message, tmp_path):
    run_of(REFUSED[message], tmp_path / "run")
    with pytest.raises(Refused, match=message) as refused:
        export(tmp_path / "run", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_overwritten_and_nothing_is_left_half_written(tmp_path, monkeypatch):
    run_of(TINY, tmp_path / "run")
    (tmp_path / "there").mkdir()
    with pytest.raises(Refused, match="there exists: name a new folder"):
        export(tmp_path / "run", tmp_path / "there")
    with pytest.raises(Refused, match="is no run: give a folder of results/runs/"):
        export(tmp_path / "there", tmp_path / "out")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "run", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "there"}


def test_the_command_line(tmp_path, capsys):
    run_of(TINY, tmp_path / "run")
    out = tmp_path / "out"
    main(["export", str(tmp_path / "run"), str(out), "sampler=ddim"])
    said = capsys.readouterr().out
    assert f'DDIMPipeline.from_pretrained("{out}")' in said and "use_clipped_model" in said
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["trained_betas"] == training_chain(TINY.diffusion).beta[1:].tolist()
    assert json.loads((out / "unet" / "config.json").read_text())["out_channels"] == 3
    with safe_open(out / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        about = file.metadata()
        assert about["format"] == "pt" and json.loads(about["config"]) == to_dict(TINY)
        assert file.get_slice("conv_out.weight").get_shape() == [3, 64, 3, 3]
    with pytest.raises(Refused, match="give: export RUN_FOLDER OUT_FOLDER"):
        main(["export", str(tmp_path / "run")])
    with pytest.raises(Refused, match="sampler=ancestral or sampler=ddim"):
        main(["export", str(tmp_path / "run"), str(out), "sampler=euler"])
