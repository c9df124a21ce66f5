"""Who may import whom: read off the source, and tried where only running shows it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
HALLS = ("core", "experiments", "analysis", "benchmarks")
FILES = sorted(path for hall in HALLS for path in (ROOT / hall).rglob("*.py"))
GRIDS = sorted((ROOT / "experiments" / "grids").glob("*.yaml"))

# The part -> what of ours it may import. The first part that a module lies in counts.
ALLOWED = {
    "core.diffusion": {"core.diffusion"},
    "core.networks": {"core.networks"},
    "core.data": {"core.data", "core.errors", "core.randomness"},
    "core.metrics": {"core.metrics", "core.data", "core.errors", "core.files", "core.randomness"},
    "core": {"core"},
    "experiments": {"experiments", "core"},
    "analysis": {"analysis", "experiments", "core"},
    "benchmarks": {"benchmarks", "analysis", "experiments", "core"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def within(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def imports(source: str, module: str = "", package: str = "") -> set[str]:
    """Full names of the modules that a source imports, at any depth.

    `from core import build` counts as core.build. package: what relative imports start from.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
    return found - {module}


def imported_by(path: Path) -> set[str]:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imports(path.read_text(), module, package)


def forbidden(module: str, imported: set[str]) -> list[str]:
    """The ones among them that ALLOWED does not give to this module."""
    allowed = next(allowed for part, allowed in ALLOWED.items() if within(module, part))
    ours = [name for name in imported if name.split(".")[0] in HALLS]
    return sorted(name for name in ours if not any(within(name, part) for part in allowed))


@pytest.mark.parametrize(
    "module, source",
    [
        ("core.build", "import experiments.runs"),
        ("experiments.run", "def f():\n    from analysis import tables"),
        ("core.diffusion.process", "from core.errors import Refused"),
        ("core.diffusion.process", "from core import build"),
        ("core.diffusion.process", "from ..networks import unet"),
        ("core.networks.unet", "from core.diffusion.gaussians import kl"),
        ("core.data.images", "from core.metrics.features import prepare"),
        ("core.metrics.features", "import core.config"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    assert forbidden(module, imports(source, module, module.rpartition(".")[0]))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_arrows(path):
    assert forbidden(module_name(path), imported_by(path)) == []


def test_omegaconf_is_imported_in_one_place():
    users = [path for path in FILES if any(within(name, "omegaconf") for name in imported_by(path))]
    assert [module_name(path) for path in users] == ["experiments.overrides"]


def test_no_script_hides_another_module():
    """A script's folder comes first on its path: analysis/random.py would be everyone's random."""
    others = {name.split(".")[0] for path in FILES for name in imported_by(path)} - set(HALLS)
    taken = set(sys.stdlib_module_names) | others
    scripts = [path for path in FILES if path.parent.name in ("experiments", "analysis")]
    assert scripts
    assert [str(path.relative_to(ROOT)) for path in scripts if path.stem in taken] == []


@pytest.mark.parametrize("grid", GRIDS, ids=lambda path: path.stem)
def test_a_grid_names_scripts_that_exist(grid):
    names = yaml.safe_load(grid.read_text()).get("analysis", [])
    assert [name for name in names if not (ROOT / "analysis" / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("grid", GRIDS, ids=lambda path: path.stem)
def test_listing_is_quick(grid, tmp_path):
    """Listing a grid imports neither torch nor pandas, which take seconds."""
    words = [f"grid={grid.stem}", "scale=smoke", "list=true", f"results={tmp_path}"]
    program = f"""
import json, sys
import experiments.run
code = experiments.run.main({words!r})
print(json.dumps([code, "numpy" in sys.modules, "torch" in sys.modules, "pandas" in sys.modules]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, True, False, False]
