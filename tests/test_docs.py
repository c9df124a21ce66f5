"""The documentation names what there is, its commands are understood, and the site builds.

All but the last tests do without mkdocs: they read docs/*.md.
"""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache, partial
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from core.errors import Refused
from experiments import grid as grids
from experiments import profiles
from experiments.grid import available, expand_each
from experiments.overrides import parse

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
FOLDERS = ("core", "experiments", "analysis", "tests", "benchmarks", "docs", "slurm", "results")

# What a page may name though it is not there: what running makes, what a reader makes after the
# page's own example, what is yet to be written.
MADE = ("results/tables/", "results/figures/", "results/jobs/", "results/runs/")
EXAMPLES = ("experiments/grids/warmup.yaml", "experiments/grids/middle.yaml")
OTHERS = {"send_user_signal"}  # words of other programs

FENCED = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")


def blocks(page: Path, kind: str = "") -> list[str]:
    """The contents of the page's fenced blocks of one kind."""
    return [text for found, text in FENCED.findall(page.read_text()) if found == kind]


def spans(page: Path) -> list[str]:
    """What the page has in backticks, outside of fenced blocks."""
    return [" ".join(text.split()) for text in INLINE.findall(FENCED.sub("", page.read_text()))]


@cache
def defined(path: Path) -> set[str]:
    """Names of a module's functions, classes and constants; of members as Class.member."""

    def of(body: list, prefix: str = "") -> set[str]:
        names = set()
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                names |= of(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            names |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
        return names

    return of(ast.parse(path.read_text()).body)


@cache
def words() -> frozenset[str]:
    """Every word of the code, its tests and its YAML, and the names of their files."""
    files = [path for folder in FOLDERS[:-1] for path in (ROOT / folder).rglob("*")]
    files = [path for path in files if path.suffix in (".py", ".yaml") and path != Path(__file__)]
    texts = [text for path in files for text in (path.stem, path.read_text())]
    return frozenset(re.findall(r"\w+", "\n".join(texts)))


@EVERY_PAGE
def test_paths_and_names_in_them_exist(page):
    wrong, seen = [], 0
    for text in spans(page):
        path, colons, name = text.partition("::")
        if path.split("/")[0] not in FOLDERS or not re.fullmatch(r"[\w./-]+", path):
            continue
        if "/" not in path or path in EXAMPLES or path.startswith(MADE):
            continue
        seen += 1
        if not (ROOT / path).exists() or (colons and name not in defined(ROOT / path)):
            wrong.append(text)
    assert not wrong and (seen or page.name == "performance.md")


@EVERY_PAGE
def test_functions_and_other_names_occur_in_the_code(page):
    named = {word for text in spans(page) for word in re.findall(r"[A-Za-z]\w*_\w+", text)}
    named |= {match for text in spans(page) for match in re.findall(r"^([A-Za-z]\w+)\(", text)}
    unknown = named - words() - OTHERS
    assert not unknown


def test_each_formula_is_computed_somewhere_and_tested():
    """Every section with displayed formulas names code and tests, and the tests exist."""
    sections = re.split(r"^## ", (DOCS / "mathematics.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(sections) > 15
    for section in sections:
        code = re.search(r"^- Code:(.*?)(?=^- |\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        tests = re.search(r"^- Tests:(.*?)(?=^- |\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        title = section.splitlines()[0]
        assert code and re.search(r"`(core|analysis)/[\w/]+\.py::\w", code[1]), title
        assert tests and re.search(r"`tests/\w+\.py::test_", tests[1]), title


@EVERY_PAGE
def test_links_to_files_lead_somewhere(page):
    text = INLINE.sub("", FENCED.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        path = (page.parent / target).resolve()
        assert ":" in target or path.exists(), target


# The studies.


def numbers(text: str) -> list[int]:
    """Those of "Claims 5 and 8 to 15."."""
    found = []
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", text):
        found += range(int(first), int(last or first) + 1)
    return found


def test_every_grid_has_a_section_with_its_claims_and_its_command():
    text = (DOCS / "studies.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == set(available("grids"))
    claims = yaml.safe_load((ROOT / "analysis" / "claims.yaml").read_text())
    for name, section in sections.items():
        said = re.search(r"Claims? ([\d, toand]+)\.", section)
        theirs = [claim["number"] for claim in claims if claim.get("grid") == name]
        assert numbers(said[1] if said else "") == theirs, name
        assert re.search(rf"python experiments/run\.py grid={name}\b", section), name
        for word in ("Varied:", "Measured:", "Look for"):
            assert word in section, (name, word)


# Commands.


def commands(page: Path) -> list[str]:
    """Command lines of scripts of the repository, without prompt and comment."""
    lines = [line.strip() for kind in ("", "sh") for block in blocks(page, kind)
             for line in block.splitlines()]  # fmt: skip
    lines += spans(page) if page.name != "README.md" else []
    lines = [line.removeprefix("$ ") for line in lines]
    return [line for line in lines if re.match(r"python (experiments|analysis)/\w+\.py", line)]


@pytest.fixture
def with_examples(tmp_path, monkeypatch):
    """Grids as they are when a reader has followed docs/add-your-own.md to its end."""
    for kind in ("grids", "scales"):
        shutil.copytree(ROOT / "experiments" / kind, tmp_path / kind)
    shutil.copy(ROOT / "experiments" / "terms.yaml", tmp_path)
    found = [yaml.safe_load(text) for text in blocks(DOCS / "add-your-own.md", "yaml")]
    row = next(content for content in found if list(content) == ["rows"])
    middle, study = (content for content in found if "title" in content)
    for measurement in middle["measure"].values():  # the code of that variance is the reader's
        measurement["axes"]["variance"].remove("middle")
    dump = partial(yaml.safe_dump, sort_keys=False)  # a row's words have an order
    path = tmp_path / "grids" / "extension_weighting.yaml"
    path.write_text(dump(yaml.safe_load(path.read_text()) | row))
    (tmp_path / "grids" / "warmup.yaml").write_text(dump(study))
    (tmp_path / "grids" / "middle.yaml").write_text(dump(middle))
    monkeypatch.setattr(grids, "HERE", tmp_path)


def understood(line: str) -> None:
    """Refused, or an assertion, when the command could not be carried out."""
    _, script, *given = shlex.split(line, comments=True)
    assert (ROOT / script).is_file(), script
    name = Path(script).stem
    if name in ("import_openai", "prepare"):  # words of their own alone, about files not here
        return
    own = {"claims": ("claim=",), "export": ("to=", "weights="), "mirror": ("to=", "follow=")}
    own = own.get(name, ())
    keys = [word for word in given if "=" in word and not word.startswith(own)]
    assert keys == given or own or script == "analysis/compare.py" or "--check" in given
    # The user's own images are not here; what a scale says of them is enough for a plan.
    keys = [word for word in keys if not word.startswith("data_path=")]
    request = parse([*keys, *([] if "plan=true" in keys else ["plan=true"])])
    if request.on != "here":
        profiles.load(request.on, request.slurm)
    if request.grid and "data.name=folder" not in keys:
        expand_each(request)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_command_is_understood(page, with_examples):
    lines = commands(page)
    for line in lines:
        if "grid=..." in line or "grid=NAME" in line:
            continue
        try:
            understood(line)
        except Refused as error:
            pytest.fail(f"{line}: {error}")
    assert lines or page.name in ("performance.md", "mathematics.md")


def test_a_command_that_is_wrong_is_found(with_examples):
    for line in ("grid=schedule_ablatio", "grid=single unet.dropuot=0.1", "grid=single on=nowhere"):
        with pytest.raises(Refused):
            understood(f"python experiments/run.py {line}")
    with pytest.raises(AssertionError):
        understood("python analysis/plot_nothing.py")


def test_the_ids_that_are_shown_are_those_of_the_examples(with_examples):
    """Of each listing: words of the row, seed and id."""
    shown = 0
    for block in blocks(DOCS / "add-your-own.md"):
        cells = {}
        for line in block.splitlines():
            if line.startswith("$ python experiments/run.py"):
                given = shlex.split(line, comments=True)[3:]
                cells = {
                    (cell.words, cell.seed): cell.run_id
                    for grid in expand_each(parse(given))
                    for cell in grid.cells
                }
            elif found := re.match(r"(.+?)\s+seed (\d)\s+([0-9a-f]{10})\s", line):
                assert cells[found[1], int(found[2])] == found[3], line
                shown += 1
    assert shown >= 9


# The site.


def locked(path: Path) -> dict[str, Version]:
    lines = (line for line in path.read_text().splitlines() if line and line[0] != "#")
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_lock_has_what_the_extra_asks_for_and_nothing_twice():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own, suite = locked(DOCS / "requirements.lock"), locked(ROOT / "requirements.lock")
    assert not own.keys() & suite.keys()
    for text in project["optional-dependencies"]["docs"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains((own | suite)[canonicalize_name(wanted.name)]), text


TOOLS = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers", "math_core", "ziamath")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("DOCS_MUST_BE_THERE"):
        pytest.skip(f"make docs installs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_has_every_module(site):
    modules = [
        path.relative_to(ROOT).with_suffix(".html")
        for hall in ("core", "experiments", "analysis")
        for path in (ROOT / hall).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(modules) > 80
    assert not [path for path in modules if not (site / "reference" / path).is_file()]
    linear = (site / "reference/core/diffusion/schedules.html").read_text()
    assert 'id="core.diffusion.schedules.linear"' in linear


def test_the_site_asks_the_network_for_nothing(site):
    asked = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\">\s]+)"
    )
    found = {url for path in site.rglob("*.html") for url in asked.findall(path.read_text())}
    assert not found
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", " ".join(styles))


def test_formulas_are_mathml_with_a_font_of_their_own(site):
    text = (site / "mathematics.html").read_text()
    assert text.count("<math") > 100 and "arithmatex" not in text
    assert (site / "assets" / "STIXTwoMath-Regular.ttf").stat().st_size > 100_000
