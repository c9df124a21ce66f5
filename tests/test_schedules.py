"""Noise schedules against eq. 17, the paper's curves and rules; subsets of steps."""

import math

import numpy as np
import pytest

from core.diffusion.schedules import (
    cosine,
    ddim_stride,
    extended_stride,
    from_betas,
    linear,
    paper_stride,
    quadratic_stride,
    sigmoid,
)

SCHEDULES = pytest.mark.parametrize("make", [linear, cosine])


def eq_17(t, T):
    """alpha_bar_t of the cosine schedule, one t at a time."""
    angle = [(s / T + 0.008) / 1.008 * math.pi / 2 for s in (t, 0)]
    return math.cos(angle[0]) ** 2 / math.cos(angle[1]) ** 2


@pytest.mark.parametrize("T", [1000, 4000])
def test_cosine_follows_eq_17_up_to_its_one_clipped_step(T):
    schedule = cosine(T)
    expected = [eq_17(t, T) for t in range(T)]
    np.testing.assert_allclose(schedule.alpha_bar[:T], expected, rtol=1e-8)
    assert schedule.beta.max() == 0.999
    assert np.flatnonzero(schedule.beta == 0.999).tolist() == [T]
    assert schedule.alpha_bar[T] == pytest.approx(eq_17(T - 1, T) * 0.001)


@pytest.mark.parametrize("T", [100, 1000, 4000])
def test_linear_runs_evenly_between_end_points_scaled_by_1000_over_T(T):
    beta = linear(T).beta
    assert beta[1] == pytest.approx(1e-4 * 1000 / T)
    assert beta[T] == pytest.approx(0.02 * 1000 / T)
    np.testing.assert_allclose(np.diff(beta[1:], 2), 0, atol=1e-15)


@SCHEDULES
def test_alpha_bar_is_the_product_of_one_minus_beta(make):
    schedule = make(50)
    for t in range(51):
        product = math.prod(1 - b for b in schedule.beta[1 : t + 1])
        assert schedule.alpha_bar[t] == pytest.approx(product, rel=1e-12)
        assert schedule.one_minus_alpha_bar[t] == pytest.approx(1 - product, abs=1e-15)


@SCHEDULES
def test_tables_begin_with_the_clean_image_and_lose_signal_at_every_step(make):
    schedule = make(200)
    assert (schedule.t[0], schedule.beta[0], schedule.alpha_bar[0]) == (0, 0, 1)
    assert (np.diff(schedule.alpha_bar) < 0).all() and schedule.alpha_bar[-1] > 0
    assert len(schedule.beta) == len(schedule.alpha_bar) == len(schedule.t) == 201
    assert schedule.K == schedule.T == 200


@pytest.mark.parametrize("T", [1000, 4000])
def test_alpha_bar_has_the_values_of_figure_5(T):
    def at(schedule):
        return schedule.alpha_bar[[T // 2, 3 * T // 4]].tolist()

    assert at(linear(T)) == pytest.approx([0.079, 0.0034], abs=5e-4)
    assert at(cosine(T)) == pytest.approx([0.494, 0.144], abs=5e-4)
    inside = slice(1, int(0.99 * T) + 1)
    assert (linear(T).alpha_bar[inside] < cosine(T).alpha_bar[inside]).all()


def test_cosine_begins_with_noise_slightly_below_a_pixels_bin():
    for T, expected in ((1000, 0.00643), (4000, 0.00314)):
        noise = math.sqrt(cosine(T).beta[1])
        assert noise < 1 / 127.5 and noise == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("T, expected", [(100, 0.835), (1000, 0.982), (10_000, 0.998)])
def test_beta_tilde_comes_close_to_beta_as_T_grows(T, expected):
    schedule = linear(T)
    later = slice(T // 10 + 1, None)  # t > T/10, Figure 1
    ratio = schedule.beta_tilde[later] / schedule.beta[later]
    assert ratio.min() == pytest.approx(expected, abs=6e-4)


@SCHEDULES
def test_log_beta_tilde_is_that_of_step_2_at_step_1(make):
    schedule = make(100)
    assert schedule.beta_tilde[1] == 0
    assert schedule.log_beta_tilde[1] == schedule.log_beta_tilde[2]
    np.testing.assert_array_equal(np.exp(schedule.log_beta_tilde[2:]) > 0, True)
    np.testing.assert_allclose(np.exp(schedule.log_beta_tilde[2:]), schedule.beta_tilde[2:])
    assert np.isfinite(schedule.respaced([7]).log_beta_tilde[1])  # one step: no step 2


@SCHEDULES
def test_keeping_all_steps_changes_nothing(make):
    full = make(300)
    same = full.respaced(range(1, 301))
    for name in ("t", "beta", "alpha_bar", "beta_tilde"):
        np.testing.assert_array_equal(getattr(same, name), getattr(full, name))


@SCHEDULES
def test_respacing_keeps_alpha_bar_at_the_kept_steps(make):
    full, kept = make(300), [1, 2, 3, 10, 57, 58, 200, 299, 300]
    few = full.respaced(reversed(kept))
    np.testing.assert_array_equal(few.t, [0, *kept])
    np.testing.assert_array_equal(few.alpha_bar[1:], full.alpha_bar[kept])
    ratios = full.alpha_bar[kept] / full.alpha_bar[[0, *kept[:-1]]]
    np.testing.assert_allclose(few.beta[1:], 1 - ratios, rtol=1e-9)  # eq. 19
    assert (few.K, few.T) == (9, 300)


@SCHEDULES
def test_respacing_twice_is_respacing_once_and_the_original_steps_are_remembered(make):
    full, first, second = make(100), np.array([2, 5, 6, 30, 31, 77, 100]), [1, 3, 4, 7]
    once = full.respaced(first[np.array(second) - 1])
    twice = full.respaced(first).respaced(second)
    np.testing.assert_array_equal(twice.t, [0, 2, 6, 30, 100])
    np.testing.assert_array_equal(twice.t, once.t)
    np.testing.assert_allclose(twice.beta, once.beta, rtol=1e-12)
    np.testing.assert_array_equal(twice.alpha_bar, once.alpha_bar)
    assert twice.T == 100


@pytest.mark.parametrize("steps", [[], [0, 1], [1, 11], [3, 3], [-1, 2]])
def test_respacing_refuses_steps_that_are_not_there_or_come_twice(steps):
    with pytest.raises(ValueError, match=r"1\.\.10"):
        cosine(10).respaced(steps)


@pytest.mark.parametrize("skip, last", [(0, 4000), (0.2, 3200), (0.5, 2000), (0.9999, 1)])
def test_skipping_leaves_out_the_noisy_end(skip, last):
    full = linear(4000)
    truncated = full.truncated(skip)
    assert truncated.T == 4000
    np.testing.assert_array_equal(truncated.t, np.arange(last + 1))
    np.testing.assert_array_equal(truncated.beta, full.beta[: last + 1])


@pytest.mark.parametrize("skip", [-0.1, 1, 1.5, math.nan])
def test_skipping_everything_or_less_than_nothing_is_refused(skip):
    with pytest.raises(ValueError, match="skip"):
        linear(100).truncated(skip)


@pytest.mark.parametrize("T", [1, 10, 20])
def test_linear_refuses_a_T_at_which_beta_is_no_variance(T):
    with pytest.raises(ValueError, match="T > 20"):
        linear(T)
    assert linear(21).beta.max() < 1


@pytest.mark.parametrize("beta", [[0.1, 0.0], [1.0], [0.5, 1.2], [-0.1], [math.nan]])
def test_betas_that_are_no_variances_are_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        from_betas(np.array(beta))


@pytest.mark.parametrize("T", [1, 2, 25, 26, 97, 100])
def test_the_papers_stride_keeps_both_ends_and_K_nearly_equal_steps(T):
    for K in range(2, T + 1):
        steps = paper_stride(T, K)
        assert (steps[0], steps[-1], len(steps)) == (1, T, K)
        gap = (T - 1) / (K - 1)
        assert all(gap - 1 < d < gap + 1 for d in np.diff(steps))
        assert max(abs(s - 1 - i * gap) for i, s in enumerate(steps)) <= 0.5 + 1e-9
    assert paper_stride(T, T) == list(range(1, T + 1))
    assert paper_stride(T, 1) == [T]


def test_the_papers_stride_rounds_to_the_nearest_step():
    assert paper_stride(4000, 4) == [1, 1334, 2667, 4000]
    assert paper_stride(1000, 8) == [1, 144, 286, 429, 572, 715, 857, 1000]  # 143.71, 286.43, ...


@pytest.mark.parametrize("T, K", [(4000, 25), (4000, 400), (1000, 7), (10, 10)])
def test_the_extended_stride_adds_every_step_up_to_T_over_K(T, K):
    expected = set(paper_stride(T, K)) | {t for t in range(1, T + 1) if t * K <= T}
    assert extended_stride(T, K) == sorted(expected)
    assert len(extended_stride(T, K)) <= K + T // K


@pytest.mark.parametrize("T, K", [(4000, 25), (4000, 50), (4000, 1000), (100, 100)])
def test_the_ddim_stride_is_constant_and_ends_at_T_minus_T_over_K_plus_1(T, K):
    steps = ddim_stride(T, K)
    assert (steps[0], steps[-1], len(steps)) == (1, T - T // K + 1, K)
    assert set(np.diff(steps)) <= {T // K}


def test_the_quadratic_stride_increases_and_is_dense_at_the_start():
    steps = quadratic_stride(4000, 50)
    gaps = np.diff(steps)
    assert steps[0] == 1 and steps[-1] == pytest.approx(0.8 * 4000, abs=1)
    assert (gaps > 0).all() and len(steps) <= 50
    assert (np.diff(gaps) >= -1).all() and gaps[0] < 5 and gaps[-1] > 100
    # Quadratic: sqrt(t - 1) is evenly spaced, up to the rounding of t.
    roots = np.sqrt(steps[20:])
    np.testing.assert_allclose(np.diff(roots), math.sqrt(3200) / 49, rtol=0.05)


@pytest.mark.parametrize("stride", [paper_stride, extended_stride, ddim_stride, quadratic_stride])
@pytest.mark.parametrize("K", [0, -1, 101])
def test_strides_refuse_no_steps_and_more_than_there_are(stride, K):
    with pytest.raises(ValueError, match=r"[12]\.\.100"):
        stride(100, K)


@pytest.mark.parametrize("stride", [paper_stride, extended_stride, ddim_stride, quadratic_stride])
def test_every_stride_can_be_respaced_to(stride):
    full = cosine(60)
    for K in (2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60):
        few = full.respaced(stride(60, K))
        assert ((few.beta[1:] > 0) & (few.beta[1:] < 1)).all()


@pytest.mark.parametrize("T, K, why", [(64, 1, "2..64"), (100, 30, "divides 100")])
def test_a_constant_stride_needs_a_number_that_divides_T(T, K, why):
    with pytest.raises(ValueError, match=why):
        ddim_stride(T, K)


def test_the_sigmoid_schedule_falls_evenly_around_its_middle():
    schedule = sigmoid(1000)
    assert schedule.alpha_bar[500] == pytest.approx(0.5, abs=1e-9)
    assert schedule.alpha_bar[250] + schedule.alpha_bar[750] == pytest.approx(1, abs=1e-9)
    # logit of the level at u is 6 u - 3, so alpha_bar(1/4) = (s(3) - s(-1.5)) / (s(3) - s(-3)).
    s = [1 / (1 + math.exp(-x)) for x in (3, -1.5, -3)]
    assert schedule.alpha_bar[250] == pytest.approx((s[0] - s[1]) / (s[0] - s[2]), rel=1e-9)
    assert schedule.beta[-1] == 0.999 and (np.diff(schedule.alpha_bar) < 0).all()
