"""What a job asks of a cluster: slurm/*.yaml, in submitit's own words, and slurm.KEY=VALUE."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import Refused
from experiments import read_yaml
from experiments.overrides import did_you_mean

FOLDER = Path(__file__).resolve().parents[1] / "slurm"
CLUSTERS = ("slurm", "local", "debug")
CHECKED_EVERY = 30  # seconds between SLURM's looks at time limits: its warning may come so early


@dataclass(frozen=True)
class Profile:
    """A place to run jobs. parameters: for submitit's AutoExecutor.update_parameters."""

    name: str
    cluster: str
    parameters: dict[str, Any]

    def get(self, key: str, default: Any) -> Any:
        return self.parameters.get(key, default)

    @property
    def processes(self) -> int:
        """Of one run: tasks per node times nodes."""
        return self.get("nodes", 1) * self.get("tasks_per_node", 1)


def available() -> list[str]:
    """Names of the profiles that exist."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def titles() -> dict[str, str]:
    """Name -> one line for the help text."""
    return {name: _read(name).get("title", "") for name in available()}


def load(name: str, overrides: dict[str, Any]) -> Profile:
    """The profile with the command line's changes. Refused in one line: anything wrong with it.

    overrides: keys as after `slurm.`; `partition` means `slurm_partition`.
    """
    if name not in available():
        there = ", ".join(["here", *available()])
        hint = did_you_mean(name, available())
        raise Refused(f"on={name}: there is no slurm/{name}.yaml; there are: {there}{hint}")
    content = _read(name)
    content.pop("title", None)
    cluster = overrides.get("cluster", content.pop("cluster", None))
    if cluster not in CLUSTERS:
        where = "slurm." if "cluster" in overrides else f"slurm/{name}.yaml: "
        raise Refused(f"{where}cluster={cluster}: choose one of {', '.join(CLUSTERS)}")
    types = _types()
    parameters = {}
    for where, given in ((f"slurm/{name}.yaml: ", content), ("slurm.", overrides)):
        for key, value in given.items():
            if key != "cluster":
                full = _key(where, key, types)
                parameters[full] = _value(f"{where}{key}", value, types[full])
    profile = Profile(name, cluster, parameters)
    _check(profile)
    return profile


def _read(name: str) -> dict[str, Any]:
    return read_yaml.read(FOLDER / f"{name}.yaml", f"slurm/{name}.yaml")


def _types() -> dict[str, tuple[type, ...]]:
    """Parameters that submitit knows -> the types of their values."""
    from submitit import AutoExecutor  # late: only who submits needs it
    from submitit.slurm import slurm

    generic = {key: (kind,) for key, kind in AutoExecutor._typed_parameters().items()}
    types = {key: (int, float) if kind == (float,) else kind for key, kind in generic.items()}
    own = set(slurm.SlurmExecutor._equivalence_dict().values()) | {"map_count", "job_name"}
    for key, parameter in inspect.signature(slurm._make_sbatch_string).parameters.items():
        if key in ("command", "folder") or key in own or key in types:
            continue
        text = str(parameter.annotation)
        kinds = {"List": list, "Iterable": list, "Dict": dict, "bool": bool, "int": int}
        found = tuple(kind for word, kind in kinds.items() if word in text)
        types[f"slurm_{key}"] = found or (str, int)
    return types


def _key(where: str, key: str, types: dict) -> str:
    for candidate in (key, f"slurm_{key}"):
        if candidate in types:
            return candidate
    words = [*types, *(name.removeprefix("slurm_") for name in types)]
    hint = did_you_mean(key, words)
    raise Refused(f"{where}{key}: submitit has no such parameter{hint}")


def _value(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if list in kinds and isinstance(value, list):
        right = all(isinstance(item, str) for item in value)
    if not right:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise Refused(f"{name}={value}: give {'a list of strings' if list in kinds else wanted}")
    if kinds[0] is int and not isinstance(value, (str, bool)) and value < 0:
        raise Refused(f"{name}={value}: not negative")
    return value


def _check(profile: Profile) -> None:
    """What no type can say."""
    minutes = profile.get("timeout_min", 5)
    if minutes < 1:
        raise Refused(f"slurm.timeout_min={minutes}: at least 1")
    delay = profile.get("slurm_signal_delay_s", 90)
    if profile.cluster == "slurm" and 60 * minutes <= delay + CHECKED_EVERY:
        raise Refused(
            f"slurm.timeout_min={minutes} leaves no time to work: SLURM warns a job "
            f"{delay} s before its end, and up to {CHECKED_EVERY} s earlier; "
            "give more minutes or a smaller slurm.signal_delay_s"
        )
    if profile.cluster != "slurm" and profile.get("nodes", 1) > 1:
        raise Refused(f"nodes={profile.get('nodes', 1)}: cluster {profile.cluster} has one node")
    if profile.cluster == "debug" and profile.processes > 1:
        raise Refused(f"on={profile.name}: the debug executor has one process per run")
    for key in ("slurm_array_parallelism", "nodes", "tasks_per_node", "cpus_per_task"):
        if profile.get(key, 1) < 1:
            raise Refused(f"{key}={profile.get(key, 1)}: at least 1")
