"""Random numbers are functions of their key, whatever was drawn before and in whatever batch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from core.randomness import ImageNoise, numpy_generator, torch_generator, torch_seed

SHAPE = (1, 3, 3)
# Of one length, as all keys of one use are: NumPy takes (1,) and (1, 0) for the same.
KEYS = [
    *((0, "t", 0), (0, "t", 1), (1, "t", 0), (0, "eps", 0), (1, "eps", 0), (0, 0, "t")),
    *((0, 1, 0), (0, 0, 0), (0, 0, 1), (1, 0, 0), (0, "0", 0), (0, "1", 0), (0, "T", 0)),
    *((2**31, "t", 0), (2**31 + 1, "t", 0), (0, "t", 2**31), (12, "t", 3), (1, "t", 23)),
]


def numbers(*key) -> list[tuple]:
    """First draws of each kind of generator for a key."""
    return [
        tuple(numpy_generator(*key).random(4)),
        tuple(torch.randn(4, generator=torch_generator(*key)).tolist()),
        (torch_seed(*key),),
    ]


def test_generators_with_equal_keys_give_equal_numbers_whatever_was_drawn_before():
    for key in KEYS:
        first = numbers(*key)
        np.random.seed(1)
        torch.manual_seed(1)
        numpy_generator("others").random(100)
        assert numbers(*key) == first


def test_generators_with_different_keys_give_different_numbers():
    for kind in zip(*(numbers(*key) for key in KEYS)):
        assert len(set(kind)) == len(KEYS)


def test_a_key_means_the_same_in_another_process():
    """Python's own hash of a word, for one, is another in each process."""
    code = "import core.randomness as r; print(r.torch_seed(3, 'eps', 4))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == torch_seed(3, "eps", 4) == 2661554029281516369


def test_seeds_are_63_bits_and_not_negative():
    seeds = [torch_seed(i) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**61 and len(set(seeds)) == 200


def test_negative_keys_are_an_error():
    with pytest.raises(ValueError):
        numpy_generator(-1)


@pytest.mark.parametrize("draws", [1, ImageNoise.AHEAD, ImageNoise.AHEAD + 3])
def test_an_image_has_the_same_noise_in_any_batch_and_for_any_number_of_draws(draws):
    whole = ImageNoise(range(10), SHAPE, 5, "eps")
    wholes = torch.stack([whole() for _ in range(2 * ImageNoise.AHEAD + 5)])
    for chosen in (range(10), range(3, 7), range(9, 10), range(0, 1)):
        part = ImageNoise(chosen, SHAPE, 5, "eps")
        for draw in range(draws):
            assert torch.equal(part(), wholes[draw, chosen.start : chosen.stop]), (draw, chosen)


def test_draws_continue_across_what_is_read_ahead():
    noise = ImageNoise(range(2), SHAPE, 0, "eps")
    draws = torch.stack([noise() for _ in range(3 * ImageNoise.AHEAD)]).flatten(2)
    assert draws.shape == (3 * ImageNoise.AHEAD, 2, 9)
    assert len(draws.flatten(0, 1).unique(dim=0)) == 6 * ImageNoise.AHEAD  # none comes twice
    stream = torch.randn(3 * ImageNoise.AHEAD, *SHAPE, generator=torch_generator(0, "eps", 1))
    assert torch.equal(draws[: ImageNoise.AHEAD, 1], stream[: ImageNoise.AHEAD].flatten(1))


def test_noise_differs_between_images_keys_and_draws():
    a, b = ImageNoise(range(3), SHAPE, 0, "eps"), ImageNoise(range(3), SHAPE, 1, "eps")
    c = ImageNoise(range(3), SHAPE, 0, "sample")
    drawn = torch.cat([noise() for noise in (a, b, c, a, b, c)]).flatten(1)
    assert len(drawn.unique(dim=0)) == 18


def test_noise_is_standard_normal_and_independent():
    noise = ImageNoise(range(40), (1, 8, 8), 0, "eps")
    drawn = torch.stack([noise() for _ in range(20)]).double()
    assert noise().dtype == torch.float32 and drawn.shape == (20, 40, 1, 8, 8)
    n = drawn.numel()
    assert abs(drawn.mean()) < 4 / n**0.5
    assert abs(drawn.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((drawn.abs() < 1).double().mean() - 0.6827) < 4 * (0.6827 * 0.3173 / n) ** 0.5
    flat = drawn.flatten(2)
    for a, b in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1])):  # draws; images
        assert abs((a * b).mean()) < 4 / a.numel() ** 0.5


def test_generators_of_neighbouring_keys_are_independent():
    u = np.stack(
        [numpy_generator(seed, "t", step).random(50) for seed in (0, 1) for step in range(20)]
    )
    assert abs(u.mean() - 0.5) < 4 * (1 / 12 / u.size) ** 0.5
    correlation = np.corrcoef(u)[np.triu_indices(40, 1)]
    assert abs(correlation).max() < 5 / 50**0.5
