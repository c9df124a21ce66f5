"""YAML of the suite's own grids, scales and profiles, and of those that were got from elsewhere.

PyYAML's safe loader makes no objects. It still follows aliases, of which a few lines stand for more
nodes than there is memory, and brackets within brackets to the end of Python's stack.
"""

from pathlib import Path
from typing import Any

import yaml

from core.errors import Refused

DEEPEST = 20
MOST = 100_000  # nodes, counted as often as they are meant


class Bounded(yaml.SafeLoader):
    """A safe loader that refuses more than MOST nodes, or more than DEEPEST within each other."""

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


def parse(text: str) -> Any:
    """What the text says. yaml.YAMLError or ValueError when it is not YAML, or too much of it."""
    return yaml.load(text, Bounded)


def read(path: Path, what: str) -> dict:
    """The mapping in a YAML file, {} where it is empty. what: its name in messages.

    Refused, in one line, when it cannot be read or holds anything else.
    """
    try:
        content = parse(path.read_text())
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        why = [line.strip() for line in str(error).splitlines() if line.strip()]
        place = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or (why or [type(error).__name__])[0]
        line = f", line {place.line + 1}" if place else ""
        raise Refused(f"{what}{line} is not YAML that can be read: {said}") from error
    if not isinstance(content or {}, dict):
        raise Refused(f"{what}: give `key: value` lines")
    return content or {}


def refuse_shape(content: dict, kinds: dict[str, Any], what: str) -> None:
    """Refused when a key's value is not of its kind, or a text would do more than be shown.

    kinds: of each key a type, or (list, type) or (dict, type) for what a list or mapping holds.
    """
    for key, kind in kinds.items():
        value = content.get(key)
        outer, inner = kind if isinstance(kind, tuple) else (kind, object)
        if value is None:
            continue
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, outer) or (
            inner is not object and not all(isinstance(item, inner) for item in items)
        ):
            of = "" if inner is object else f" of {inner.__name__}s"
            raise Refused(f"{what}: {key} must be a {outer.__name__}{of}")
    _refuse_texts(content, what)


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
        raise Refused(f"{what}: '{content[:40]}' has control characters: remove them")
