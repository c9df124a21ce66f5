"""Grids, scales, profiles and words of a command line from elsewhere: data, never a program."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from hostile import Memory, refusal

from experiments import grid as module
from experiments import profiles
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import help_text

ROWS = "rows: [{T: 1K}, {T: 4K}]\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGED = "a0: &a0 {k0: x, k1: x, k2: x, k3: x}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
)
DEEP = "[" * 3000 + "]" * 3000
HOSTILE = {
    "an object": ("rows: !!python/object/apply:os.mkdir ['{trace}']", "could not determine a"),
    "a new object": ("rows: !!python/object/new:os.mkdir ['{trace}']", "could not determine a"),
    "a module": ("title: !!python/module:os.path", "could not determine a"),
    "an unknown tag": ("title: !mine x", "could not determine a constructor"),
    "a bomb": (BOMB, "entries, aliases followed"),
    "a bomb of mappings": (MERGED, "entries, aliases followed"),
    "a loop": ("rows: &a [*a]", "entries, aliases followed"),
    "brackets": (f"rows: {DEEP}", "levels within each other"),
    "indents": ("".join(f"{' ' * i}a:\n" for i in range(3000)), "levels within each other"),
    "no YAML": ("rows: [", "read: line 1: expected"),
    "no text": (b"\xff\xfe\x00rows", "is not YAML that can be read"),
    "no mapping": ("[1, 2]", "give `key: value` lines"),
    "rows of numbers": ("rows: [1, 2]", "rows, number 1: give a mapping"),
    "rows as text": ("rows: all", "rows: give a list of rows"),
    "a title of rows": ("title: [x]", "title: give text"),
    "axes of words": ("axes: {T: 1K}", "axes.T: give a list"),
    "a measurement as text": (ROWS + "measure: {nll: 3}", "measure.nll: give a mapping"),
    "a key as a number": (ROWS + "base: {1: 2}", "cannot be a key: quote it"),
    "a terminal's": (ROWS + r'title: "\e]0;x\a"', "has control characters"),
    "a formula": ("rows: [{T: $\\frac}]", "a word cannot have a '$'"),
    "an environment": (ROWS + "base: {data.name: '${oc.env:HOME}'}", "a word cannot have a '$'"),
    "a script elsewhere": (ROWS + "analysis: [../../tmp/evil]", "there is no script"),
    "a script with words": (ROWS + "analysis: ['all.py; rm']", "there is no script"),
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A copy of the folders of grids and scales."""
    for name in ("grids", "scales"):
        shutil.copytree(module.HERE / name, tmp_path / "experiments" / name)
    shutil.copy(module.HERE / "terms.yaml", tmp_path / "experiments")
    monkeypatch.setattr(module, "HERE", tmp_path / "experiments")
    return tmp_path / "experiments"


def write(path: Path, content: str | bytes, trace: Path) -> None:
    if isinstance(content, str):
        content = content.replace("{trace}", str(trace)).encode()
    path.write_bytes(content)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_grid_is_refused_in_one_line_and_nothing_of_it_is_run(kind, here, tmp_path):
    content, says = HOSTILE[kind]
    write(here / "grids" / "mine.yaml", content, tmp_path / "was-here")
    with Memory(2**26) if "bomb" in kind else nullcontext():
        said = refusal(lambda: expand(parse(["grid=mine", "scale=smoke"])))
    assert says in said
    assert "mine.yaml" in said or "$" in says
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize(
    "kind", ["an object", "a bomb", "a loop", "brackets", "no YAML", "no text"]
)
def test_a_hostile_scale_or_profile_is_refused_likewise(kind, here, tmp_path, monkeypatch):
    content, says = HOSTILE[kind]
    write(here / "scales" / "mine.yaml", content, tmp_path / "was-here")
    grid = ["grid=schedule_ablation", "scale=mine"]
    assert says in (said := refusal(lambda: expand(parse(grid)))) and "mine.yaml" in said
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    write(tmp_path / "mine.yaml", content, tmp_path / "was-here")
    assert says in (said := refusal(profiles.load, "mine", {})) and "slurm/mine.yaml" in said
    assert not (tmp_path / "was-here").exists()


WORDS = {
    "unet.channels=!!python/object/apply:os.mkdir ['{trace}']": "cannot be read as YAML",
    "seeds=!!python/tuple [1]": "cannot be read as YAML",
    f"unet.attention={DEEP}": "cannot be read as YAML",
    f"x={{{', '.join(BOMB.splitlines())}}}": "cannot be read as YAML",
    "grid=../../etc/x": "there is no grid '../../etc/x'",
    "grid=/etc/x": "there is no grid '/etc/x'",
    "grid=schedule_ablation\x1b[2J": r"\x1b[2J",
    "scale=../scales/smoke": "there is no scale '../scales/smoke'",
    "scale=../grids/schedule_ablation": "there is no scale",
}


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_a_hostile_word_is_refused_in_one_line(word, tmp_path):
    words = [word.replace("{trace}", str(tmp_path / "was-here"))]
    words += [] if word.startswith("grid=") else ["grid=schedule_ablation"]
    said = refusal(lambda: expand(parse(words)))
    assert WORDS[word] in said or "read as YAML" in said
    assert not (tmp_path / "was-here").exists()


def test_a_grid_beside_the_folder_is_not_read_by_a_name_that_leads_there(here):
    (here / "secret.yaml").write_text(ROWS)
    assert "there is no grid '../secret'" in refusal(lambda: expand(parse(["grid=../secret"])))
    (here / "grids" / "secret.yaml").write_text(ROWS)
    assert len(expand(parse(["grid=secret", "scale=smoke"])).cells) == 2


def test_aliases_within_reason_mean_what_they_say(here):
    aliases = "rows:\n- &a {T: 1K, schedule: linear}\n- {<<: *a, T: 4K}\n"
    (here / "grids" / "mine.yaml").write_text(aliases)
    rows = expand(parse(["grid=mine", "scale=smoke"])).rows
    assert [dict(row) for row in rows] == [
        {"T": "1K", "schedule": "linear"},
        {"T": "4K", "schedule": "linear"},
    ]


def test_the_help_names_a_grid_that_cannot_be_read(here, monkeypatch):
    import experiments.run

    monkeypatch.setattr(experiments.run, "HERE", here)
    (here / "grids" / "mine.yaml").write_text("rows: [")
    assert "line 1: expected" in refusal(help_text)
