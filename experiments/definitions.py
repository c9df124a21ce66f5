"""What a file that defines a grid or a scale may hold: its keys and the shape of each.

Names and types of configuration fields are told by experiments/overrides.py, ranges by limits.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.config import METRICS
from core.errors import Refused
from experiments import read_yaml
from experiments.overrides import did_you_mean

Shape = Callable[[str, Any], None]  # a key and its value; Refused when they do not fit


def _shape(fits: Callable[[Any], bool], wanted: str) -> Shape:
    def check(key: str, value: Any) -> None:
        if not fits(value):
            raise Refused(f"{key}: give {wanted}, not {_shown(value)}")

    return check


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or value is None


def _mapping_of(inner: Shape, example: str) -> Shape:
    """A mapping from words to what has the inner shape; nothing at all is an empty one."""
    mapping = _shape(lambda value: isinstance(value, dict), f"a mapping, as in `{example}`")

    def check(key: str, value: Any) -> None:
        if value is None:
            return
        mapping(key, value)
        for name, content in value.items():
            if not all(name.split(".")):
                raise Refused(f"{key}: '{_shown(name)}' is no name of a field")
            inner(f"{key}.{name}", content)

    return check


def _list_of(inner: Shape, wanted: str) -> Shape:
    """A list of at least one thing that has the inner shape."""
    some = _shape(lambda value: isinstance(value, list) and len(value) > 0, wanted)

    def check(key: str, value: Any) -> None:
        some(key, value)
        for place, item in enumerate(value, 1):
            inner(f"{key}, number {place}", item)

    return check


def _value(key: str, value: Any) -> None:
    """What a field may have: a number, a word, a list of these, or fields of its own."""
    if isinstance(value, dict):
        _fields(key, value)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        raise Refused(f"{key}: a list may hold numbers and words only, not {_shown(value)}")


def _fields(key: str, value: Any) -> None:
    _mapping_of(_value, "optim.steps: 100")(key, value)


def _measurement(key: str, value: Any) -> None:
    example = "{metric: nll}"
    _shape(lambda value: isinstance(value, dict), f"a mapping, as in `{example}`")(key, value)
    if "." in key.rpartition("measure.")[2]:
        raise Refused(f"{key}: a measurement's name has no dots")
    metric = value.get("metric")
    if not isinstance(metric, str) or metric not in METRICS:
        hint = did_you_mean(str(metric), METRICS)
        raise Refused(f"{key}: unknown metric '{metric}'; there are: {', '.join(METRICS)}{hint}")
    for name, content in value.items():
        inner = {"axes": _axes, "with_row": _row}
        _mapping_of(inner.get(name, _value), example)(key, {name: content})


def _row(key: str, value: Any) -> None:
    _shape(lambda value: isinstance(value, dict), "a mapping, as in `{T: 1K}`")(key, value)
    _fields(key, value)


def _any(key: str, value: Any) -> None:
    """Checked by whoever reads it."""


_text = _shape(_is_text, "text")
_axis = _list_of(_value, "a list of at least one value")
_axes = _mapping_of(_axis, "unet.dropout: [0, 0.1]")
_measured = _mapping_of(_fields, "nll: {images: 100}")
_names = _list_of(_shape(lambda value: isinstance(value, str), "a name"), "a list of names")
_form = _shape(
    lambda value: (
        isinstance(value, list)
        and len(value) == 3
        and all(type(n) is int and n >= least for n, least in zip(value, (1, 1, 0)))
    ),
    "channels, size and classes, as in `form: [3, 64, 1000]`",
)
TERMS = _mapping_of(_mapping_of(_fields, "2K: {diffusion.T: 2000}"), "T: {2K: {diffusion.T: 2000}}")
GRID = {
    **{"title": _text, "paper": _text, "claim": _text},
    **{"base": _fields, "rows": _list_of(_row, "a list of rows, as in `rows: [{T: 1K}]`")},
    **{"axes": _axes, "seeds": _any, "analysis": _names},
    "measure": _mapping_of(_measurement, "nll: {metric: nll}"),
}
SCALE = {
    **{"title": _text, "prepare": _text, "form": _form, "train": _fields, "seeds": _any},
    "measure": _measured,
    "grids": _mapping_of(_fields, "overfitting: {data.images: 128}"),
    "axes": _mapping_of(_mapping_of(_axes, "nll: {steps: [10]}"), "recipe: {nll: {steps: [10]}}"),
    "terms": TERMS,
}


def read(path: Path, shapes: dict[str, Shape]) -> dict[str, Any]:
    """A grid's (GRID) or a scale's (SCALE) file. Refused, naming file and key, when it is not."""
    where, what = f"{path.parent.name}/{path.name}", path.parent.name.removesuffix("s")
    content = read_yaml.read(path, where)
    for key, value in content.items():
        if key not in shapes:
            hint = did_you_mean(key, shapes)
            there = ", ".join(sorted(shapes))
            raise Refused(f"{where}: unknown key '{key}'; a {what} has: {there}{hint}")
        shapes[key](f"{where}: {key}", value)
    for metric in content.get("measure") or {} if shapes is SCALE else ():
        if metric not in METRICS:
            there = ", ".join(METRICS)
            hint = did_you_mean(metric, METRICS)
            raise Refused(f"{where}: measure.{metric}: unknown metric; there are: {there}{hint}")
    # A key without a value is one that is not there.
    return {key: value for key, value in content.items() if value is not None}
