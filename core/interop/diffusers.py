"""A trained run as a pipeline of Hugging Face's diffusers.

    python -m core.interop.diffusers export RUN_FOLDER OUT_FOLDER [sampler=ddim]

Writes the run's final average as a UNet2DModel, and its chain, beta by beta, as a DDPMScheduler or,
with sampler=ddim, without the learned variance and as a DDIMScheduler: the same starting points and
noise then give the same images. Refused, saying why, where UNet2DModel has no such network.
"""

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import save

from core.chains import training_chain
from core.command import start
from core.config import Housekeeping, TrainConfig, from_dict, to_dict
from core.diffusion.process import Diffusion
from core.errors import Refused, unwritable_is_said
from core.interop.diffusers_unet import architecture, heads_and_groups, state, time_settings
from core.trained import Trained, load_trained

VERSION = "0.30.0"  # of diffusers, the oldest that has all that is used
CLASSES = {
    "ancestral": ("DDPMPipeline", "DDPMScheduler"),
    "ddim": ("DDIMPipeline", "DDIMScheduler"),
}


def unet_files(trained: Trained, sampler: str) -> tuple[dict, bytes]:
    """config.json and the weights, as safetensors, of a UNet2DModel."""
    config, model = trained.config, trained.model
    if config.objective.name == "gan":
        raise Refused("a GAN's generator is no UNet2DModel: export a diffusion model")
    if config.data.low:
        raise Refused("diffusers has no pipeline of pixels for a network that enlarges")
    if config.unet.channel_mult[0] != 1:
        raise Refused("diffusers' UNet2DModel begins at the width of its first stage: C of ours")
    channels, size, _ = trained.shape
    weights = model.state_dict()
    if sampler == "ddim":  # DDIMScheduler takes the noise alone
        weights |= {name: weights[name][:channels] for name in ("out.2.weight", "out.2.bias")}
    timing, told = time_settings(Diffusion(training_chain(config.diffusion)))
    settings = {"_class_name": "UNet2DModel", "_diffusers_version": VERSION}
    settings |= architecture(config.unet, size, channels, len(weights["out.2.bias"]))
    settings |= heads_and_groups(model) | timing
    if config.unet.class_conditional:
        settings["num_class_embeds"] = trained.classes
    about = {"format": "pt", "config": json.dumps(to_dict(config), sort_keys=True)}
    return settings, save(state(model, weights, told), about)


def scheduler_config(config: TrainConfig, sampler: str) -> dict:
    """scheduler_config.json: every beta of the chain, since rescaled ones have no other name.

    Fewer steps are kept as we keep them: by the paper's stride, or DDIM's constant one. L_simple
    leaves the variance open: sigma^2 = beta, as in the paper's baseline.
    """
    settings = {
        "_class_name": CLASSES[sampler][1],
        "_diffusers_version": VERSION,
        "num_train_timesteps": config.diffusion.T,
        "trained_betas": training_chain(config.diffusion).beta[1:].tolist(),
        "clip_sample": True,
        "prediction_type": "epsilon",
    }
    if sampler == "ddim":
        return settings | {"timestep_spacing": "leading", "set_alpha_to_one": True}
    learned = config.objective.name != "simple"
    variance = "learned_range" if learned else "fixed_large"
    return settings | {"timestep_spacing": "linspace", "variance_type": variance}


def export(folder: Path, to: Path, sampler: str = "ancestral") -> TrainConfig:
    """Writes the pipeline `to`, whole or not at all; the run's configuration.

    Refused when the folder is no run with a final snapshot, `to` exists, or UNet2DModel has no such
    network. A class-conditional one has no model_index.json, since no pipeline gives it labels.
    """
    if to.exists():
        raise Refused(f"{to} exists: name a new folder")
    try:
        config = from_dict(TrainConfig, json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{folder} is no run: give a folder of results/runs/") from error
    trained = load_trained(folder, config, 1.0, 0, Housekeeping(device="cpu"))
    settings, weights = unet_files(trained, sampler)
    pipeline, scheduler = CLASSES[sampler]
    index = {
        "_class_name": pipeline,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler],
        "unet": ["diffusers", "UNet2DModel"],
    }
    files = {
        "unet/config.json": _json(settings),
        "unet/diffusion_pytorch_model.safetensors": weights,
        "scheduler/scheduler_config.json": _json(scheduler_config(config, sampler)),
    }
    if not config.unet.class_conditional:
        files["model_index.json"] = _json(index)
    made = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        with unwritable_is_said(to):
            for name, content in files.items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
            os.rename(made, to)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return config


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def main(words: list[str]) -> None:
    """The command line."""
    given = dict(word.split("=", 1) for word in words if word.startswith("sampler="))
    plain = [word for word in words if not word.startswith("sampler=")]
    sampler = given.get("sampler", "ancestral")
    if len(plain) != 3 or plain[0] != "export" or sampler not in CLASSES:
        raise Refused("give: export RUN_FOLDER OUT_FOLDER [sampler=ancestral or sampler=ddim]")
    to = Path(plain[2])
    config = export(Path(plain[1]), to, sampler)
    pipeline, scheduler = CLASSES[sampler]
    if config.unet.class_conditional:
        print(f'{to}: load UNet2DModel from "unet" and {scheduler} from "scheduler"; pipelines of')
        print("diffusers give no labels, so call them yourself, with class_labels=")
        return
    more = ", use_clipped_model_output=True" if sampler == "ddim" else ""
    print(f'{to}: {pipeline}.from_pretrained("{to}")(num_inference_steps=50{more})')


if __name__ == "__main__":
    start(main, needs_words=True)
