"""The three figures that follow from the schedules alone: as programs, and their data.

The expected values are those of the notes on the paper (STUDIES.md, section 3.1).
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import plot_alpha_bar, plot_noised_images, plot_variance_ratio, plots
from analysis.script import chain, keys
from core.data.sources import load
from core.errors import Refused

ANALYSIS = Path(plots.__file__).parent
NAMES = ["alpha_bar", "variance_ratio", "noised_images"]


def script(name: str, *words: str, folder: Path) -> subprocess.CompletedProcess:
    """analysis/plot_NAME.py run as a program in `folder`, warnings being errors."""
    command = [sys.executable, "-W", "error::UserWarning", str(ANALYSIS / f"plot_{name}.py")]
    return subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_script_writes_both_files_and_the_same_again(name, tmp_path):
    files = [Path("out/figures") / f"{name}{suffix}" for suffix in (".png", ".svg")]
    done = script(name, "results=out", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"wrote {file}" for file in files]
    assert sorted(p.name for p in (tmp_path / "out/figures").iterdir()) == [f.name for f in files]
    with Image.open(tmp_path / files[0]) as image:
        assert image.width == plots.COLUMN * plots.DPI
        low, high = image.convert("L").getextrema()
    assert high - low > 100
    svg = (tmp_path / files[1]).read_bytes()
    assert b"Paper's Figure" in svg  # the caption, and text as text

    (tmp_path / files[1]).unlink()
    script(name, f"results={tmp_path / 'out'}", folder=tmp_path)
    assert (tmp_path / files[1]).read_bytes() == svg


@pytest.mark.parametrize("word", ["Q=1", "T=20"])
def test_script_refuses_in_one_line(word, tmp_path):
    done = script("alpha_bar", word, "results=out", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not done.stdout and not list(tmp_path.iterdir())


def test_help_is_the_docstring(tmp_path):
    done = script("alpha_bar", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip() == plot_alpha_bar.__doc__.strip()
    assert not list(tmp_path.iterdir())


def test_keys_take_the_types_of_the_defaults():
    defaults = {"n": 1, "x": 0.5, "many": [1], "path": Path("a"), "name": None}
    words = ["n=2", "x=3", "many=[4, 5]", "path=b", "name=c=d"]
    expected = {"n": 2, "x": 3.0, "many": [4, 5], "path": Path("b"), "name": "c=d"}
    assert keys(words, **defaults) == expected
    assert keys(["many=7"], **defaults) == defaults | {"many": [7]}


@pytest.mark.parametrize(
    "words", [["T"], ["=1"], ["T="], ["T=x"], ["T=1.5"], ["T=1", "T=2"], ["t=1"]]
)
def test_keys_refuse(words):
    with pytest.raises(Refused) as refused:
        keys(words, T=4000)
    assert refused.value.code == 2 and "\n" not in str(refused.value)


@pytest.mark.parametrize("T", [-1, 20, 100_000])
def test_no_picture_of_an_impossible_chain(T):
    with pytest.raises(Refused):
        chain(T)


def test_save_refuses_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        plots.save(plots.subplots(1)[0], "name", tmp_path / "file" / "figures", "")


def test_line_joins_the_looks_of_terms():
    assert plots.line("linear", "L_hybrid", "1K", "another") == {
        "color": plots.LINES["L_hybrid"]["color"],
        "marker": plots.LINES["L_hybrid"]["marker"],
        "linestyle": ":",
    }


@pytest.mark.parametrize(
    "name, at_half, at_three_quarters", [("linear", 0.079, 0.0034), ("cosine", 0.494, 0.144)]
)
def test_alpha_bar_of_figure_5(name, at_half, at_three_quarters):
    x, y = plot_alpha_bar.curves(4000)[name]
    assert (x[0], y[0], x[-1]) == (0, 1, 1)
    assert (np.diff(y) < 0).all()
    assert np.interp(0.5, x, y) == pytest.approx(at_half, abs=5e-4)
    assert np.interp(0.75, x, y) == pytest.approx(at_three_quarters, rel=0.02)


@pytest.mark.parametrize("T, lowest", [(100, 0.835), (1000, 0.982), (10000, 0.998)])
def test_variance_ratio_of_figure_1(T, lowest):
    x, y = plot_variance_ratio.curves(T)
    assert x[0] == 2 / T and x[-1] == 1
    assert ((y > 0) & (y < 1)).all()
    # The notes say t >= 0.1 T, but their numbers are those of t > 0.1 T: T = 100, t = 10 has 0.817.
    assert y[x > 0.1].min() == pytest.approx(lowest, abs=5e-4)


def test_noised_images_of_figure_3():
    images, indices = plot_noised_images.chosen(None)
    assert len(set(images.labels[indices].tolist())) == len(indices)
    latents = plot_noised_images.noised(images, indices, 4000)
    clean = load("fashion16", "test").pixels[indices].permute(0, 2, 3, 1).numpy()
    likeness = {}
    for name, x in latents.items():
        assert x.shape == (len(indices), 9, 16, 16, 1)
        assert (x[:, 0] == clean).all()
        likeness[name] = [np.corrcoef(x[:, k].ravel(), clean.ravel())[0, 1] for k in range(9)]
    # At the end only noise is left, the same noise in both. Linear gets there much sooner.
    ends = np.stack([x[:, -1].astype(int) for x in latents.values()])
    assert abs(ends[0] - ends[1]).max() <= 2
    assert abs(likeness["linear"][6] - likeness["linear"][8]) < 0.05
    assert likeness["cosine"][6] - likeness["cosine"][8] > 0.2
    again = plot_noised_images.noised(images, indices[1:], 4000)
    assert all((again[name] == x[1:]).all() for name, x in latents.items())


def test_montage_keeps_every_pixel():
    x = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4, 1)
    picture = plot_noised_images.montage(x)
    assert picture.shape == (9, 14, 3)
    assert (picture[5:9, 10:14, 0] == x[1, 2, :, :, 0]).all()
    assert (picture[4] == 255).all()
