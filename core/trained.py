"""A network ready to be measured: the weights of one snapshot, raw or averaged."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import build, checkpoint
from core.config import Housekeeping, TrainConfig, from_dict
from core.data.images import enlarged
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.samplers import Denoise
from core.errors import Refused
from core.training import SNAPSHOT, snapshot_step

FEWEST = 16  # images per network evaluation
LARGEST = (4, 4096, 10**6)  # channels, pixels a side, classes: no file asks for more memory


@dataclass(frozen=True)
class Trained:
    """`model` is in eval mode on `device`; `shape` is (C, H, W) of its images."""

    config: TrainConfig
    model: nn.Module
    device: torch.device
    shape: tuple[int, int, int]
    classes: int
    timesteps: dict = field(default_factory=dict)  # state of the sampler of training timesteps

    def denoiser(
        self, diffusion: Diffusion, label: Tensor | None, low: Tensor | None = None
    ) -> Denoise:
        """(x_t, t) -> Prediction; label [N] is used by class-conditional networks only.

        low: [N, C, h, h] in [-1, 1], for networks that enlarge, and only for them.

        Batches of fewer than FEWEST images are filled up: matrix products with very few rows take
        another path, whose rounding differs, and an image must not depend on its batch.
        """
        labels = filled(label).to(self.device) if self.config.unet.class_conditional else None
        given = None if low is None else filled(enlarged(low, self.shape[-1]))
        run = build.denoiser(self.model, diffusion, self.config.precision, labels, given)

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            n = len(x)
            eps, v = run(filled(x), filled(t, 1))
            return Prediction(eps[:n], None if v is None else v[:n])

        return denoise

    def generate(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] that a GAN's generator makes of z [N, latent].

        label as in `denoiser`; batches are filled up as there.
        """
        labels = filled(label).to(self.device) if self.config.unet.class_conditional else None
        half = self.config.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.model(filled(z.to(self.device)), labels)[: len(z)].float()


def filled(x: Tensor, value: float = 0) -> Tensor:
    """x [N, ...] with so many items of `value` after its own that there are FEWEST."""
    missing = max(0, FEWEST - len(x))
    return F.pad(x, [0, 0] * (x.dim() - 1) + [0, missing], value=value) if missing else x


@dataclass(frozen=True, kw_only=True)
class Mixed(Trained):
    """Two networks, of which `partner` predicts near both ends of the chain (appendix D).

    Of the T steps the first and the last round(ends T) are the partner's.
    """

    partner: Trained
    ends: float

    def denoiser(
        self, diffusion: Diffusion, label: Tensor | None, low: Tensor | None = None
    ) -> Denoise:
        """As of one network. A batch with steps of both kinds is divided."""
        original, T = torch.as_tensor(diffusion.schedule.t), diffusion.schedule.T
        n = round(self.ends * T)
        theirs = ((original <= n) | (original > T - n)).to(self.device)
        of_partner, own = self.partner.denoiser, super().denoiser
        whole_partner, whole_own = (make(diffusion, label, low) for make in (of_partner, own))

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            end = theirs[t]
            if end.all():
                return whole_partner(x, t)
            if not end.any():
                return whole_own(x, t)
            parts = []
            for mask, make in ((end, of_partner), (~end, own)):
                of_part = (None if y is None else y[mask.to(y.device)] for y in (label, low))
                parts.append((mask, make(diffusion, *of_part)(x[mask], t[mask])))
            return Prediction(*(_joined(x, [(m, p[i]) for m, p in parts]) for i in range(2)))

        return denoise


def _joined(like: Tensor, parts: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """One tensor from the parts for which the masks hold, None if a part is."""
    out = torch.empty_like(like)
    for mask, part in parts:
        if part is None:
            return None
        out[mask] = part
    return out


def snapshot_path(folder: Path, at: float, steps: int) -> Path | None:
    """The snapshot at the fraction `at` of a training of `steps`, if it is on this disk."""
    name = f"{SNAPSHOT}-{snapshot_step(at, steps):08d}."
    found = checkpoint.paths(folder / "checkpoints", SNAPSHOT)
    return next((path for path in found if path.name.startswith(name)), None)


def load_trained(
    folder: Path, config: TrainConfig, at: float, ema: int, housekeeping: Housekeeping
) -> Trained:
    """The snapshot at the fraction `at` of a run's training, with average number `ema` (-1: raw).

    Refused when there is none, it is damaged, or the run keeps no such average.
    """
    path = snapshot_path(folder, at, config.optim.steps)
    if path is None:
        raise Refused(f"{folder} holds no snapshot at {at:g} of its training", code=1)
    if ema >= len(config.optim.ema):
        raise Refused(f"measure.ema={ema}, but the run keeps {len(config.optim.ema)} average(s)")
    state = checkpoint.load(path)
    with checkpoint.fitting(path):
        same = from_dict(TrainConfig, json.loads(state["config"])) == config
        weights = state.get("model") if ema < 0 else state["ema"].get(str(ema))
        channels, size, classes = form = tuple(map(int, state["images"]))
        if not all(0 <= n <= most for n, most in zip(form, LARGEST)):
            raise ValueError(f"images of {channels} x {size} x {size}, {classes} classes")
    if not same:
        raise Refused(f"{path} belongs to another configuration than its folder: delete it", code=1)
    if weights is None:
        raise Refused(f"{path} holds the first average alone, and measure.ema={ema} is another")
    with checkpoint.fitting(path):
        model = build.network(config, channels, size, classes)
        model.load_state_dict(weights)
    build.placed(model, housekeeping).eval().requires_grad_(False)
    shape, device = (channels, size, size), build.device(housekeeping)
    return Trained(config, model, device, shape, classes, state.get("timesteps", {}))
