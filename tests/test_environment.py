"""What is installed is said alike in three places; no committed file names one machine's places."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
]
CONDA_NAMES = {"torch": "pytorch"}  # where conda-forge has another name

# In pieces, so that this file does not find itself.
FOLDERS = ("root", "work", "farm", "opt", "home", "Users")
PLACES = re.compile(rf"(?<![\w.}}~)])/({'|'.join(FOLDERS)})(?![\w-])")
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("download", "pytorch", "org"),
        ("anaconda", "org"),
        ("npmjs", "org"),
        ("debian", "org"),
    )
]


def locked() -> dict[str, Version]:
    """requirements.lock as canonical name -> version. Every line must pin exactly one version."""
    versions = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
            versions[canonicalize_name(name)] = Version(version)
    return versions


def conda() -> dict[str, Requirement]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    found = [Requirement(entry) for entry in entries if isinstance(entry, str)]
    return {canonicalize_name(entry.name): entry for entry in found}


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_conda_has_the_same_range(declared):
    name = canonicalize_name(declared.name)
    assert conda()[CONDA_NAMES.get(name, name)].specifier == declared.specifier


def test_conda_has_nothing_else_and_ends_with_the_project():
    names = {canonicalize_name(declared.name) for declared in DECLARED}
    names = {CONDA_NAMES.get(name, name) for name in names}
    assert conda().keys() - names == {"python", "pip"}
    assert str(conda()["python"].specifier) == PROJECT["requires-python"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}
    assert environment["name"] == PROJECT["name"]


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_lock_satisfies_the_range(declared):
    assert declared.specifier.contains(locked()[canonicalize_name(declared.name)])


def test_lock_can_build_the_project():
    """`make` installs the project without build isolation: with the lock's own setuptools."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, build):
        assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def committed() -> list[Path]:
    """git's files; without git, everything that is not made by running the project."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    if listed:
        return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
    made = re.compile(
        r"(\.git|\.venv|build|results/(runs|tables|figures|cache))/|(^|/)[^/]*(cache|egg-info)[^/]*/"
    )
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    return [path for path in files if not made.match(str(path.relative_to(ROOT)))]


def offences(text: str) -> list[str]:
    """The lines that name a folder of one machine or the host of a package registry."""
    return [
        line.strip()
        for line in text.splitlines()
        if PLACES.search(line) or any(host in line.lower() for host in HOSTS)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    "line", ["/{}/data", "cd /{}", 'path = "/{}/x"', "--prefix=/{}/x", "[x](/{}/x)"]
)
def test_a_machine_path_is_found(line, folder):
    assert offences(line.format(folder))


@pytest.mark.parametrize("host", HOSTS)
def test_a_registry_is_found(host):
    assert offences(f"pip install --index-url https://files.{host}/simple torch")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    "line", ["results/{}/x", "~/{}/x", "$HOME/{}", "${{X}}/{}/", "/{}-x", "/{}s"]
)
def test_another_path_is_not(line, folder):
    assert not offences(line.format(folder))


def test_no_committed_file_names_a_machine():
    found, texts = {}, 0
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            continue
        texts += 1
        if lines := offences(text):
            found[str(path.relative_to(ROOT))] = lines
    assert texts > 20
    assert not found
