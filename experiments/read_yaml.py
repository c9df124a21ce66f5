"""YAML as people mean it: of grids, scales and profiles, and of the values of a command line.

Stricter than PyYAML's safe loader. A key that is given twice is an error instead of the last one
winning. Nothing but numbers, words, lists and mappings is made. `1e-3` is a number, as in YAML 1.2;
`010`, `1:30` and dates, which YAML 1.1 makes numbers and dates of, are words. Aliases, of which a
few lines stand for more nodes than there is memory, and brackets within brackets have bounds.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from core.errors import Refused

DEEPEST = 20
MOST = 100_000  # nodes, counted as often as they are meant
_TAG = "tag:yaml.org,2002:"
_NUMBER = r"[0-9][0-9_]*"
_FLOAT = (
    rf"[-+]?({_NUMBER}\.[0-9_]*|\.{_NUMBER})([eE][-+]?[0-9]+)?"
    rf"|[-+]?{_NUMBER}[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class Bounded(yaml.SafeLoader):
    """A safe loader that refuses more than MOST nodes, or more than DEEPEST within each other."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (as PyYAML declares it)
    yaml_constructors: dict = {}  # noqa: RUF012

    def __init__(self, stream):
        super().__init__(stream)
        self._depth, self._nodes, self._sizes = 0, 0, {}

    def compose_node(self, parent, index):
        """As the safe loader's."""
        is_alias, before = self.check_event(yaml.AliasEvent), self._nodes
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels within each other")
        node = super().compose_node(parent, index)
        self._depth -= 1
        # An alias to a node that is not complete stands for itself within itself.
        self._nodes += self._sizes.get(id(node), MOST) if is_alias else 1
        if self._nodes > MOST:
            raise yaml.YAMLError(f"more than {MOST:,} entries, aliases followed")
        self._sizes[id(node)] = self._nodes - before
        return node

    def mapping(self, node: yaml.MappingNode) -> dict:
        """A mapping whose keys are words or numbers, each given once."""
        given = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise ConstructorError(None, None, "a key is a list or a mapping")
            if key in given:
                raise ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
            given |= {key} if key_node.tag != f"{_TAG}merge" else set()
        return self.construct_mapping(node, deep=True)

    def sequence(self, node: yaml.SequenceNode) -> list:
        """A list."""
        return self.construct_sequence(node, deep=True)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", None),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", None),
    ("float", _FLOAT, None),
    ("merge", r"<<", ["<"]),
):
    Bounded.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)
for _name in ("null", "bool", "int", "float", "str"):
    Bounded.add_constructor(f"{_TAG}{_name}", getattr(Bounded, f"construct_yaml_{_name}"))
Bounded.add_constructor(f"{_TAG}merge", Bounded.construct_yaml_str)
Bounded.add_constructor(f"{_TAG}map", Bounded.mapping)
Bounded.add_constructor(f"{_TAG}seq", Bounded.sequence)
Bounded.add_constructor(None, Bounded.construct_undefined)  # any other tag


def parse(text: str) -> Any:
    """What the text says. ValueError, in one line, when it is not YAML, or too much of it."""
    try:
        return yaml.load(text, Bounded)
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        why = [line.strip() for line in str(error).splitlines() if line.strip()]
        place = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or (why or [type(error).__name__])[0]
        said = said.encode("ascii", "backslashreplace").decode()
        raise ValueError(f"line {place.line + 1}: {said}" if place else said) from error


def read(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file, {} where it is empty. what: its name in messages.

    Refused, in one line, when it cannot be read or holds anything else, or what a terminal obeys.
    """
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{what} is not YAML that can be read: {error}") from error
    if not isinstance({} if content is None else content, dict):
        raise Refused(f"{what}: give `key: value` lines")
    _refuse_texts(content, what)
    return content or {}


def _refuse_texts(content: Any, what: str) -> None:
    """Keys are words, and no text holds what a terminal would obey."""
    if isinstance(content, dict):
        for key, item in content.items():
            if not isinstance(key, str):
                raise Refused(f"{what}: {key} is no word and cannot be a key: quote it")
            _refuse_texts(key, what)
            _refuse_texts(item, what)
    elif isinstance(content, list):
        for item in content:
            _refuse_texts(item, what)
    elif isinstance(content, str) and not content.replace("\n", " ").isprintable():
        raise Refused(f"{what}: {content[:40]!a} has control characters: remove them")
