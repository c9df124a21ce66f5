"""What the scripts in analysis/ share: key=value words, --help, refusals, what was written."""

from pathlib import Path
from typing import Any

from core.errors import Refused

RESULTS = Path(__file__).resolve().parents[1] / "results"


def keys(words: list[str], **defaults: Any) -> dict[str, Any]:
    """The defaults, replaced by what the words key=value say, in the types of the defaults.

    A default may be a number, a str, a Path, None (for a str) or a list of one type: [1,2] or 1.
    Refused: a word without "=", an unknown or repeated key, a value of another type.
    """
    given: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise Refused(f"'{word}' is not of the form key=value; --help shows the keys")
        if key not in defaults:
            raise Refused(f"unknown key '{key}': the keys here are {', '.join(defaults)}")
        if key in given:
            raise Refused(f"'{key}' is given twice")
        given[key] = _typed(word, text, defaults[key])
    return defaults | given


def _typed(word: str, text: str, default: Any) -> Any:
    """The value that `text`, the right side of `word`, has in the type of the default."""
    if not text:
        raise Refused(f"'{word}' lacks a value")
    if isinstance(default, list):
        return [_typed(word, part.strip(), default[0]) for part in text.strip("[]").split(",")]
    kind = str if default is None else type(default)
    try:
        return kind(text)
    except ValueError as error:
        name = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
        raise Refused(f"'{word}': '{text}' is not {name}") from error


def chain(T: int) -> int:
    """T itself, refused unless a linear schedule of T steps exists and pictures can show it."""
    if not 20 < T < 100_000:
        raise Refused(f"T={T}: give 20 < T < 100000; the linear schedule's last beta is 20/T")
    return T


def say_written(paths: list[Path]) -> None:
    """One line per file, relative to the current folder where it lies below."""
    here = Path.cwd()
    for path in map(Path.absolute, paths):
        print("wrote", path.relative_to(here) if path.is_relative_to(here) else path)
