"""The benchmarks' arithmetic. That they run at all is seen by `make bench ARGS=short=true`."""

import numpy as np
import pytest

from benchmarks import loading, timing
from benchmarks.__main__ import main
from benchmarks.estimators import IMAGES, Terms, bias, equal, error, ideal_error, variances
from benchmarks.lines import Line, at_least, at_most
from benchmarks.timing import Ratio, Times, race
from core.diffusion.likelihood import Strata, every_step, widening
from core.errors import Refused


def made_up(images=40, T=200, seed=0):
    """Terms that fall like 1/t, with noise, for images that differ."""
    g = np.random.default_rng(seed)
    t = np.arange(1, T + 1)
    level = g.uniform(0.5, 1.5, (images, 1)) / t
    spread = 0.1 / t
    every = level + spread * g.standard_normal((images, T))
    first = level[:, :16, None] + spread[:16, None] * g.standard_normal((images, 16, 400))
    return Terms(every, first, 0.0)


def test_a_section_that_there_is_not_is_refused_in_one_line():
    with pytest.raises(Refused, match="no section 'speed'; there are: training, compile"):
        main(["training", "speed"])


def test_a_ratio_is_formed_within_each_round():
    slow_machine = np.array([1.0, 10.0, 3.0])  # each round at a speed of its own
    ratio = Times({"a": 2 * slow_machine, "b": slow_machine}).ratio("a", "b")
    assert (ratio.median, ratio.low, ratio.high) == (2, 2, 2)
    assert ratio.scaled(0.5).median == 1


def test_a_race_gives_everyone_as_many_rounds_and_finds_who_is_slower(monkeypatch):
    clock, called = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work(name, seconds):
        called.append(name)
        clock[0] += seconds

    contestants = {"one": lambda: work("one", 1.0), "three": lambda: work("three", 3.0)}
    times = race(contestants, 4, slice_seconds=6.0)
    assert {len(seconds) for seconds in times.seconds.values()} == {4}
    ratio = times.ratio("three", "one")
    assert (ratio.low, ratio.median, ratio.high) == (3, 3, 3)
    assert times.best("three") == 3
    rounds = called[4:]  # after two calls of each to warm up: six of one for two of the other
    assert rounds[:8] == 6 * ["one"] + 2 * ["three"] and rounds[8:16] == rounds[:8][::-1]


def test_a_target_is_judged_by_the_median():
    spread = Ratio(1.0, 0.5, 2.0)
    assert at_most("x", spread, 1.1).met and not at_most("x", spread, 0.9).met
    assert at_least("x", spread, 0.9).met and not at_least("x", spread, 1.1).met
    assert at_most("x", 0.4, 0.9).met
    assert Line("x", 0.123456).cells == ["x", "0.123", "", ""]


@pytest.mark.parametrize("plan", [lambda T: widening(T, 2, 4), lambda T: equal(T, 10)])
def test_the_error_said_of_a_plan_is_that_of_many_repeats(plan):
    terms, repeats = made_up(T=2000), 4000
    strata = plan(2000)
    g, images = np.random.default_rng(1), np.arange(len(terms.all))[:, None]
    estimates = np.empty((repeats, len(images)))
    for r in range(repeats):
        t = strata.draw(g.random((len(images), strata.evaluations)))
        drawn = terms.all[images, t - 1]
        # A stratum of one step gives other noise each time, which `all` has only once.
        row, column = np.nonzero(np.isin(t, strata.first[strata.widths == 1]))
        other = g.integers(terms.first.shape[2], size=len(row))
        drawn[row, column] = terms.first[row, t[row, column] - 1, other]
        estimates[r] = drawn @ strata.weights
    seen = np.sqrt(estimates.var(axis=0, ddof=1).mean() / IMAGES)
    assert error(terms, strata) == pytest.approx(seen, rel=0.03)


def test_the_best_shares_of_draws_are_no_worse_and_as_good_when_all_strata_vary_alike():
    terms = made_up()
    strata = widening(200, 2, 6)
    assert ideal_error(terms, strata) <= error(terms, strata)
    alike = Terms(np.random.default_rng(0).standard_normal((2000, 200)), terms.first, 0.0)
    even = equal(200, 10)
    assert ideal_error(alike, even) == pytest.approx(error(alike, even), rel=0.01)


def test_the_full_bound_varies_by_its_noise_alone():
    terms = made_up(images=400)
    expected = (0.1 / np.arange(1, 201)) ** 2
    assert variances(terms, every_step(200))[:150] == pytest.approx(expected[:150], rel=0.5)


@pytest.mark.parametrize("strata", [widening(200, 2, 6), equal(200, 10)])
def test_plans_are_unbiased(strata):
    off, spread = bias(made_up().all, strata, 500)
    assert abs(off) < 4 * spread


def test_a_plan_that_leaves_a_step_out_is_seen_to_be_biased():
    whole = widening(200, 2, 6)
    off, spread = bias(made_up().all, Strata(200, whole.first[1:], 2), 500)
    assert abs(off) > 10 * spread


def test_batches_out_of_a_prepared_file_are_measured(tmp_path):
    lines = {line.what: line for line in loading.measure(tmp_path / "noise.images", 256, 1)}
    assert lines["images; of a batch; threads"].measured == "256, 3x64x64; 128; 1"
    assert sum(line.target != "" for line in lines.values()) == 2
