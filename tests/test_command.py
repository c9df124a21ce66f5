"""What every program does with --help, with a refusal, with Ctrl-C and with a reader that left."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.command import start
from core.errors import Refused

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = [
    path
    for folder in ("core", "experiments", "analysis")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "__main__" in path.read_text() and "import start" in path.read_text()
]


def after(monkeypatch, words: list[str], main, **options) -> int:
    """Exit code of a program that is `main`, given these words."""
    monkeypatch.setattr(sys, "argv", ["program", *words])
    with pytest.raises(SystemExit) as ended:
        start(main, **options)
    return ended.value.code or 0


def fails(error: BaseException):
    def main(words):
        raise error

    return main


def test_it_ends_with_what_main_returns_or_with_a_line_and_the_code_of_what_it_raises(
    monkeypatch, capsys
):
    assert after(monkeypatch, ["a=1", "b"], lambda words: len(words)) == 2
    assert after(monkeypatch, [], lambda words: None) == 0
    assert after(monkeypatch, [], fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")
    assert after(monkeypatch, ["x"], fails(Refused("no such thing", code=7))) == 7
    assert capsys.readouterr() == ("", "error: no such thing\n")
    with pytest.raises(ValueError, match="a defect is not hidden"):
        start(fails(ValueError("a defect is not hidden")))


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["grid=x", "help"]])
def test_help_is_printed_instead_of_running(monkeypatch, capsys, words):
    assert after(monkeypatch, words, fails(AssertionError())) == 0
    assert capsys.readouterr().out.startswith(__doc__)
    assert after(monkeypatch, words, fails(AssertionError()), text=lambda: "taught") == 0
    assert capsys.readouterr().out == "taught\n"


def test_a_program_that_needs_words_teaches_when_given_none(monkeypatch, capsys):
    assert after(monkeypatch, [], fails(AssertionError()), needs_words=True) == 0
    assert capsys.readouterr().out.startswith(__doc__)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_each_program_says_how_it_is_called(program):
    assert f"{program.name}" in ast.get_docstring(ast.parse(program.read_text())) or (
        f"-m core.interop.{program.stem}" in program.read_text()
    )


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from core.command import start\n"
        "start(lambda words: [print('line', flush=True) for _ in range(100_000)] and 0)\n"
    )
    made = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' '{program}' | head -n 1; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (made.stdout, made.stderr, made.returncode) == ("line\n", "", 141)
