"""Verdicts on made-up numbers, against textbook values and by how often chance alone decides."""

import gc
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analysis.verdicts import (
    ELSEWHERE,
    FAILS,
    HOLDS,
    NOT_MEASURED,
    UNDECIDED,
    Comparison,
    Verdict,
    holm,
    judge,
)

# Half the width of a 95 % interval, in standard deviations, from a printed table of Student's t.
HALF = {2: 12.706 / 2**0.5, 3: 4.3027 / 3**0.5, 5: 2.7764 / 5**0.5, 10: 2.2622 / 10**0.5}
SD = 0.02
WIDTH = HALF[3] * SD  # of three seeds


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without the 40 ms that statsmodels' multipletests collects garbage at each call."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def three(mean: float, sd: float = SD) -> np.ndarray:
    """Three numbers with exactly this mean and this standard deviation."""
    return np.array([mean, mean + sd, mean - sd])


def with_p(p: float, margin: float, side: int) -> np.ndarray:
    """Three numbers on one side of the margin (1: above), with this two-sided p against it.

    With two degrees of freedom 1 - p = t / sqrt(2 + t^2).
    """
    t = (1 - p) * (2 / (1 - (1 - p) ** 2)) ** 0.5
    return three(margin + side * t * SD / 3**0.5)


@pytest.mark.parametrize("n", HALF)
def test_the_interval_is_the_textbooks(n):
    values = np.random.default_rng(n).normal(3, 0.5, n)
    sd = (((values - values.sum() / n) ** 2).sum() / (n - 1)) ** 0.5
    low, high = Comparison(values).interval
    assert (low + high) / 2 == pytest.approx(values.sum() / n)
    assert (high - low) / 2 == pytest.approx(HALF[n] * sd, rel=1e-4)


CASES = [
    # claimed; the effect, in half widths of the interval away from the first bound; verdict
    ({"low": 0.01}, 0.01, 1.01, HOLDS),
    ({"low": 0.01}, 0.01, 0.99, UNDECIDED),
    ({"low": 0.01}, 0.01, -0.99, UNDECIDED),
    ({"low": 0.01}, 0.01, -1.01, FAILS),
    ({"low": 0.0}, 0.0, 30, HOLDS),
    ({"low": -0.01}, -0.01, -30, FAILS),
    ({"low": -3 * WIDTH, "high": 3 * WIDTH}, 3 * WIDTH, -3, HOLDS),
    ({"low": -3 * WIDTH, "high": 3 * WIDTH}, 3 * WIDTH, -1.01, HOLDS),
    ({"low": -3 * WIDTH, "high": 3 * WIDTH}, 3 * WIDTH, -0.99, UNDECIDED),
    ({"low": -3 * WIDTH, "high": 3 * WIDTH}, 3 * WIDTH, 0.99, UNDECIDED),
    ({"low": -3 * WIDTH, "high": 3 * WIDTH}, 3 * WIDTH, 1.01, FAILS),
    # An interval wider than what is claimed cannot lie within it.
    ({"low": -0.9 * WIDTH, "high": 0.9 * WIDTH}, 0.9 * WIDTH, -0.9, UNDECIDED),
]


@pytest.mark.parametrize("claimed, bound, away, word", CASES)
def test_a_verdict_takes_the_whole_interval_on_one_side(claimed, bound, away, word):
    values = three(bound + away * WIDTH)
    part = Comparison(values, **claimed)
    found = judge([part])
    assert (found.word, found.main, found.parts) == (word, part, [part])
    assert found.decided == (word != UNDECIDED) == (found.p <= 0.05) == (not found.reason)

    turned = {{"low": "high", "high": "low"}[name]: -limit for name, limit in claimed.items()}
    other = judge([Comparison(-values, **turned)])
    assert (other.word, other.p, other.reason) == (found.word, found.p, found.reason)


@pytest.mark.parametrize("p", [0.9, 0.2, 0.05001, 0.04999, 0.001])
@pytest.mark.parametrize("side, word", [(1, HOLDS), (-1, FAILS)])
def test_the_p_is_that_of_a_two_sided_test_against_the_margin(p, side, word):
    found = judge([Comparison(with_p(p, 0.01, side), low=0.01)])
    assert found.p == pytest.approx(p, rel=1e-9)
    assert found.word == (word if p < 0.05 else UNDECIDED)
    # Of two seeds, too: with one degree of freedom p = 1 - 2/pi atan t.
    pair = np.array([1.0, 1.4]) * side
    t = 1.2 / (0.4 / 2**0.5 / 2**0.5)
    assert judge([Comparison(pair, low=0)]).p == pytest.approx(1 - 2 / np.pi * np.arctan(t))


def test_two_bounds_take_the_larger_p_to_hold_and_the_smaller_to_fail():
    part = Comparison(three(0.5), low=0, high=0.6)
    p_of_high = 1 - (t := 0.1 * 3**0.5 / SD) / (2 + t**2) ** 0.5
    assert part.p_holds() == pytest.approx(p_of_high) and part.p_fails() == 1
    part = Comparison(three(0.7), low=0, high=0.6)
    assert part.p_fails() == pytest.approx(p_of_high) and part.p_holds() == 1


@pytest.mark.parametrize("value", [100.0, -100.0])
def test_one_seed_decides_nothing(value):
    part = Comparison(np.array([value]), low=0)
    found = judge([part])
    assert (found.word, found.p) == (UNDECIDED, None) and found.reason.startswith("one seed")
    assert np.isnan(part.interval).all() and np.isnan(part.spread) and part.seeds_needed() is None
    assert judge([Comparison(three(5), low=0), part]).word == UNDECIDED


# The last differ by rounding alone: three times a fifth of the training.
EQUAL = [[0.0, 0.0, 0.0], [5.0, 5.0], [0.6 - 0.4, 0.8 - 0.6, 1.0 - 0.8]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", EQUAL)
@pytest.mark.parametrize("margin", [-1e-3, 0.1, 9.0])
def test_few_seeds_that_agree_decide_nothing(values, margin):
    found = judge([Comparison(np.array(values), low=margin)])
    assert found.word == UNDECIDED and found.p == stats.binomtest(0, len(values)).pvalue
    assert "same number; 6 that do decide it" in found.reason


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("margin, word", [(0.9, HOLDS), (1.1, FAILS)])
def test_six_seeds_that_agree_decide_by_their_signs(margin, word):
    assert judge([Comparison(np.ones(5), low=margin)]).word == UNDECIDED
    found = judge([Comparison(np.ones(6), low=margin)])
    assert found.word == word and found.p == pytest.approx(stats.binomtest(0, 6).pvalue)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("values", [[np.nan] * 3, [np.inf] * 3, [1, np.inf, 2], [1, -np.inf, 2]])
def test_what_is_not_a_number_decides_nothing(values):
    bad, good = Comparison(np.array(values, float), low=0), Comparison(three(5), low=0)
    for parts in ([bad], [good, bad], [bad, good]):
        found = judge(parts)
        assert found.word == UNDECIDED and found.p == 1


@pytest.mark.parametrize("value, word", [(0.011, HOLDS), (0.009, FAILS)])
def test_a_formula_is_compared_as_it_is(value, word):
    part = Comparison(np.array([value]), low=0.01, exact=True)
    found = judge([part])
    assert (found.word, found.p, found.exact) == (word, 0, True)
    assert part.interval == (value, value)
    sampled = Comparison(three(5), low=0)
    mixed = judge([sampled, part])
    assert mixed.word == word and not mixed.exact
    assert mixed.main is (sampled if word == HOLDS else part)


def test_a_claim_holds_at_the_p_of_its_weakest_comparison():
    ps = [0.04, 0.01, 0.03, 1e-4, 0.02, 0.002]
    parts = [Comparison(with_p(p, 0.01, 1), low=0.01) for p in ps]
    found = judge(parts)
    assert (found.word, found.main) == (HOLDS, parts[0])
    assert found.p == pytest.approx(0.04)


def test_one_weak_comparison_leaves_a_claim_undecided():
    weak = Comparison(with_p(0.2, 0.01, 1), low=0.01)
    strong = [Comparison(with_p(p, 0.01, 1), low=0.01) for p in (1e-4, 1e-3)]
    found = judge([strong[0], weak, strong[1]])
    assert (found.word, found.main) == (UNDECIDED, weak)
    assert found.p == pytest.approx(0.2)


@pytest.mark.parametrize(
    "p, others, word",
    [(0.04, 0, FAILS), (0.04, 1, UNDECIDED), (0.02, 1, FAILS), (0.02, 2, UNDECIDED)],
)
def test_comparisons_share_the_level_at_which_one_of_them_fails(p, others, word):
    bad = Comparison(with_p(p, 0.01, -1), low=0.01)
    good = [Comparison(with_p(1e-3, 0.01, 1), low=0.01) for _ in range(others)]
    found = judge([*good, bad])
    assert (found.word, found.main) == (word, bad)
    assert found.p == pytest.approx(p * (1 + others))
    assert ("seeds decide it" in found.reason) == (word == UNDECIDED)


def test_of_several_failures_the_clearest_decides():
    parts = [Comparison(with_p(p, 0.01, -1), low=0.01) for p in (0.03, 0.001, 0.3)]
    found = judge(parts)
    assert (found.word, found.main) == (FAILS, parts[1])
    assert found.p == pytest.approx(0.003)


def test_the_order_of_comparisons_does_not_matter():
    made = [with_p(0.2, 0, 1), with_p(0.01, 0, -1), with_p(0.03, 0, 1), np.array([2.0])]
    found = [judge([Comparison(v, low=0) for v in order]) for order in permutations(made)]
    assert {(v.word, round(v.p, 12), v.main.effect) for v in found} == {
        (FAILS, 0.04, made[1].mean())
    }


def test_a_ratio_and_its_inverse_are_judged_alike():
    ratios = np.array([1.3, 1.2, 1.25])
    one = judge([Comparison(np.log(ratios), low=np.log(1.03))])
    other = judge([Comparison(np.log(1 / ratios), high=np.log(1 / 1.03))])
    assert one.word == other.word == HOLDS and one.p == pytest.approx(other.p)


def seeds_by_trying(mean: float, sd: float, low: float, high: float) -> int | None:
    """The first n for which numbers of this mean and spread have an interval without a margin."""
    for n in range(2, 101):
        x = np.linspace(-1, 1, n)
        x = mean + sd * x / x.std(ddof=1)
        lower, upper = stats.ttest_1samp(x, 0).confidence_interval(0.95)
        if not any(lower <= bound <= upper for bound in (low, high)):
            return n
    return None


@pytest.mark.parametrize(
    "mean, sd, low, high",
    [
        (0.05, 0.04, 0.01, np.inf),
        (0.05, 0.001, 0.01, np.inf),
        (-0.02, 0.1, 0.01, np.inf),
        (0.3, 1.0, -np.inf, 0.05),
        (0.02, 0.03, -0.1, 0.06),
        (0.0101, 0.1, 0.01, np.inf),
    ],
)
def test_the_seeds_needed_are_those_found_by_trying(mean, sd, low, high):
    needed = seeds_by_trying(mean, sd, low, high)
    part = Comparison(three(mean, sd), low, high)
    assert part.seeds_needed() == needed
    if needed is None or needed > 3:
        words = "100 seeds would not" if needed is None else f"{needed} seeds decide it"
        assert words in judge([part]).reason


@pytest.mark.parametrize("mean, sd", [(-0.03, 0.03), (0.0, 0.02)])
def test_seeds_that_a_failure_needs_where_comparisons_share_its_level(mean, sd):
    """As many as the verdict of them all takes to change, tried out."""
    sure = Comparison(three(1.0, 0.01), low=0.01)
    said = judge([Comparison(three(mean, sd), low=0.01), sure, sure]).reason
    for n in range(4, 101):
        x = np.linspace(-1, 1, n)
        many = Comparison(mean + sd * x / x.std(ddof=1), low=0.01)
        if judge([many, sure, sure]).word == FAILS:
            break
    assert f"{n} seeds decide it" in said


def test_a_formula_at_its_margin_and_an_infinite_effect_say_so():
    assert "at the margin" in judge([Comparison(np.array([2.0]), low=2, exact=True)]).reason
    assert "not finite" in judge([Comparison(np.array([1.0, np.inf]), low=2)]).reason


def verdicts(words_and_ps: list) -> list[Verdict]:
    return [Verdict(word, p) for word, p in words_and_ps]


@pytest.mark.parametrize(
    "ps, kept",
    [
        # Smallest first: against 0.05/4, 0.05/3, 0.05/2, 0.05, until one is above.
        ([0.01, 0.02, 0.03, 0.04], [True, False, False, False]),
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),
        ([0.04, 0.012, 0.02, 0.016], [True] * 4),
        ([0.013, 0.013, 0.013, 0.013], [False] * 4),
        ([0.04], [True]),
    ],
)
def test_holm_steps_down_from_the_smallest_p(ps, kept):
    made = [(HOLDS if i % 2 else FAILS, p) for i, p in enumerate(ps)]
    expected = [word if keep else UNDECIDED for (word, _), keep in zip(made, kept)]
    assert holm(verdicts(made)) == expected
    # Formulas and what nobody measured do not count, wherever they stand.
    formula = Verdict(FAILS, 0.0, parts=[Comparison(np.array([1.0]), low=2, exact=True)])
    equal = judge([Comparison(np.array([2.0]), low=2, exact=True)])
    others = [Verdict(NOT_MEASURED), formula, Verdict(ELSEWHERE), equal]
    words = [one.word for one in others]
    assert holm([*others, *verdicts(made), *others]) == [*words, *expected, *words]


def test_undecided_claims_count_among_those_tested_and_stay_undecided():
    assert holm(verdicts([(HOLDS, 0.02)])) == [HOLDS]
    assert holm(verdicts([(HOLDS, 0.02), (UNDECIDED, 0.5), (UNDECIDED, 0.06)])) == [UNDECIDED] * 3
    assert holm(verdicts([(HOLDS, 0.016), (UNDECIDED, 0.5), (UNDECIDED, 0.06)]))[0] == HOLDS
    assert holm([]) == [] and holm([Verdict(NOT_MEASURED)]) == [NOT_MEASURED]


REPLICATES = 1000
MARGIN = 0.01
# Of each claim: how far inside of what is claimed its effects lie, and what is claimed. At the
# margin nothing is right, and every decision is one too many.
SINGLE, BELOW, WITHIN = {"low": MARGIN}, {"high": MARGIN}, {"low": -MARGIN, "high": MARGIN}
NULL = {
    "above": ([0], SINGLE),
    "below": ([0], BELOW),
    "within": ([0], WITHIN),
    "two parts": ([0, 0], BELOW),
    "two within": ([0, 0], WITHIN),
    "three parts": ([0] * 3, SINGLE),
    "six parts": ([0] * 6, SINGLE),
    "one of four at the margin": ([0, 9, 9, 9], SINGLE),
}


def by_chance(numbers: np.random.Generator, inside: list[float], claimed: dict) -> Verdict:
    """A claim whose effects lie that far inside, each with its own noise over three seeds."""
    parts = []
    for away in inside:
        mean = MARGIN - away if "high" in claimed else MARGIN + away
        sd = MARGIN * numbers.choice([0.1, 0.3, 1])
        parts.append(Comparison(numbers.normal(mean, sd, 3), **claimed))
    return judge(parts)


def most(share: float) -> int:
    """What a count of REPLICATES exceeds once in a thousand times, at this rate."""
    return int(stats.binom.ppf(0.999, REPLICATES, share))


def fewest(share: float) -> int:
    return int(stats.binom.ppf(0.001, REPLICATES, share))


def test_chance_decides_no_more_often_than_it_may():
    numbers, words, any_alone, any_corrected = np.random.default_rng(0), [], 0, 0
    for _ in range(REPLICATES):
        found = [by_chance(numbers, *null) for null in NULL.values()]
        words.append([verdict.word for verdict in found])
        any_alone += any(verdict.decided for verdict in found)
        any_corrected += any(word in (HOLDS, FAILS) for word in holm(found))
    holds = {name: of_claim.count(HOLDS) for name, of_claim in zip(NULL, zip(*words))}
    fails = {name: of_claim.count(FAILS) for name, of_claim in zip(NULL, zip(*words))}
    for name in NULL:
        assert holds[name] + fails[name] <= most(0.05), name
        assert holds[name] <= most(0.025), name
    # Where the level is exact, it is used up: 2.5 % on either side.
    assert min(holds["above"], fails["above"]) >= fewest(0.025)
    assert holds["one of four at the margin"] >= fewest(0.025)
    assert fails["two parts"] >= fewest(0.02)
    # Eight claims at once need the correction, and have it.
    assert any_alone > 2 * most(0.05) and any_corrected <= most(0.05)
