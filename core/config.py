"""Every knob on one page, as data. No logic, and no torch: listing a grid must be quick.

`TrainConfig` holds what changes the weights that come out; its digest names a run. A measurement's
dataclass holds what changes the number that comes out; its digest names the measurement.
`Housekeeping` holds what changes neither, and is in no digest. "Paper" below is ImageNet 64x64
unless another data set is named.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal


def late(default: Any) -> Any:
    """A field added after results were published: left out of the digest at this default.

    The default must be the value that means "as before".
    """
    return field(default=default, metadata={"late": True})


@dataclass(frozen=True)
class DataConfig:
    name: Literal["fashion16", "fashion", "folder"] = "fashion16"
    digest: str = ""  # of the content, for `folder`: filled in when a grid is expanded
    images: int = late(0)  # of the training split, the first so many; 0: all of them
    size: int = late(0)  # pixels a side after averaging areas; 0: as they are
    low: int = late(0)  # the network enlarges: it is given the image at this size; 0: it is not


@dataclass(frozen=True)
class DiffusionConfig:
    T: int = 4000  # steps of the chain; paper 4000, DDPM 1000
    schedule: Literal["linear", "cosine", "sigmoid"] = "cosine"
    rescaled_time: bool = late(True)  # the network is told t on a scale of 1000, not of T


@dataclass(frozen=True)
class ObjectiveConfig:
    name: Literal["simple", "vlb", "hybrid", "gan"] = "hybrid"  # eq. 14, eq. 4, eq. 16, hinge
    vlb_weight: float = 0.001  # lambda of eq. 16, on the whole bound in bits/dim
    timesteps: Literal["uniform", "loss_second_moment"] = "uniform"  # eq. 18 is the latter
    history: int = 10  # losses kept per t by loss_second_moment; paper 10
    uniform_share: float = 0.001  # of its probability; OpenAI's code, not in the paper
    min_snr: float = late(0.0)  # gamma of min-SNR weighting of L_simple; 0: the paper's, unweighted


@dataclass(frozen=True)
class UNetConfig:
    channels: int = 128  # C; paper 128 (64, 96, 128, 192 in Figure 10)
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)  # paper; CIFAR-10 (1, 2, 2, 2)
    res_blocks: int = 3  # per stage
    attention: tuple[int, ...] = (16, 8)  # resolutions in pixels
    heads: int = 4
    dropout: float = 0.0  # paper 0; CIFAR-10 0.1 (linear) and 0.3 (cosine)
    conditioning: Literal["scale_shift", "additive"] = "scale_shift"
    class_conditional: bool = False
    width: float = late(1.0)  # of the network, relative to C: the sizes of Figure 10

    @property
    def base(self) -> int:
        """Channels at full resolution."""
        return round(self.channels * self.width)


@dataclass(frozen=True)
class OptimConfig:
    steps: int = 200_000  # paper 200K and 1.5M; CIFAR-10 500K
    batch_size: int = 128
    lr: float = 1e-4  # AdamW, betas (0.9, 0.999), eps 1e-8, constant after the warm-up
    weight_decay: float = 0.0
    warmup: int = 0  # steps of linear warm-up; paper none
    grad_clip: float = late(0.0)  # largest norm of the gradient; 0: no clipping, as in the paper
    ema: tuple[float, ...] = (0.9999,)  # rates of the averages; all come from one training
    lr_factor: float = late(1.0)  # on lr: 1 / sqrt(width) in Figure 10

    @property
    def rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.lr * self.lr_factor


@dataclass(frozen=True)
class GANConfig:
    """The rival of Table 4; defaults of SAGAN (Zhang et al. 2019, arXiv 1805.08318).

    A GAN takes steps, batch_size and ema from `optim`, channels and class_conditional from `unet`.
    """

    width: float = 1.0  # of both networks at full resolution, relative to unet.channels
    latent: int = 128  # entries of z
    lr_generator: float = 1e-4  # Adam, constant
    lr_discriminator: float = 4e-4
    beta1: float = 0.0  # of Adam, in both
    beta2: float = 0.9
    discriminator_steps: int = 1  # per step of the generator, each on a batch of its own


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the weights."""

    data: DataConfig = DataConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    unet: UNetConfig = UNetConfig()
    optim: OptimConfig = OptimConfig()
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network's arithmetic
    seed: int = 0
    recipe: int = 1  # raised when core/ changes the numbers of an unchanged configuration
    gan: GANConfig = late(GANConfig())  # noqa: RUF009 (of objective.name=gan)
    source: Literal["here", "openai"] = late("here")  # whose code trained; others' is imported

    @property
    def gan_channels(self) -> int:
        """Channels of a GAN's networks at full resolution."""
        return round(self.unet.channels * self.gan.width)


@dataclass(frozen=True)
class Housekeeping:
    """What leaves the numbers alone, up to floating-point order.

    But for the masks of dropout: those of another device or microbatch are others.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = 0  # CPU threads of one run; 0: all cores for a wide network, else its share
    compile: bool = False  # torch.compile
    channels_last: bool = False  # NHWC convolutions, in whose order tensor cores work
    microbatch: int = 0  # images per forward pass; 0: the whole batch
    gradient_checkpointing: bool = False  # keep stage inputs only; a third more time
    log_every: int = 50  # steps between two lines of log.jsonl
    checkpoint_seconds: float = 60.0  # between two checkpoints
    snapshots: tuple[float, ...] = ()  # fractions of the training kept, beside those measured
    eval_batch: int = 128  # images per forward pass when measuring
    data_path: str = ""  # folder, zip or prepared file of the data set
    features_path: str = ""  # file of the weights behind features=inception
    weights: Literal["trained", "reference"] = "trained"  # here, or those that come with the code


@dataclass(frozen=True)
class SamplerConfig:
    name: Literal["ancestral", "ddim"] = "ancestral"
    steps: int | None = None  # K; None: all T
    stride: Literal["paper", "ddim", "quadratic", "dynamic"] = "paper"
    eta: float = 0.0  # DDIM only
    skip: float = 0.0  # fraction of the reverse process left out at its noisy end


@dataclass(frozen=True)
class Likelihood:
    """The variational bound in bits/dim. Metric `nll`."""

    split: Literal["test", "train"] = "test"
    images: int = 1000  # the first of the split; OpenAI's default
    variance: Literal["beta", "beta_tilde", "learned", "analytic"] = "learned"
    steps: int | None = None  # K evaluation steps (appendix E); None: all T
    stride: Literal["extended", "paper", "dynamic"] = "extended"
    estimator: Literal["full", "stratified"] = "stratified"
    ema: int = 0  # which of the run's averages; -1: the weights themselves
    at: float = 1.0  # fraction of the training
    seed: int = 0  # of the noise and the estimator's draws; grids add the run's own
    partner: str = late("")  # id of a run that predicts near the ends of the chain (appendix D)
    ends: float = late(0.0)  # fraction of the steps at either end that are its; paper 0.025


@dataclass(frozen=True)
class Frechet:
    """Frechet distance between drawn images and the training set. Metric `frechet`."""

    images: int = 10_000  # paper 10K on ImageNet 64, 50K elsewhere
    features: Literal["fashion_cnn", "effnet_lite0", "inception"] = "fashion_cnn"
    reference: Literal["train", "test"] = "train"
    sampler: SamplerConfig = SamplerConfig()
    variance: Literal["beta", "beta_tilde", "learned", "analytic"] = "learned"
    ema: int = 0
    at: float = 1.0
    seed: int = 0  # of the starting points and the noise; grids add the run's own
    partner: str = late("")  # as above; of a network that enlarges: id of the run that draws
    ends: float = late(0.0)
    neighbours: int = late(0)  # k of precision and recall; 0: neither; paper 5
    sets: int = late(0)  # disjoint ones that the images are also measured in; 0: none
    features_sha256: str = late("")  # of inception's file, where it is not a published one: no FID


@dataclass(frozen=True)
class LearnedVariance:
    """The v that a network predicts along t (eq. 15). Metric `learned_v`."""

    split: Literal["test", "train"] = "test"
    images: int = 64  # the first of the split
    timesteps: int = 100  # evenly spaced over 1..T, both ends included
    ema: int = 0
    at: float = 1.0
    seed: int = 0  # of the noise; grids add the run's own


@dataclass(frozen=True)
class GradientNoise:
    """Noise scale of the training gradient (McCandlish et al. 2018). Metric `gradient_noise`."""

    images: int = 1024  # training images, in batches of `batch`
    batch: int = 16
    ema: int = -1  # of the weights that are trained
    at: float = 1.0
    seed: int = 0  # of images, timesteps and noise; grids add the run's own


Measurement = Likelihood | Frechet | LearnedVariance | GradientNoise
METRICS: dict[str, type] = {
    "nll": Likelihood,
    "frechet": Frechet,
    "learned_v": LearnedVariance,
    "gradient_noise": GradientNoise,
}


def metric_of(measurement: Measurement) -> str:
    """The name under which grids ask for this measurement."""
    return next(name for name, kind in METRICS.items() if isinstance(measurement, kind))


def to_dict(config: Any) -> dict:
    """Nested plain dict of a configuration, tuples as lists: what is stored and digested.

    Late fields at their default are left out.
    """
    out = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("late") and value == f.default:
            continue
        if hasattr(value, "__dataclass_fields__"):
            value = to_dict(value)
        out[f.name] = list(value) if isinstance(value, tuple) else value
    return out


def from_dict(kind: type, values: dict) -> Any:
    """The inverse of `to_dict`: a configuration of type `kind` from what was stored."""
    arguments = {}
    for f in fields(kind):
        if f.name not in values:
            continue
        value = values[f.name]
        if isinstance(value, dict):
            value = from_dict(f.type, value)
        arguments[f.name] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)
