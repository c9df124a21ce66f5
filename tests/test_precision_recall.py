"""Precision and recall against a loop over points, and against sets whose answer is known."""

import numpy as np
import pytest

from core.errors import Refused
from core.metrics import precision_recall as module
from core.metrics.precision_recall import precision_recall


def brute_force(real, drawn, k):
    """Eq. 2 of Kynkaanniemi et al. word by word."""

    def share(points, of):
        inside = 0
        for p in points:
            for i, q in enumerate(of):
                others = sorted(np.sqrt(((q - of[j]) ** 2).sum()) for j in range(len(of)) if j != i)
                if np.sqrt(((p - q) ** 2).sum()) <= others[k - 1]:
                    inside += 1
                    break
        return inside / len(points)

    return share(drawn, real), share(real, drawn)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("rows", [7, 1024])
def test_as_a_loop_over_all_points(k, rows, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    numbers = np.random.default_rng(k)
    real, drawn = numbers.normal(size=(40, 3)), 0.3 + 1.5 * numbers.normal(size=(31, 3))
    assert precision_recall(real, drawn, k) == pytest.approx(brute_force(real, drawn, k))


def test_the_same_set_has_both_and_a_distant_one_neither():
    points = np.random.default_rng(0).normal(size=(50, 4))
    assert precision_recall(points, points, 3) == (1.0, 1.0)
    assert precision_recall(points, points + 100, 3) == (0.0, 0.0)


def test_part_of_the_data_has_precision_and_lacks_recall():
    """Two clusters, of which the drawn images have one."""
    numbers = np.random.default_rng(0)
    a, b = numbers.normal(size=(100, 2)), numbers.normal(size=(100, 2)) + 100
    precision, recall = precision_recall(np.concatenate([a, b]), a[:60], 5)
    assert precision == 1.0 and 0.25 < recall <= 0.5


def test_too_few_points_are_refused():
    points = np.zeros((5, 2))
    with pytest.raises(Refused, match="5 neighbours need more than 5 images"):
        precision_recall(points, points, 5)
