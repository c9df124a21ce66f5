"""What a number says of the code that made it."""

import subprocess

import pytest

from experiments import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a clean commit, in the place of the suite's own."""

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    for name in ("core", "experiments", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "there.py").write_text("x = 1\n")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.code.cache_clear()
    yield tmp_path
    provenance.code.cache_clear()


def test_a_clean_commit_is_named(repository):
    found = provenance.code()
    assert len(found["commit"]) == 40 and found["modified"] == []


@pytest.mark.parametrize(
    "file, text, said",
    [
        ("core/there.py", "x = 2\n", ["M core/there.py"]),
        ("core/new.py", "x = 2\n", ["?? core/new.py"]),
        ("experiments/grids/mine.yaml", "rows: []\n", ["?? experiments/grids/mine.yaml"]),
        ("analysis/there.py", "x = 2\n", []),
        ("notes.txt", "to do\n", []),
    ],
)
def test_what_computes_is_watched_whether_git_knows_it_or_not(repository, file, text, said):
    (repository / file).parent.mkdir(exist_ok=True)
    (repository / file).write_text(text)
    assert provenance.code()["modified"] == said


def test_without_git_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.code.cache_clear()
    assert provenance.code() == {"commit": None, "modified": None}
    provenance.code.cache_clear()
