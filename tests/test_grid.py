"""Grids: what a command line expands to, and that every mistake in it is refused in one line."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.config import Frechet, Likelihood, TrainConfig
from core.data.identity import content_digest
from core.errors import Refused
from experiments import grid as module
from experiments import run
from experiments.asked import not_applicable
from experiments.grid import available, expand
from experiments.overrides import parse

SMOKE = ("grid=schedule_ablation", "scale=smoke")


def refusal(*words: str) -> str:
    """The one line that a command line is refused with; if it is not, nothing is run."""
    if not any(word.startswith("list=") for word in words):
        words = (*words, "list=true")
    with pytest.raises(Refused) as error:
        run.main(list(words))
    assert "\n" not in str(error.value) and error.value.code == 2
    return str(error.value)


def assert_says(message: str, pattern: str) -> None:
    assert re.search(pattern, message), message


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Writes a grid, and a scale, of its own into a copy of experiments/: for `grid=mine`."""
    here = tmp_path / "experiments"
    for name in ("grids", "scales"):
        shutil.copytree(module.HERE / name, here / name)
    shutil.copy(module.HERE / "terms.yaml", here)
    monkeypatch.setattr(module, "HERE", here)

    def write(grid: str, scale: str = "train: {unet.channels: 8}") -> tuple[str, str]:
        (here / "grids" / "mine.yaml").write_text(grid)
        (here / "scales" / "mine.yaml").write_text(scale)
        return "grid=mine", "scale=mine"

    return write


def cells(*words: str):
    return expand(parse(list(words))).cells


@pytest.fixture
def images(tmp_path):
    """Writes grey images of 16 x 16 into a folder with two classes."""

    def write(name: str, n: int = 4, seed: int = 0) -> Path:
        folder, numbers = tmp_path / name, np.random.default_rng(seed)
        for i in range(n):
            (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            pixels = numbers.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i}.png")
        return folder

    return write


@pytest.mark.parametrize("scale", available("scales"))
@pytest.mark.parametrize("grid", available("grids"))
def test_every_grid_expands_at_every_scale_into_distinct_measurements(grid, scale):
    found = expand(parse([f"grid={grid}", f"scale={scale}", "seeds=[3,1]", "plan=true"]))
    assert found.seeds == (3, 1) and len(found.cells) == 2 * len(found.rows)
    # The first seed is complete before the second begins.
    assert [cell.seed for cell in found.cells] == [3] * len(found.rows) + [1] * len(found.rows)
    assert [cell.row for cell in found.cells] == found.rows * 2
    # Cells may share a run and measurements of it, but no two are alike, and none asks twice.
    alike = [(cell.run_id, *(item.id for item in cell.measurements)) for cell in found.cells]
    assert len(set(alike)) == len(alike)
    taking_part = {item.partner for cell in found.cells for item in cell.measurements}
    assert all(cell.measurements or cell.run_id in taking_part for cell in found.cells)
    for cell in found.cells:
        asked = [(item.name, *item.axes.values()) for item in cell.measurements]
        assert len(set(asked)) == len(asked)
    assert all(cell.config.seed == cell.seed for cell in found.cells)
    assert found.title and found.paper
    assert (found.claim and found.analysis) or found.paper.startswith("none")


def test_the_rows_of_tables_1_and_2_mean_what_the_paper_says():
    found = cells(*SMOKE)
    assert [cell.words for cell in found] == [
        *("1K linear L_simple", "4K linear L_simple", "4K linear L_hybrid"),
        *("4K cosine L_simple", "4K cosine L_hybrid", "4K cosine L_vlb"),
    ]
    trained = [
        (c.config.diffusion.T, c.config.diffusion.schedule, c.config.objective.name) for c in found
    ]
    assert trained == [
        *((1000, "linear", "simple"), (4000, "linear", "simple"), (4000, "linear", "hybrid")),
        *((4000, "cosine", "simple"), (4000, "cosine", "hybrid"), (4000, "cosine", "vlb")),
    ]
    assert [c.config.objective.timesteps for c in found] == ["uniform"] * 5 + ["loss_second_moment"]
    variances = [[item.settings.variance for item in c.measurements] for c in found]
    beta, learned = ["beta"] * 2, ["learned"] * 2
    assert variances == [beta, beta, learned, beta, learned, learned]


def test_the_last_of_defaults_scale_base_row_seed_and_command_line_wins(made_up):
    words = made_up(
        """
        base: {optim.batch_size: 3, optim.warmup: 3, optim.steps: 3, seed: 3,
               measure.split: train, measure.seed: 3, measure.nll.at: 0.3, measure.nll.images: 3}
        rows:
          - {objective: L_hybrid, optim.warmup: 4, optim.steps: 4, measure.seed: 4,
             measure.nll.at: 0.4, measure.nll.images: 4}
        axes: {T: [1K, 4K]}
        measure:
          nll: {metric: nll, split: test, ema: 1, steps: 7, axes: {steps: [5, 6]}}
          other: {metric: nll}
        """,
        """
        seeds: [8]
        train: {unet.heads: 2, optim.batch_size: 2, optim.warmup: 2, optim.steps: 2,
                optim.ema: [0.5, 0.9], seed: 2, objective.name: simple}
        measure: {nll: {estimator: full, ema: 0, images: 2, seed: 2, at: 0.2}}
        """,
    )
    one, two = cells(*words, "optim.steps=5", "measure.nll.images=5")
    config = one.config
    assert config.unet.res_blocks == TrainConfig().unet.res_blocks == 3  # the default
    assert config.unet.heads == 2  # the scale's
    assert config.optim.batch_size == 3  # the base's
    assert config.optim.warmup == 4 and config.objective.name == "hybrid"  # the row's
    assert config.optim.steps == 5  # the command line's
    assert config.seed == one.seed == 8
    assert (one.config.diffusion.T, two.config.diffusion.T) == (1000, 4000)
    assert cells(*words, "seeds=9")[0].config.seed == 9

    first, second, other = (item.settings for item in one.measurements)
    assert [item.name for item in one.measurements] == ["nll", "nll", "other"]
    assert (first.steps, second.steps, other.steps) == (5, 6, None)  # an axis of its own
    assert [item.axes for item in one.measurements] == [{"steps": 5}, {"steps": 6}, {}]
    for settings in (first, second):
        assert settings.estimator == "full"  # the scale's
        assert settings.ema == 1  # the measurement's
        assert settings.split == "train"  # the base's
        assert settings.seed == 4 + 8 and settings.at == 0.4  # the row's; the run's seed is added
        assert settings.images == 5  # the command line's
    assert (other.images, other.at, other.seed, other.ema) == (2, 0.2, 12, 0)


def test_words_are_written_by_term_or_by_field_alike(made_up):
    by_term = made_up("rows: [{T: 1K, schedule: linear, objective: L_simple}]")
    one = cells(*by_term)
    made_up(
        "rows: [{diffusion.T: 1000, diffusion.schedule: linear, objective.name: simple,"
        " objective.timesteps: uniform}]"
    )
    assert cells(*by_term)[0].run_id == one[0].run_id


@pytest.mark.parametrize(
    "words, says",
    [
        ("grid=schedule_ablaton", "no grid 'schedule_ablaton'.*mean 'schedule_ablation'"),
        ("scale=smoke", "grid=NAME is missing; there are: .*schedule_ablation"),
        ("grid=schedule_ablation scale=smok", "no scale 'smok'.*laptop.*mean 'smoke'"),
    ],
)
def test_a_typo_in_the_name_of_a_grid_or_scale_is_refused_with_the_nearest(words, says):
    assert_says(refusal(*words.split()), says)


@pytest.mark.parametrize(
    "word, says",
    [
        ("optm.steps=3", "unknown key 'optm.steps'. Did you mean 'optim.steps'"),
        ("sedes=3", "unknown key 'sedes'. Did you mean 'seeds'"),
        ("dropout=0.1", "unknown key 'dropout'. Did you mean 'unet.dropout'"),
        ("unet.dropuot=0.1", "unet.dropuot=0.1: .*mean 'dropout'"),
        ("optim.step=3", "optim.step=3: .*mean 'steps'"),
        ("data.name=fashon", "data.name=fashon: .*fashion16, fashion, folder.*mean 'fashion'"),
        ("unet.conditioning=scaleshift", "scaleshift.*mean 'scale_shift'"),
        ("device=gpu", "device=gpu: choose one of auto, cpu, cuda, mps"),
        ("optim.steps=many", "optim.steps=many: give a whole number"),
        ("optim.steps=3.5", "optim.steps=3.5: give a whole number"),
        ("optim.steps=", "optim.steps=None: give a whole number"),
        ("optim.lr=fast", "optim.lr=fast: give a number"),
        ("optim.ema=0.9", "optim.ema=0.9: .*list"),
        ("unet=3", "unet=3: "),
        ("data={name: folder}", "data.name=folder needs data_path"),
        ("data={digest: abc}", "data.digest is not for the command line"),
        ("diffusion={T: 100}", "varies diffusion.T"),
        ("optim.warmup=${optim.batch_size}", "cannot "),
        ("optim.steps=[1", r"'optim.steps=\[1': the value cannot be read"),
        ("T=2K", "T=2K: choose one of 1K, 4K"),
        ("objective=L_smple", "objective=L_smple: choose one of L_simple, L_hybrid, L_vlb"),
        ("measure.nll.imges=3", "measure.nll.imges=3: .*mean 'images'"),
        ("measure.fd.sampler.stps=3", "measure.fd.sampler.stps=3: .*mean 'steps'"),
        ("measure.nl.images=3", "measure.nl.images: no measurement .*'nl'"),
        ("measure.imges=3", "measure.imges: no measurement .*'imges'"),
        ("measure=3", "measure=3"),
        ("measure.nll=3", "measure.nll"),
        ("unet.dropout", "'unet.dropout' is not of the form key=value"),
        ("=3", "'=3' is not of the form key=value"),
        ("scale=laptop", "'scale' is given twice"),
        ("seeds=[0,-1]", r"seeds=\[0, -1\]: .*whole numbers"),
        ("seeds=[]", r"seeds=\[\]: .*whole numbers"),
        ("seeds=[1,1]", r"seeds=\[1, 1\]: a seed is given twice"),
        ("seeds=1.5", "seeds=1.5: .*whole numbers"),
        ("seeds=true", "seeds=True: .*whole numbers"),
        ("seed=3", r"seeds=\[0,1,2\]"),
        ("list=maybe", "list= takes true or false"),
        ("retry=all", "retry= takes one value: failed"),
        ("on=cluster", "on=cluster"),
        ("data.name=folder", "data.name=folder needs data_path="),
    ],
)
def test_a_mistake_in_a_word_is_refused_in_one_line_that_names_it(word, says):
    assert_says(refusal(*SMOKE, word), says)


@pytest.mark.parametrize(
    "word, says",
    [
        ("optim.steps=0", "optim.steps=0 must be positive"),
        ("optim.batch_size=-1", "optim.batch_size=-1 must be positive"),
        ("optim.lr=0", "optim.lr=0.0 must be positive"),
        ("optim.lr=.nan", "optim.lr=nan: give a finite number"),
        ("optim.ema=[]", r"optim.ema=\[\]: give at least one"),
        ("optim.ema=[0.9,1.0]", r"each in \[0, 1\)"),
        ("unet.dropout=1", r"unet.dropout=1.0 must be in \[0, 1\)"),
        ("measure.fd.sampler.steps=0", "measure.fd .*T=1000: .*1..1000, not 0"),
        ("measure.nll.steps=1001", "measure.nll .*T=1000: .*1..1000, not 1001"),
        ("measure.fd.sampler.skip=1", r"measure.fd .*skip must be in \[0, 1\)"),
        ("measure.fd.at=1.1", r"measure.fd.at=1.1 must be in \(0, 1\]"),
        ("measure.nll.ema=1", r"measure.nll.ema=1, but optim.ema has 1 rate\(s\)"),
        ("measure.nll.images=1", "measure.nll.images=1 must be at least 2"),
    ],
)
def test_a_value_that_no_training_or_measurement_can_have_is_refused(word, says):
    assert_says(refusal(*SMOKE, word), says)


@pytest.mark.parametrize(
    "word", ["diffusion.T=1000", "T=1K", "objective.name=simple", "objective=L_vlb", "T=4K"]
)
def test_what_the_grid_varies_cannot_be_fixed_from_the_command_line(word):
    assert_says(refusal(*SMOKE, word), "schedule_ablation varies .* cannot fix it")


def test_a_short_chain_is_refused_where_it_has_no_linear_schedule(made_up):
    words = made_up("rows: [{schedule: linear}, {schedule: cosine}]")
    assert_says(refusal(*words, "diffusion.T=20"), "diffusion.T=20: .*needs T > 20")
    assert len(cells(*words, "diffusion.T=21")) == 2
    words = made_up("rows: [{schedule: cosine}]")
    assert len(cells(*words, "diffusion.T=20")) == 1


def test_a_grid_with_an_unknown_key_or_metric_is_refused_naming_its_file(made_up):
    assert_says(refusal(*made_up("row: [{T: 1K}]")), "mine.yaml: unknown key 'row'")
    words = made_up("rows: [{T: 1K}]", "trian: {}")
    assert_says(refusal(*words), "mine.yaml: unknown key 'trian'")
    words = made_up("measure: {fd: {metric: fid}}")
    assert_says(refusal(*words), "measure.fd: unknown metric 'fid'; there are: nll, frechet")


def test_two_cells_that_are_the_same_are_refused(made_up):
    words = made_up("rows: [{T: 1K}, {diffusion.T: 1000}]")
    assert_says(refusal(*words), "two cells are the same: '1K' and 'T 1000'")


def test_a_measurement_that_has_no_meaning_for_a_training_is_left_out(made_up):
    words = made_up(
        """
        rows: [{objective: L_simple}, {objective: L_hybrid}]
        measure: {nll: {metric: nll, axes: {estimator: [full]}}, fd: {metric: frechet}}
        axes: {variance: [beta, learned]}
        """
    )
    asked = [[(i.name, i.settings.variance) for i in cell.measurements] for cell in cells(*words)]
    beta, learned = [[(name, v) for name in ("nll", "fd")] for v in ("beta", "learned")]
    assert asked == [beta, [], beta, learned]
    simple, _, hybrid, _ = (cell.config for cell in cells(*words))
    assert not_applicable(hybrid, Likelihood(variance="learned")) is None
    assert not_applicable(simple, Frechet(variance="beta_tilde")) is None
    assert "does not learn" in not_applicable(simple, Frechet(variance="learned"))


def test_a_folder_is_known_by_its_content_and_not_by_its_path(images, made_up):
    words = made_up("rows: [{T: 1K}]")

    def run_id(folder: Path) -> str:
        return cells(*words, "data.name=folder", f"data_path={folder}")[0].run_id

    folder, copy = images("first"), images("moved")
    cell = cells(*words, "data.name=folder", f"data_path={folder}")[0]
    assert cell.config.data.digest and cell.run_id != cells(*words)[0].run_id
    assert str(folder) not in str(cell.config)
    assert run_id(copy) == cell.run_id
    assert run_id(images("another", seed=1)) != cell.run_id
    (copy / "a" / "0.png").rename(copy / "b" / "0.png")  # another label for one image
    assert run_id(copy) != cell.run_id


@pytest.mark.parametrize("name", [".DS_Store", "a/Thumbs.db"])
def test_what_file_browsers_leave_in_a_folder_does_not_change_its_identity(name, images):
    folder = images("first")
    before = content_digest(folder)
    (folder / name).write_text("made by a file browser")
    assert content_digest(folder) == before


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    says = refusal(*SMOKE, "data.name=folder", f"data_path={tmp_path / 'nowhere'}")
    assert_says(says, "nowhere.*neither a folder nor a .zip")


def test_the_help_names_the_grids_and_the_list_shows_each_cell_and_writes_nothing(tmp_path, capsys):
    out = run.help_text()
    assert "schedule_ablation" in out and "laptop" in out and "Noise schedule and objective" in out
    assert run.main([*SMOKE, "list=true", f"results={tmp_path / 'none'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("1K", "linear", "L_simple", "seed", "0", "1f2b163e09", "new", "0/2", "measured")
    ]
    assert lines[-1] == "6 runs: 6 new; 12 of 12 measurements missing"
    assert len(lines) == 7 and not (tmp_path / "none").exists()
