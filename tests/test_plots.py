"""Axes that a reader can read."""

import pytest
from matplotlib import pyplot as plt

from analysis.plots import label_short_logs, save, subplots


def numbers(low: float, high: float, scale: str = "log") -> list[str]:
    """What stands on a y axis from low to high."""
    figure, axes = subplots(2)
    axes.set(yscale=scale, ylim=(low, high))
    label_short_logs(figure)
    figure.canvas.draw()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels())
    return [text.get_text() for y, text in ticks if low <= y <= high]


@pytest.mark.parametrize(
    "low, high, shown",
    [
        (2.0, 7.4, ["2", "3", "4", "5", "7"]),
        (1.4, 33.0, ["2", "5", "10", "20"]),
        (3.3, 6.0, ["3.5", "4", "4.5", "5", "5.5", "6"]),
        (0.021, 0.049, ["0.025", "0.03", "0.035", "0.04", "0.045"]),
    ],
)
def test_a_short_logarithmic_axis_has_numbers(low, high, shown):
    assert numbers(low, high) == shown


def test_long_and_linear_axes_are_left_alone():
    assert numbers(0.5, 2000) == [f"$\\mathdefault{{10^{{{n}}}}}$" for n in range(4)]
    assert numbers(0, 2, "linear")[0] == "0.00"


def test_ticks_that_were_placed_stay():
    figure, axes = subplots(2)
    axes.set(xscale="log", xlim=(20, 120))
    axes.set_xticks([25, 50, 100], ["25", "50", "100"])
    label_short_logs(figure)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["25", "50", "100"]


def test_a_panel_without_a_point_says_so_beside_one_that_has_some(tmp_path):
    figure, (full, empty, beside) = subplots(2, ncols=3)
    beside.sharey(full)
    for axes, points in ((full, [1, 10, 1000]), (empty, []), (beside, [])):
        axes.errorbar(points, points, None)
        axes.set(xscale="log", yscale="log")
    save(figure, "panels", tmp_path, "A caption.")
    said = (tmp_path / "panels.svg").read_text()
    assert said.count("not measured yet") == 2
    assert full.get_yscale() == beside.get_yscale() == "log" and full.get_yticks().size


@pytest.mark.parametrize("word", ["a word", "0123456789,"])
def test_a_caption_is_not_cut_off(word, tmp_path):
    """Whatever its letters, of which some are twice as wide as others."""
    figure, _ = subplots(1)
    png, _ = save(figure, "wide", tmp_path, " ".join([word] * 100))
    picture = plt.imread(png)[..., :3]
    assert picture[:, -4:].min() == picture[-2:].min() == 1 and picture[:, -60:].min() < 0.8
