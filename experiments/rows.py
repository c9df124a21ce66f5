"""Rows in a grid's own words -> dotted fields of a configuration, and what is wrong with a word."""

import itertools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from core.config import TrainConfig
from core.errors import Refused
from experiments.overrides import HOUSEKEEPING, RESERVED, Request, did_you_mean, dotted


def rows_of(grid: dict) -> list[dict]:
    """Rows x axes, in the grid's own words."""
    axes = grid.get("axes") or {}
    points = itertools.product(*axes.values())
    points = [dict(zip(axes, point)) for point in points]
    return [row | point for row in (grid.get("rows") or [{}]) for point in points]


def fields_of(row: dict, terms: dict, where: str = "") -> dict[str, Any]:
    """A row's words as dotted configuration fields. where: the file they are in, for a message."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if "$" in f"{key}{value}":  # figures would take it for a formula
            raise Refused(f"{where}{key}={value}: a word cannot have a '$'")
        if key not in terms:
            values[key] = value
        elif str(value) in terms[key]:
            values |= terms[key][str(value)] or {}
        else:
            near = did_you_mean(str(value), terms[key])
            raise Refused(f"{where}{key}={value}: choose one of {', '.join(terms[key])}{near}")
    return blame(where, lambda: dotted(values))


def training_of(values: dict[str, Any]) -> dict[str, Any]:
    """The fields without those of measurements."""
    return {key: value for key, value in values.items() if not key.startswith("measure.")}


def blame(where: str, compute: Callable[[], Any]) -> Any:
    """What is computed; what is wrong with it is said to be so in a file."""
    try:
        return compute()
    except Refused as error:
        raise Refused(f"{where}{error}", error.code, error.lasting) from error


def refuse_varied(request: Request, typed_in: dict, rows: list[dict], grid: dict) -> None:
    """A key that the grid varies cannot be fixed from outside: rows would collapse into one."""
    for key in [*typed_in, *request.overrides]:
        varied = len({str(row.get(key)) for row in rows}) > 1
        for name, entry in (grid.get("measure") or {}).items():
            of_one = key.startswith(f"measure.{name}.")
            field = key.removeprefix(f"measure.{name}." if of_one else "measure.")
            if key.startswith("measure."):
                varied |= of_one and len({str(row.get(f"measure.{field}")) for row in rows}) > 1
                varied |= field in (entry.get("axes") or {})
        if varied:
            raise Refused(f"{request.grid} varies {key}; the command line cannot fix it")


def refuse_unknown(values: dict[str, Any], terms: dict, where: str = "") -> None:
    """Names at the first level, where a word may be meant for the launcher as well.

    where: the file that the values are in; nothing for the command line's.
    """
    flat, names = list(_flat(TrainConfig())), [f.name for f in fields(TrainConfig)]
    launching = [] if where else [*RESERVED, *HOUSEKEEPING]
    for key in values:
        first = key.split(".")[0]
        if where and first in (*RESERVED, *HOUSEKEEPING):
            raise Refused(f"{where}'{key}' is for the command line")
        if first not in [*launching, *names, *terms, "measure"]:
            last = {name.rpartition(".")[2]: name for name in flat}
            near = did_you_mean(last.get(first, key), [*launching, *names, *terms, *flat])
            raise Refused(f"{where}unknown key '{key}'{near or '; --help shows the keys'}")
        if key == "measure":
            raise Refused(f"{where}measure={values[key]}: set a field, as in measure.images=100")
        if key == "seed" and not where:
            raise Refused("seeds are given as seeds=[0,1,2]")
        of_code = key == "data.digest" or (key == "recipe" and "recipe" not in terms)
        if of_code or key.endswith(".partner"):
            said = "a file" if where else "the command line"
            raise Refused(f"{where}{key} is not for {said}: the code sets it")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted fields of a configuration."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if hasattr(value, "__dataclass_fields__"):
            values |= _flat(value, f"{prefix}{f.name}.")
        else:
            values[prefix + f.name] = value
    return values
