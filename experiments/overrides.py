"""What a command line says: reserved words, housekeeping, and configuration fields."""

import hashlib
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from core.config import Housekeeping, from_dict
from core.errors import Refused
from experiments import read_yaml

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"  # what comes with the code


@dataclass(frozen=True)
class Request:
    """A command line, sorted. `overrides` holds the configuration fields: dotted key -> value."""

    grid: str = ""
    scale: str = "laptop"
    seeds: tuple[int, ...] | None = None
    on: str = "here"
    list: bool = False
    plan: bool = False
    throughput: float | None = None  # TFLOP/s, for the plan
    retry: str = ""
    watch: bool = False
    pack: int = 1  # runs of one job, side by side
    split: bool = False  # a job for each training and each measurement
    split_images: int = 2560  # of a measurement's images, in each of its jobs
    slurm: dict[str, Any] = field(default_factory=dict)  # changes of the profile
    results: Path = ROOT / "results"
    housekeeping: Housekeeping = field(default_factory=Housekeeping)
    overrides: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()  # as typed

    @property
    def name(self) -> str:
        """Of tables and figures: grid and scale, and what the command line changed, or the digest
        of that where a file's name would be too long."""
        changed = [f"{key}={value}" for key, value in sorted(self.overrides.items())]
        text = ".".join(changed).encode()
        if len(text) > LONGEST_NAME:
            changed = [hashlib.sha256(text).hexdigest()[:10]]
        return ".".join([self.grid, self.scale, *changed]).replace("/", "_")


# Words about a launch, which say nothing about its results.
LAUNCHING = ("on", "list", "plan", "throughput", "retry", "watch", "pack", "split", "split_images")
RESERVED = ("grid", "scale", "seeds", "results", *LAUNCHING)
HOUSEKEEPING = tuple(f.name for f in fields(Housekeeping))
NAMES = ("grid", "scale", "on", "results", "data_path", "features_path")  # 2024 is a name here
LONGEST = 10_000  # characters of a word
LONGEST_NAME = 150  # bytes of what was changed in a file's name, which may have 255 in all
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of one, ends of lines
LARGEST = 2**63 - 1  # of whole numbers; no tensor has more entries


def of_results(words: tuple[str, ...]) -> list[str]:
    """The words of a command line that say which results are meant."""
    keys = ((word, word.partition("=")[0]) for word in words)
    return [word for word, key in keys if key not in LAUNCHING and not key.startswith("slurm.")]


def parse(words: list[str], **defaults: Any) -> Request:
    """Sorts `key=value` words; Refused: no "=", a repeated key, a value of a wrong type."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if len(word) > LONGEST:
            raise Refused(f"a word of {len(word)} characters, '{word[:40]}...', is too long")
        if any(unicodedata.category(letter) in UNPRINTABLE for letter in word):
            raise Refused(f"{word!a} has characters that cannot be printed")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise Refused(f"'{word}' is not of the form key=value; --help shows the keys")
        if key in values:
            raise Refused(f"'{key}' is given twice")
        values[key] = _read(word, key, text)
    reserved = {key: values.pop(key) for key in RESERVED if key in values}
    of_cluster = [key for key in values if key.startswith("slurm.")]
    reserved["slurm"] = {key.removeprefix("slurm."): values.pop(key) for key in of_cluster}
    keeping = {key: values.pop(key) for key in HOUSEKEEPING if key in values}
    request = Request(**defaults)
    if "seeds" in reserved:
        reserved["seeds"] = seeds_of(reserved["seeds"])
    if "results" in reserved:
        reserved["results"] = Path(reserved["results"]).resolve()
    for key in ("list", "plan", "watch", "split"):
        if not isinstance(reserved.get(key, False), bool):
            raise Refused(f"{key}= takes true or false")
    for key in ("pack", "split_images"):
        number = reserved.get(key, 1)
        if type(number) is not int or number < 1:
            raise Refused(f"{key}={number}: give a whole number, at least 1")
    throughput = reserved.get("throughput", 1)
    if type(throughput) not in (int, float) or not 0 < throughput < math.inf:
        raise Refused(f"throughput={throughput}: give TFLOP/s, as in throughput=200")
    if reserved.get("retry", "") not in ("", "failed"):
        raise Refused("retry= takes one value: failed")
    housekeeping = typed(Housekeeping, [keeping], "") if keeping else Housekeeping()
    _check_housekeeping(housekeeping)
    return replace(
        request, **reserved, housekeeping=housekeeping, overrides=dotted(values), words=tuple(words)
    )


def _read(word: str, key: str, text: str) -> Any:
    """What is typed after `key=`."""
    try:
        value = read_yaml.parse(text)
    except ValueError as error:
        raise Refused(f"'{word}': the value cannot be read as YAML: {error}") from error
    if key in NAMES and not isinstance(value, str):
        if key == "results" and not text:
            raise Refused("results= needs a folder")
        return text
    return value


def _check_housekeeping(keeping: Housekeeping) -> None:
    for key in ("log_every", "eval_batch"):
        if getattr(keeping, key) < 1:
            raise Refused(f"{key}={getattr(keeping, key)}: at least 1")
    for key in ("microbatch", "threads", "checkpoint_seconds"):
        if not getattr(keeping, key) >= 0:
            raise Refused(f"{key}={getattr(keeping, key)}: 0 or more")
    if not all(0 < at <= 1 for at in keeping.snapshots):
        raise Refused(f"snapshots={list(keeping.snapshots)}: fractions of the training, in (0, 1]")


def seeds_of(value: Any) -> tuple[int, ...]:
    """One seed or a list of them; Refused when it is anything else."""
    seeds = (value,) if isinstance(value, int) else value
    right = isinstance(seeds, (list, tuple)) and seeds
    if not right or not all(type(s) is int and 0 <= s <= LARGEST for s in seeds):
        raise Refused(f"seeds={value}: give one or several whole numbers, as in seeds=[0,1,2]")
    if len(set(seeds)) < len(seeds):
        raise Refused(f"seeds={value}: a seed is given twice")
    return tuple(seeds)


def typed(kind: type, layers: list[dict[str, Any]], prefix: str) -> Any:
    """A configuration of type `kind` from layers of dotted fields, the last one winning.

    Refused, in one line: an unknown field (with the nearest names), a wrong type, a wrong choice.
    prefix: how the user's key begins, for the message.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= dotted(layer)
    try:
        values = {key: _converted(kind, key, value) for key, value in values.items()}
    except ValueError as error:
        raise Refused(f"{prefix}{error}") from error
    return from_dict(kind, _nested(values))


_seen: dict[tuple, Any] = {}  # converting takes milliseconds, and cells share most of their values


def _converted(kind: type, key: str, value: Any) -> Any:
    """The value of one dotted field as its type has it. ValueError: "key=value: why not"."""
    same = (kind, key, type(value), repr(value))
    if same not in _seen:
        wanted = _wanted(_type_of(kind, key, value), value)
        try:
            _seen[same] = _checked(_by_type(kind, key, value))
        except (OmegaConfBaseException, TypeError) as error:
            raise ValueError(f"{key}={value}: {wanted}") from error
        except ValueError as error:
            raise ValueError(f"{key}={value}: {error}") from error
    return _seen[same]


def _type_of(kind: type, key: str, value: Any) -> Any:
    """The type of the field. ValueError, with the names that there are: there is no such field."""
    group = ""
    for part in key.split("."):
        names = list(get_type_hints(kind)) if is_dataclass(kind) else []
        if part not in names:
            near = did_you_mean(part, names)
            there = f"it has: {', '.join(names)}" if names else "it is a single value"
            what = f"{group} has no '{part}'" if group else f"there is no '{part}'"
            raise ValueError(f"{key}={value}: {what}{near or f'; {there}'}")
        kind, group = get_type_hints(kind)[part], f"{group}.{part}" if group else part
    if is_dataclass(kind):
        raise ValueError(f"{key}={value}: set a field of it, as in {key}.{fields(kind)[0].name}=")
    return kind


WANTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    int | None: "a whole number, or null",
    tuple[int, ...]: "a list of whole numbers, as in [1, 2]",
    tuple[float, ...]: "a list of numbers, as in [0.9, 0.99]",
}


def _wanted(kind: Any, value: Any) -> str:
    """What to give for a field of this type in the place of the value."""
    if get_origin(kind) is not Literal:
        return f"give {WANTED[kind]}"
    choices = get_args(kind)
    return f"choose one of {', '.join(choices)}{did_you_mean(str(value), choices)}"


def _by_type(kind: type, key: str, value: Any) -> Any:
    """OmegaConf's conversion; 1000.0 and 1e3 are whole numbers too, where one is asked for."""
    if "${" in repr(value):  # OmegaConf would look it up
        raise ValueError("a value cannot refer to another one")
    if isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value):
        raise ValueError("a list may hold numbers and words only")

    def convert(value: Any) -> Any:
        merged = OmegaConf.merge(OmegaConf.structured(kind), _nested({key: value}))
        return attrgetter(key)(OmegaConf.to_object(merged))

    try:
        return convert(value)
    except OmegaConfBaseException:
        if (whole := _whole(value)) == value and repr(whole) != repr(value):
            return convert(whole)
        raise


def _whole(value: Any) -> Any:
    """Floats that are whole numbers as integers, in a list too."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _checked(value: Any) -> Any:
    """A number that can be computed with; -0.0 as 0.0, which is the same and has one id."""
    if isinstance(value, (list, tuple)):
        return type(value)(_checked(item) for item in value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("give a finite number")
        return value + 0.0
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"whole numbers end at {LARGEST}")
    return value


def dotted(layer: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts, which a YAML file may have, as dotted keys."""
    out: dict[str, Any] = {}
    for key, value in layer.items():
        inner = dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        more = {f"{prefix}{key}": value} if inner is None else inner
        if twice := more.keys() & out.keys():
            raise Refused(f"'{min(twice)}' is given twice")
        out |= more
    return out


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint for a message, when one of the words is near; all of those that are equally near."""
    near = get_close_matches(word, set(words), 3, 0.6 if len(word) > 3 else 0.5)
    ratios = [SequenceMatcher(None, other, word).ratio() for other in near]
    nearest = [f"'{other}'" for other, ratio in zip(near, ratios) if ratio > ratios[0] - 0.02]
    return f". Did you mean {' or '.join(nearest)}?" if nearest else ""


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dicts."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = out
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return out
