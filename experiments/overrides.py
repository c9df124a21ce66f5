"""What a command line says: reserved words, housekeeping, and configuration fields."""

import math
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Any

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
        """Of tables and figures: grid and scale, and what the command line changed."""
        changed = [f"{key}={value}" for key, value in sorted(self.overrides.items())]
        return ".".join([self.grid, self.scale, *changed]).replace("/", "_")


# Words about a launch, which say nothing about its results.
LAUNCHING = ("on", "list", "plan", "throughput", "retry", "watch", "pack", "split", "split_images")
RESERVED = ("grid", "scale", "seeds", "results", *LAUNCHING)
HOUSEKEEPING = tuple(f.name for f in fields(Housekeeping))


def of_results(words: tuple[str, ...]) -> list[str]:
    """The words of a command line that say which results are meant."""
    keys = ((word, word.partition("=")[0]) for word in words)
    return [word for word, key in keys if key not in LAUNCHING and not key.startswith("slurm.")]


def parse(words: list[str], **defaults: Any) -> Request:
    """Sorts `key=value` words; Refused: no "=", a repeated key, a value of a wrong type."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise Refused(f"'{word}' is not of the form key=value; --help shows the keys")
        if key in values:
            raise Refused(f"'{key}' is given twice")
        try:
            read_yaml.parse(text)  # no more than can be looked at
            value = OmegaConf.from_dotlist([f"value={text}"])["value"]
        except Exception as error:  # YAML's errors have no common ancestor
            raise Refused(f"'{word}': the value cannot be read as YAML") from error
        values[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    reserved = {key: values.pop(key) for key in RESERVED if key in values}
    of_cluster = [key for key in values if key.startswith("slurm.")]
    reserved["slurm"] = {key.removeprefix("slurm."): values.pop(key) for key in of_cluster}
    keeping = {key: values.pop(key) for key in HOUSEKEEPING if key in values}
    request = Request(**defaults)
    if "seeds" in reserved:
        reserved["seeds"] = seeds_of(reserved["seeds"])
    if "results" in reserved:
        reserved["results"] = Path(str(reserved["results"])).resolve()
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
    for key in ("grid", "scale", "on"):
        if key in reserved:
            reserved[key] = "" if reserved[key] is None else str(reserved[key])
    housekeeping = typed(Housekeeping, [keeping], "") if keeping else Housekeeping()
    _check_housekeeping(housekeeping)
    return replace(
        request, **reserved, housekeeping=housekeeping, overrides=dotted(values), words=tuple(words)
    )


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
    if not right or not all(type(s) is int and s >= 0 for s in seeds):
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
    if "${" in same[-1]:
        raise ValueError(f"{key}={value}: a value cannot refer to another one")
    if same not in _seen:
        try:
            merged = OmegaConf.merge(OmegaConf.structured(kind), _nested({key: value}))
            _seen[same] = attrgetter(key)(OmegaConf.to_object(merged))
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            if "$" in reason:  # OmegaConf leaves its placeholders in for items of a list
                reason = "an item of the list has the wrong type"
            raise ValueError(f"{key}={value}: {reason}") from error
    return _seen[same]


def dotted(layer: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts, which a YAML file may have, as dotted keys."""
    out: dict[str, Any] = {}
    for key, value in layer.items():
        if isinstance(value, dict):
            out |= dotted(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def did_you_mean(word: str, words: list[str]) -> str:
    """A hint for a message, when one of the words is near."""
    near = get_close_matches(word, words, 1)
    return f". Did you mean '{near[0]}'?" if near else ""


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
