"""What figures show and say of themselves, drawn from a made-up folder of results."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from test_studies import WORDS, run, write
from test_studies import results as results

from analysis import (
    plot_axes,
    plot_ema_dropout,
    plot_learned_v,
    plot_longer_training,
    plot_objective_noise,
    plot_samples,
    plot_sampling_steps,
    plot_vlb_terms,
)
from analysis.load import load
from analysis.plots import subplots
from analysis.samples import drawn
from analysis.tables import described, notes
from core.errors import Refused
from experiments.files import write_bytes
from experiments.overrides import parse

SCRIPTS = (plot_axes, plot_ema_dropout, plot_learned_v, plot_longer_training)
SCRIPTS += (plot_objective_noise, plot_samples)


@pytest.fixture
def published(monkeypatch):
    """What scripts would publish: figure and caption of each."""
    found = []

    def keep(results, figure, caption, *rest, **named) -> None:
        found.append((figure, caption))

    for script in SCRIPTS:
        monkeypatch.setattr(script, "publish", keep)
    return found


def test_means_over_different_numbers_of_seeds_are_said_to_be(results):
    write(results, "two_stage")
    asked = parse(["grid=two_stage", *WORDS], results=results)
    assert "of these seeds" not in " ".join(notes(load(asked)))
    of_second = list(results.glob("runs/*-s1/measurements/*.json"))
    of_second.pop().unlink()
    assert "Numbers are of 1 to 2 of these seeds, those that have them." in notes(load(asked))
    for path in of_second:
        path.unlink()
    assert "Numbers are of 1 of these seeds, those that have them." in notes(load(asked))


def test_a_study_s_numbers_are_described_by_images_and_steps(results):
    write(results, "single")
    found = load(parse(["grid=single", *WORDS], results=results))
    said = " ".join(notes(found))
    assert "nll: 16 images (s.e. 0.5); fd: 80 images in 5 steps (s.e. 0.5)" in said
    assert "FD (fashion_cnn)" in described(found)


def test_the_furthest_v_is_that_of_any_seed(results, published):
    write(results, "variance_ablation")
    run("plot_learned_v", "variance_ablation", results)
    assert "the furthest -0.20 and 1.30." in published[0][1]


def test_v_has_a_band_where_there_are_several_seeds(results, published):
    write(results, "variance_ablation")
    run("plot_learned_v", "variance_ablation", results)
    plot_learned_v.main(["scale=smoke", "seeds=[0]", f"results={results}"])
    (both, of_both), (one, of_one) = published
    assert [len(axes.collections) for axes in both.axes] == [1, 1]
    assert "mean, in a band of one standard error over seeds;" in of_both and "± 0.0 %" in of_both
    assert not any(axes.collections for axes in one.axes)
    assert "band" not in of_one and "±" not in of_one


@pytest.mark.parametrize("study", ["objective_noise", "longer_training"])
def test_learning_curves_have_bands_and_a_legend_that_hides_none(study, results, published):
    write(results, study)
    run("plot_" + study, study, results)
    figure, caption = published[0]
    assert len(figure.axes[0].collections) == 4 and "band of one standard error" in caption
    figure.canvas.draw()
    (legend,) = figure.legends
    covered = legend.get_window_extent()
    assert not [axes for axes in figure.axes if axes.get_window_extent().overlaps(covered)]


def test_the_bounds_of_the_first_steps_do_not_flatten_those_of_the_rest():
    axes = subplots(2)[1]
    axes.plot([700.0, 9.0, 3.0, 5.0, 4.0, 4.0])
    axes.plot([600.0, np.nan, 4.0, 4.0, 6.0, 5.0])
    assert plot_objective_noise.limits(axes) == pytest.approx((3 / 1.1, 6 * 1.1))


def test_a_point_at_zero_is_drawn_too(results, published):
    """A logarithmic axis has no place for it."""
    write(results, "skipped_steps")
    write(results, "extension_variance")
    run("plot_axes", "skipped_steps", results)
    run("plot_axes", "extension_variance", results)
    (zero, _), (others, _) = published
    assert zero.axes[0].get_xscale() == "linear" and zero.axes[0].get_yscale() == "log"
    assert {axes.get_xscale() for axes in others.axes} == {"log"}
    assert [axes.get_ylabel() for axes in others.axes] == ["NLL (bits/dim)", "FD (fashion_cnn)"]


def test_a_line_looks_the_same_in_every_panel(results, published):
    """Though one of them has a line more: extended, of the bound alone."""
    write(results, "extension_steps")
    run("plot_axes", "extension_steps", results)
    looks: dict[str, set] = {}
    for axes in published[0][0].axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            line = handle.lines[0]
            looks.setdefault(label, set()).add((line.get_color(), line.get_marker()))
    assert len(looks) == 3 and all(len(ways) == 1 for ways in looks.values())
    assert len(set.union(*looks.values())) == 3


def test_the_legend_of_the_averages_hides_no_line(results, published):
    write(results, "ema_dropout")
    run("plot_ema_dropout", "ema_dropout", results)
    figure = published[0][0]
    figure.canvas.draw()
    (legend,) = figure.legends + [a.get_legend() for a in figure.axes if a.get_legend()]
    covered = legend.get_window_extent()
    assert not [axes for axes in figure.axes if axes.get_window_extent().overlaps(covered)]


def test_the_images_that_are_shown_are_of_the_first_seed_which_is_named(results, published):
    write(results, "schedule_ablation")
    found = load(parse(["grid=schedule_ablation", *WORDS], results=results))
    lines = found.of("fd")
    gone = lines[(lines["row"] == 1) & (lines["seed"] == 0)].iloc[0]
    assert drawn(found, 1, "fd") == gone["arrays"]
    gone["arrays"].unlink()
    found = load(found.request)
    assert drawn(found, 1, "fd") is None and drawn(found, 0, "fd") is not None
    run("plot_samples", "schedule_ablation", results)
    assert "images, seed 0, from the same starting noise in each" in published[0][1]


def test_the_terms_are_shown_of_any_grid_that_measures_one_bound_of_a_network(results, capsys):
    write(results, "single")
    write(results, "training_length")
    run("plot_vlb_terms", "single", results)
    assert (results / "figures" / "vlb_terms.single.smoke.png").exists()
    with pytest.raises(Refused, match="several bounds"):  # of networks that are half trained, too
        run("plot_vlb_terms", "training_length", results)
    write(results, "extension_variance")
    with pytest.raises(Refused, match="several bounds"):  # by variance and by number of steps
        run("plot_vlb_terms", "extension_variance", results)


def test_terms_have_a_band_where_there_are_several_seeds(results, capsys, monkeypatch):
    write(results, "schedule_ablation")
    drawn = []
    monkeypatch.setattr(plot_vlb_terms, "save", lambda figure, *rest: drawn.append(figure) or [])
    run("plot_vlb_terms", "schedule_ablation", results)
    said = capsys.readouterr().out
    assert "over seeds, in a band of one standard error (above, at most 0 % of a term)." in said
    assert "1K linear L_simple 1.0 ± 0.0 %" in said  # every term is 1
    plot_vlb_terms.main(["scale=smoke", "seeds=[1]", f"results={results}"])
    said = capsys.readouterr().out
    assert "mean over seeds. Share" in said and "1K linear L_simple 1.0 %" in said
    assert [[len(axes.collections) for axes in f.axes] for f in drawn] == [[6, 6], [0, 0]]


def test_the_terms_by_variance_say_what_each_loses_to_the_first(results, capsys):
    write(results, "variance_ablation")
    found = load(parse(["grid=variance_ablation", *WORDS], results=results))
    lines = found.of("nll")
    for _, line in lines[lines["row"] == 1].iterrows():
        T = line["config"].diffusion.T
        term = np.ones(T + 1)  # of beta
        term[2] += {"beta": 0, "beta_tilde": 0.5, "learned": -0.25}[line["variance"]]
        term[1] += 0.5 * line["seed"]  # in common: no difference
        term[3] += 0.02 * line["seed"] * (line["variance"] == "learned")
        content = io.BytesIO()
        np.savez(content, t=np.arange(T + 1), term_sum=4 * term, term_count=np.full(T + 1, 4))
        write_bytes(line["arrays"], content.getvalue())
    run("plot_vlb_terms", "variance_ablation", results)
    said = capsys.readouterr().out
    assert "of the 4K cosine L_hybrid network with each variance" in said
    assert "less that with β, of the same network with the same noise" in said
    assert "over all steps β̃ 0.500 ± 0.000, learned -0.240 ± 0.010." in said
    assert (results / "figures" / "vlb_terms.variance_ablation.smoke.png").exists()


@pytest.mark.parametrize(
    "steps, words", [(20, "after the end of the training"), (5000, "after 0.5 of the training")]
)
def test_importance_sampling_sets_in_when_every_timestep_was_drawn_ten_times(results, steps, words):
    """Ten times 4,000 draws, of 16 a step."""
    asked = parse(["grid=longer_training", *WORDS, f"optim.steps={steps}"], results=results)
    assert plot_longer_training.set_in(load(asked)) == words


# Linear RGB -> XYZ over the white of D65; Machado et al. 2009: what a red-blind eye makes of RGB.
XYZ = [[0.4339, 0.3762, 0.1847], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]]
RED_BLIND = [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]


def lab(color: str, seen: list) -> np.ndarray:
    """CIELAB, in which a difference of 1 can just be seen, of a colour through these eyes."""
    srgb = np.array(to_rgb(color))
    linear = np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.array(XYZ) @ np.clip(np.array(seen) @ linear, 1e-3, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", [np.eye(3), RED_BLIND], ids=["by all", "by the red-blind"])
def test_the_ways_to_draw_can_be_told_apart(seen):
    colors = [lab(style["color"], seen) for style in plot_sampling_steps.STYLES]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 30
