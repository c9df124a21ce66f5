"""Configurations as data: there and back again, and how a new field keeps the old ids."""

from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

from core.config import (
    METRICS,
    DiffusionConfig,
    Frechet,
    Housekeeping,
    Likelihood,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
    from_dict,
    late,
    metric_of,
    to_dict,
)
from experiments.runs import digest


@dataclass(frozen=True)
class Inner:
    size: int = 3
    blur: float = late(0.0)


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    shape: tuple[int, ...] = (1, 2)
    flips: bool = late(False)


@dataclass(frozen=True)
class BeforeTheLateFields:
    inner: dict
    shape: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(
            diffusion=DiffusionConfig(30, "linear"),
            unet=UNetConfig(channel_mult=(1, 1), attention=(), class_conditional=True),
            optim=OptimConfig(ema=(0.5, 0.9), steps=3),
            precision="bfloat16",
            seed=7,
        ),
        Housekeeping(snapshots=(0.25, 0.5), data_path="images.zip"),
        Likelihood(steps=50, at=0.5, ema=-1),
        Frechet(sampler=SamplerConfig("ddim", steps=50, eta=0.5)),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_configuration_is_the_same_after_being_stored_and_read(config):
    stored = to_dict(config)
    assert from_dict(type(config), stored) == config
    late = {f.name for f in fields(config) if f.metadata.get("late")}  # all at their defaults
    assert list(stored) == [f.name for f in fields(config) if f.name not in late]
    assert_plain(stored)


def assert_plain(value) -> None:
    """Nothing but what JSON keeps apart."""
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for inner in value.values():
            assert_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            assert_plain(inner)
    else:
        assert value is None or type(value) in (bool, int, float, str)


def test_what_is_stored_is_nested_and_has_lists_for_tuples():
    stored = to_dict(TrainConfig(seed=5))
    assert stored["seed"] == 5 and stored["diffusion"] == {"T": 4000, "schedule": "cosine"}
    assert stored["unet"]["channel_mult"] == [1, 2, 3, 4]
    assert to_dict(Frechet())["sampler"]["steps"] is None


def test_fields_that_were_not_stored_have_their_default():
    stored = to_dict(TrainConfig(seed=5))
    del stored["precision"], stored["unet"]["dropout"], stored["data"]
    assert from_dict(TrainConfig, stored) == TrainConfig(seed=5)


def test_a_late_field_is_left_out_of_the_digest_at_its_default():
    assert to_dict(Outer()) == {"inner": {"size": 3}, "shape": [1, 2]}
    assert digest(Outer()) == digest(BeforeTheLateFields({"size": 3}))
    assert digest(Outer(Inner(3, 0.0), (1, 2), False)) == digest(Outer())
    assert from_dict(Outer, to_dict(Outer())) == Outer()


@pytest.mark.parametrize("changed", [Outer(flips=True), Outer(Inner(blur=0.5))])
def test_a_late_field_is_in_the_digest_at_any_other_value(changed):
    assert digest(changed) != digest(Outer())
    assert from_dict(Outer, to_dict(changed)) == changed
    assert digest(Outer(flips=True)) != digest(Outer(Inner(blur=0.5)))


def test_the_digest_tells_types_and_values_apart():
    given = [Outer(), Outer(Inner(4)), Outer(shape=(2, 1)), Outer(shape=(1, 2, 0)), Outer(shape=())]
    assert len({digest(config) for config in given}) == len(given)


def test_every_metric_has_a_name_and_every_kind_of_measurement_is_a_metric():
    assert set(METRICS) == {"nll", "frechet", "learned_v", "gradient_noise"}
    for name, kind in METRICS.items():
        assert metric_of(kind()) == name
    for kind in METRICS.values():  # what the measuring of any metric relies on
        assert {"images", "ema", "at", "seed"} <= {f.name for f in fields(kind)}


def test_configurations_cannot_be_changed_and_can_be_compared():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().seed = 1
    assert len({TrainConfig(), TrainConfig(), TrainConfig(seed=1)}) == 2


def test_no_field_is_both_a_training_s_and_housekeeping():
    """The command line tells them apart by their names alone."""
    assert not {f.name for f in fields(TrainConfig)} & {f.name for f in fields(Housekeeping)}
