"""The GAN: its networks and loss, a training like any other, images that stand for themselves."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from core import build, checkpoint
from core.config import (
    Frechet,
    GANConfig,
    GradientNoise,
    Housekeeping,
    LearnedVariance,
    Likelihood,
    ObjectiveConfig,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images
from core.data.sources import load
from core.distributed import Ranks
from core.errors import Refused
from core.gan_trainer import GANTrainer, discriminator_loss, generator_loss
from core.measurements import draw_images
from core.measurements.frechet import measure_frechet
from core.networks.gan import Discriminator, Generator
from core.parts import Work
from core.trained import load_trained
from core.training import RESUME, SNAPSHOT, Interrupted, read_log, train
from experiments import plan
from experiments.asked import measurements_of, not_applicable
from experiments.costs import training_evaluations
from experiments.grid import expand
from experiments.limits import check
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs, digest, label

KEEPING = Housekeeping(device="cpu", log_every=4, eval_batch=16)
CONFIG = TrainConfig(
    objective=ObjectiveConfig("gan"),
    unet=UNetConfig(channels=8, class_conditional=True),
    optim=OptimConfig(steps=13, batch_size=8, ema=(0.5, 0.9)),
    gan=GANConfig(latent=6, discriminator_steps=2),
)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
IMAGES = Images("made up", torch.from_numpy(PIXELS), torch.arange(40) % 5, 5)


def with_gan(**gan) -> TrainConfig:
    return replace(CONFIG, gan=replace(CONFIG.gan, **gan))


def trained_for(steps: int, config: TrainConfig = CONFIG, images: Images = IMAGES) -> GANTrainer:
    trainer = GANTrainer(config, images, KEEPING)
    for _ in range(steps):
        trainer.one_step()
    return trainer


def weights_as_used(discriminator: Discriminator) -> dict[str, Tensor]:
    """Of every layer, divided by its largest singular value."""
    layers = discriminator.eval().named_modules()
    return {k: x.weight for k, x in layers if isinstance(getattr(x, "weight", None), Tensor)}


def flat(state, name: str = "state") -> dict:
    """Leaves of nested states by their path."""
    if not isinstance(state, (dict, list)):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {k: v for key, inner in items for k, v in flat(inner, f"{name}.{key}").items()}


def assert_same(a, b) -> None:
    """Equal to the last bit."""
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert torch.equal(x, b[name]) if isinstance(x, Tensor) else x == b[name], name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a run that is trained."""
    folder = tmp_path_factory.mktemp("run")
    train(CONFIG, IMAGES, folder, replace(KEEPING, snapshots=(0.5,)))
    return folder


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_both_networks_fit_images_of_all_sizes(size, channels, classes):
    generator = Generator(size, channels, 4, 5, classes)
    discriminator = Discriminator(size, channels, 4, classes)
    label = torch.tensor([0, 2]) if classes else None
    images = generator(torch.randn(2, 5), label)
    assert images.shape == (2, channels, size, size) and images.abs().max() <= 1
    assert discriminator(images, label).shape == (2,)


@pytest.mark.parametrize("size", [4, 12, 24])
def test_images_of_other_sizes_are_refused_in_a_line(size):
    for make in (build.network, build.discriminator):
        with pytest.raises(Refused, match=rf"gan: {size}x{size} images are not 4 \* 2\^k"):
            make(CONFIG, 1, size, 5)


def test_images_without_labels_are_refused_by_a_class_conditional_gan():
    with pytest.raises(Refused, match="class_conditional=true needs labels"):
        GANTrainer(CONFIG, replace(IMAGES, labels=None, classes=0), KEEPING)


def test_a_gan_without_classes_trains_and_draws_as_well(tmp_path):
    config = replace(CONFIG, unet=replace(CONFIG.unet, class_conditional=False))
    train(config, IMAGES, tmp_path, KEEPING)
    trained = load_trained(tmp_path, config, 1.0, 0, KEEPING)
    assert trained.model.label_embedding is None
    assert draw_images(trained, range(3), SamplerConfig(), "beta", 0, 2).shape == (3, 1, 8, 8)


def test_the_hinge_loss_is_the_one_computed_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.25])
    assert discriminator_loss(real, fake).item() == pytest.approx((0.5 + 2) / 3 + (1 + 1.25) / 3)
    assert discriminator_loss(torch.zeros(2), torch.zeros(2)).item() == 2
    assert discriminator_loss(torch.ones(2), -torch.ones(2)).item() == 0
    assert generator_loss(fake).item() == pytest.approx((3 - 0.25) / 3)


def test_the_logit_is_linear_in_the_embedding_of_the_class():
    torch.manual_seed(0)
    discriminator = Discriminator(8, 1, 4, 3).eval()
    x, label = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    embedding = discriminator.label_embedding
    torch.nn.utils.parametrize.remove_parametrizations(embedding, "weight")

    def logits(weight: Tensor) -> Tensor:
        with torch.no_grad():
            embedding.weight.copy_(weight)
            return discriminator(x, label)

    a, b = torch.randn(2, 3, 8)
    none = logits(torch.zeros(3, 8))
    of_a, of_b = logits(a) - none, logits(b) - none
    torch.testing.assert_close(logits(2 * a - 3 * b) - none, 2 * of_a - 3 * of_b)
    assert none.std() > 0 and (of_a != 0).all()
    a[1] = 0  # each image meets the row of its own class alone
    assert torch.equal(logits(a) == none, label == 1)


def test_the_largest_singular_value_of_every_layer_stays_near_one():
    trainer = trained_for(20)
    used = weights_as_used(trainer.discriminator)
    assert len(used) == 2 * 3 + 2  # two blocks of three convolutions, a linear layer, an embedding
    for name, weight in used.items():
        assert 0.8 < torch.linalg.matrix_norm(weight.flatten(1), 2) < 1.05, name
    raw = [p for k, p in trainer.discriminator.named_parameters() if k.endswith("original")]
    largest = [torch.linalg.matrix_norm(p.detach().flatten(1), 2).item() for p in raw]
    assert len(raw) == len(used) and max(largest) > 1.5


def test_the_class_and_every_entry_of_z_matter_to_an_image():
    generator = build.network(CONFIG, 1, 8, 5).eval()
    z, label = torch.randn(1, 6), torch.tensor([0])
    with torch.no_grad():
        image = generator(z, label)
        assert not torch.equal(generator(z, label + 1), image)
        for i in range(6):
            assert not torch.equal(generator(z + torch.eye(6)[i], label), image)


def train_until(step: int, config: TrainConfig, folder) -> dict:
    """Trains until it is stopped after `step`; what was then saved."""
    steps = [0]
    with pytest.raises(Interrupted):
        train(
            *(config, IMAGES, folder, KEEPING),
            progress=lambda done, total, words: steps.append(done),
            stop=lambda: steps[-1] == step,
        )
    state = checkpoint.newest(folder / "checkpoints", RESUME)
    del state["log"]  # which has times
    return state


def test_a_training_interrupted_twice_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    expected = train_until(12, CONFIG, whole)
    early = train_until(3, CONFIG, parts)
    train_until(6, CONFIG, parts)
    state = train_until(12, CONFIG, parts)
    assert_same(state, expected)
    vectors = [k for k in state["discriminator"] if k.endswith("_u")]
    assert len(vectors) == 8  # the spectral norms', of which all but those of one entry move
    moved = [not torch.equal(early["discriminator"][k], state["discriminator"][k]) for k in vectors]
    assert sum(moved) == 7
    for folder in (whole, parts):
        train(CONFIG, IMAGES, folder, KEEPING)
    a, b = (checkpoint.newest(folder / "checkpoints", SNAPSHOT) for folder in (whole, parts))
    assert_same(a, b)
    assert set(a) == {"config", "images", "step", "model", "ema"}  # nothing of the discriminator
    lines = [read_log(folder / "log.jsonl") for folder in (whole, parts)]
    for line in lines[0] + lines[1]:
        del line["seconds_per_step"]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [4, 8, 12, 13]


def test_a_step_depends_on_its_seed_and_number_and_not_on_the_global_generator():
    lines = []
    for noise, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(noise)
        trainer = trained_for(2, replace(CONFIG, seed=seed))
        lines.append(trainer.log_line())
    assert lines[0] == lines[1] != lines[2]


def test_averages_are_those_of_the_generators_weights():
    trainer = trained_for(0)
    expected = [p.detach().clone() for p in trainer.model.parameters()]
    for _ in range(3):
        trainer.one_step()
        expected = [
            0.5 * e + 0.5 * p.detach() for e, p in zip(expected, trainer.model.parameters())
        ]
    averages = trainer.ema.state_dict()["0"]
    assert list(averages) == list(trainer.model.state_dict())  # no buffers are left out
    for average, e in zip(averages.values(), expected):
        torch.testing.assert_close(average, e)
    moved = [not torch.equal(e, p) for e, p in zip(expected, trainer.model.parameters())]
    assert all(moved)


@pytest.mark.parametrize("still, moves", [("opponent", "model"), ("optimizer", "discriminator")])
def test_each_optimizer_moves_its_own_network_alone(still, moves):
    trainer = trained_for(1)
    getattr(trainer, still).param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.one_step()
    moved = {id(p) for p, q in zip(trainer.parameters, before) if not torch.equal(p, q)}
    assert moved and moved <= {id(p) for p in getattr(trainer, moves).parameters()}


def test_images_take_on_the_grey_of_their_class():
    """Five classes of nearly uniform grey, from dark to light."""
    label, noise = torch.arange(200) % 5, torch.Generator().manual_seed(0)
    levels = torch.tensor([20, 70, 120, 170, 220])
    flicker = torch.randint(-10, 10, (200, 1, 8, 8), generator=noise)
    pixels = (levels[label][:, None, None, None] + flicker).to(torch.uint8)
    config = replace(CONFIG, gan=GANConfig(latent=6, lr_generator=2e-3, lr_discriminator=4e-3))
    config = replace(config, optim=replace(CONFIG.optim, batch_size=32, ema=(0.9,)))
    trainer = GANTrainer(config, Images("greys", pixels, label, 5), KEEPING)

    def error() -> float:
        """Of the mean grey of each class, in [-1, 1]."""
        model = deepcopy(trainer.model).eval()
        model.load_state_dict(trainer.ema.state_dict()["0"])
        z = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            drawn = model(z, torch.arange(100) % 5).view(20, 5, 64).mean(dim=(0, 2))
        return (drawn - (levels / 127.5 - 1)).abs().mean().item()

    before = error()
    for _ in range(80):
        trainer.one_step()
    assert error() < 0.3 * before


def test_the_network_computes_in_bfloat16_and_trains_float32_weights():
    lines = {}
    for precision in ("float32", "bfloat16"):
        trainer = trained_for(3, replace(CONFIG, precision=precision))
        lines[precision] = trainer.log_line()
        assert trainer.finite() and {p.dtype for p in trainer.parameters} == {torch.float32}
    assert lines["bfloat16"]["loss"] != lines["float32"]["loss"]
    assert lines["bfloat16"]["loss"] == pytest.approx(lines["float32"]["loss"], rel=0.02)


def test_a_training_that_diverges_is_refused_naming_the_rates(tmp_path):
    with pytest.raises(Refused, match=r"diverged.*lower gan.lr_generator and gan.lr_discriminator"):
        train(with_gan(lr_generator=1e30, lr_discriminator=1e30), IMAGES, tmp_path, KEEPING)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(Refused, match="batch_size=8 cannot be shared by 3"):
        GANTrainer(CONFIG, IMAGES, KEEPING, Ranks(0, 3))


def test_an_image_depends_on_its_seed_and_number_alone(folder):
    trained = load_trained(folder, CONFIG, 1.0, 0, KEEPING)

    def draw(which: range, batch: int, seed: int = 0) -> Tensor:
        return draw_images(trained, which, SamplerConfig(steps=7), "beta", seed, batch)

    images = draw(range(70), 128)
    assert images.shape == (70, 1, 8, 8) and len({x.numpy().tobytes() for x in images}) == 70
    for batch in (1, 5, 16, 33):
        assert torch.equal(draw(range(70), batch), images)
    assert torch.equal(draw(range(40, 43), 2), images[40:43])
    assert not torch.equal(draw(range(5), 5, seed=1), images[:5])


def test_image_i_is_of_class_i_mod_the_number_of_classes(folder):
    trained = load_trained(folder, CONFIG, 1.0, 0, KEEPING)
    rows = trained.model.label_embedding.weight
    before = draw_images(trained, range(10), SamplerConfig(), "beta", 0, 10)
    rows[2] += 3
    after = draw_images(trained, range(10), SamplerConfig(), "beta", 0, 10)
    assert [not torch.equal(a, b) for a, b in zip(before, after)] == [i % 5 == 2 for i in range(10)]


def test_what_is_drawn_is_of_the_average_and_the_fraction_asked_for(folder):
    found = set()
    for at in (0.5, 1.0):
        for ema in (-1, 0, 1):
            trained = load_trained(folder, CONFIG, at, ema, KEEPING)
            drawn = draw_images(trained, range(2), SamplerConfig(), "beta", 0, 2)
            found.add(drawn.numpy().tobytes())
    assert len(found) == 6


def test_a_frechet_distance_takes_one_evaluation_per_image(tmp_path):
    images = load("fashion16", "train")
    images = replace(images, pixels=images.pixels[:200], labels=images.labels[:200])
    config = replace(CONFIG, optim=replace(CONFIG.optim, steps=1))
    train(config, images, tmp_path, KEEPING)
    seen = []
    work = Work(KEEPING, tmp_path / "part", tmp_path, lambda done, total, words: seen.append(done))
    trained = load_trained(tmp_path, config, 1.0, 0, KEEPING)
    settings = Frechet(images=70, sampler=SamplerConfig(steps=50))
    result = measure_frechet(trained, settings, images, work)
    assert result.numbers["steps"] == 1 and result.numbers["frechet"] > 0
    assert seen[-1] == 70 and len(seen) == 5  # batches of 16
    drawn = draw_images(trained, range(64), SamplerConfig(), "beta", 0, 16)
    assert np.array_equal(result.arrays["samples"], drawn.numpy())


def test_what_has_no_meaning_for_a_gan_is_left_out_of_a_grid():
    names = {"nll": "nll", "fd": "frechet", "v": "learned_v", "noise": "gradient_noise"}
    grid = {"measure": {name: {"metric": metric} for name, metric in names.items()}}
    assert [a.name for a in measurements_of(CONFIG, "mine", grid, {}, [])] == ["fd"]
    hybrid = replace(CONFIG, objective=ObjectiveConfig("hybrid"))
    assert [a.name for a in measurements_of(hybrid, "mine", grid, {}, [])] == list(names)
    for settings in (Likelihood(), LearnedVariance(), GradientNoise()):
        assert "a GAN has neither a likelihood" in not_applicable(CONFIG, settings)
    assert not_applicable(CONFIG, Frechet()) is None


def test_the_rows_of_table_4_are_a_gan_and_two_sizes_of_one_diffusion_model():
    grid = expand(parse(["grid=gan_comparison", "scale=laptop"]))
    gan, small, large = (cell.config for cell in grid.cells)
    assert [cell.words for cell in grid.cells] == ["GAN", "small", "large"]
    assert [c.objective.name for c in (gan, small, large)] == ["gan", "hybrid", "hybrid"]
    assert all(c.unet.class_conditional for c in (gan, small, large))
    assert large.unet.base == 1.5 * small.unet.base
    assert replace(large, unet=small.unet, optim=small.optim) == small
    assert {a.settings.sampler.steps for cell in grid.cells for a in cell.measurements} == {250}


def ids(*words: str) -> list[str]:
    return [cell.run_id for cell in expand(parse(list(words))).cells]


def test_settings_of_the_gan_are_in_the_ids_of_gans_alone():
    before = ids("grid=gan_comparison", "scale=smoke")
    after = ids("grid=gan_comparison", "scale=smoke", "gan.latent=3")
    assert [a == b for a, b in zip(before, after)] == [False, True, True]
    others = ("grid=schedule_ablation", "scale=smoke")
    assert ids(*others, "gan.latent=3") == ids(*others)


def test_an_id_depends_on_every_setting_of_a_gan():
    changes = {"width": 2.0, "latent": 7, "lr_generator": 1.0, "lr_discriminator": 1.0}
    changes |= {"beta1": 0.5, "beta2": 0.5, "discriminator_steps": 3}
    assert changes.keys() == GANConfig.__dataclass_fields__.keys()
    found = {digest(with_gan(**{key: value})) for key, value in changes.items()}
    assert len(found | {digest(CONFIG)}) == len(changes) + 1


def test_the_folder_of_a_gan_does_not_speak_of_a_chain():
    assert label(CONFIG) == "fashion16-gan-s0"


@pytest.mark.parametrize(
    "field, value",
    [
        *(
            ("latent", 0),
            ("width", 0.05),
            ("lr_generator", 0.0),
            ("lr_discriminator", float("nan")),
        ),
        *(("beta1", 1.0), ("beta2", -0.1), ("discriminator_steps", 0)),
    ],
)
def test_a_value_that_no_gan_can_have_is_refused(field, value):
    check(CONFIG, {})
    with pytest.raises(Refused, match=rf"^gan\.{field}={value} must be"):
        check(with_gan(**{field: value}), {})


def test_the_operations_of_a_training_are_those_of_its_steps():
    config = with_gan(latent=4)
    trainer = trained_for(0, config)
    with FlopCounterMode(display=False) as counter:
        trainer.one_step()
    planned = plan.training(config, (1, 8, 5), KEEPING).flops / config.optim.steps
    # The plan counts a gradient for the images as well, in both steps of the discriminator:
    # of a 3 x 3 and a 1 x 1 convolution from 1 channel to 8, over 64 pixels.
    of_images = 2 * 16 * 2 * 64 * 8 * (9 + 1)
    assert counter.get_total_flops() == planned - of_images


def test_a_gan_is_priced_with_both_networks_and_kept_with_one(tmp_path):
    request = parse(["grid=gan_comparison", "scale=smoke", f"results={tmp_path}"])
    task = tasks_of(distinct([expand(request)], Runs(tmp_path)), request)[0]
    price, form = plan.price(task), (1, 16, 10)
    generator, discriminator = (
        sum(p.numel() for p in make(task.config, *form).parameters())
        for make in (build.network, build.discriminator)
    )
    assert price.parameters == generator + discriminator
    assert price.disk == 2 * 4 * generator  # the weights and one average, of one snapshot
    assert price.memory > 4 * (4 * price.parameters + generator)
    drawing, _ = plan.adversaries(task.config, form)
    assert price.flops["fd"] == 80 * drawing.forward_flops
    assert training_evaluations(task.config) == 20 * 16 * (4 + 8)
