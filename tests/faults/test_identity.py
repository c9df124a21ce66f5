"""What a run is called: the same however its configuration is written, another for another one."""

import json
import os
import random
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.config import METRICS, TrainConfig
from experiments import grid as grids
from experiments.grid import expand
from experiments.overrides import dotted, parse, typed
from experiments.runs import digest

ROOT = Path(__file__).resolve().parents[2]
MANY = os.environ.get("EXAMPLES")
FEW = settings(max_examples=int(MANY or 60), derandomize=not MANY, deadline=None, database=None)
# Two valid values of fields of each type, and more ways of writing the first.
SPELLINGS = {
    "optim.steps": (1000, 1001, ["1000", "1e3", "1000.0", "1_000", "+1000", "1.0E+3"]),
    "optim.lr": (0.001, 0.002, ["0.001", "1e-3", "1.0e-3", ".001", "0.0010", "10E-4"]),
    "optim.ema": ((0.5,), (0.5, 0.9), ["[0.5]", "[.5]", "[5e-1]", "[0.50]", "\n - 0.5"]),
    "optim.weight_decay": (0.0, 0.5, ["0", "0.0", "-0.0", "-0", "0e0", ".0"]),
    "optim.grad_clip": (10.0, 0.0, ["10", "10.0", "1e1", "1.0e1", "10.", "+10"]),
    "unet.channel_mult": ((1, 2), (2, 1), ["[1, 2]", "[1.0, 2.0]", "[1, 2e0]", "\n - 1\n - 2"]),
    "unet.attention": ((), (8,), ["[]", "[ ]"]),
    "unet.class_conditional": (True, False, ["true", "True", "yes", "on", "TRUE"]),
    "diffusion.schedule": ("linear", "cosine", ["linear", "'linear'", '"linear"']),
    "diffusion.T": (1000, 4000, ["1000", "1e3", "1000.0", "1.0e3"]),
    "data.images": (0, 100, ["0", "0.0", "-0"]),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A folder for grids/mine.yaml and scales/mine.yaml."""
    folder = tmp_path_factory.mktemp("files") / "experiments"
    for kind in ("grids", "scales"):
        (folder / kind).mkdir(parents=True)
    (folder / "terms.yaml").write_bytes((grids.HERE / "terms.yaml").read_bytes())
    (folder / "scales" / "mine.yaml").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "HERE", folder)
        yield folder


def run_id(text: str, *words: str) -> str:
    """Of the one cell of a grid."""
    (grids.HERE / "grids" / "mine.yaml").write_text(text, encoding="utf-8")
    (cell,) = expand(parse(["grid=mine", "scale=mine", *words])).cells
    return cell.run_id


def nested(values: dict) -> dict:
    """Dotted keys as mappings within mappings."""
    out: dict = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        out.setdefault(group, {})[name] = value
    return out


@FEW
@given(st.sampled_from(list(SPELLINGS)), st.integers(0, 5), st.booleans())
@example("optim.weight_decay", 2, True)  # -0.0 had an id of its own
@example("optim.steps", 1, True)  # 1e3 was no whole number
@example("optim.steps", 2, False)
def test_a_value_written_in_another_way_has_the_same_id(key, which, in_file):
    value, other, texts = SPELLINGS[key]
    text = texts[which % len(texts)]
    plain = digest(typed(TrainConfig, [{key: list(value) if type(value) is tuple else value}], ""))
    if in_file or "\n" in text:
        assert run_id(f"base:\n {key}: {text}") == plain
    else:
        assert run_id("", f"{key}={text}") == plain
    assert run_id("", f"{key}={json.dumps(other)}") != plain


VALUES = {key: st.sampled_from(list(pair[:2])) for key, pair in SPELLINGS.items()}
CONFIGURATIONS = st.fixed_dictionaries({}, optional=VALUES)


@FEW
@given(CONFIGURATIONS, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_the_order_and_the_style_of_a_file_leave_the_id_alone(values, dice, flow, dots):
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    plain = digest(typed(TrainConfig, [values], ""))
    shuffled = dict(dice.sample(sorted(values.items(), key=repr), len(values)))
    base = shuffled if dots else nested(shuffled)
    style = {"default_flow_style": flow, "sort_keys": False}
    assert run_id(yaml.safe_dump({"base": base}, **style)) == plain
    assert run_id(json.dumps({"rows": [base]})) == plain
    assert run_id("", *(f"{key}={json.dumps(value)}" for key, value in shuffled.items())) == plain


@FEW
@given(CONFIGURATIONS, CONFIGURATIONS)
def test_two_configurations_have_one_id_if_and_only_if_they_are_equal(one, other):
    a, b = (typed(TrainConfig, [dotted(values)], "") for values in (one, other))
    assert (digest(a) == digest(b)) == (a == b)


def changed(config, dice: random.Random):
    """Each field of a configuration with another value: (name, configuration)."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from (
                (f"{f.name}.{n}", replace(config, **{f.name: c})) for n, c in changed(value, dice)
            )
            continue
        new = {
            bool: lambda v: not v,
            int: lambda v: v + dice.randint(1, 9),
            float: lambda v: v + dice.random() + 0.001,
            str: lambda v: v + "x",
            tuple: lambda v: (*v, dice.randint(1, 9)),
            type(None): lambda v: dice.randint(1, 9),
        }[type(value)](value)
        yield f.name, replace(config, **{f.name: new})  # fmt: skip


@FEW
@given(st.integers(0, 2**32))
def test_every_field_of_every_configuration_is_in_its_id(seed):
    dice = random.Random(seed)
    for kind in (TrainConfig, *METRICS.values()):
        found = {"": digest(kind())} | {n: digest(c) for n, c in changed(kind(), dice)}
        assert len(set(found.values())) == len(found), found


def late_defaults(kind: type, prefix: str = "") -> dict:
    """Of the fields that are left out of a digest at their default."""
    found = {}
    for f in fields(kind):
        if f.metadata.get("late"):
            found[prefix + f.name] = f.default if not is_dataclass(f.default) else "as digested"
        if is_dataclass(f.type):
            found |= late_defaults(f.type, f"{prefix}{f.name}.")
    return found


def test_what_a_late_field_leaves_out_of_the_id_is_pinned():
    """At its default it is in no digest: with another default old ids would mean other numbers."""
    assert late_defaults(TrainConfig) == {
        **{"data.images": 0, "data.size": 0, "data.low": 0, "diffusion.rescaled_time": True},
        **{"objective.min_snr": 0.0, "unet.width": 1.0, "optim.grad_clip": 0.0},
        **{"optim.lr_factor": 1.0, "gan": "as digested", "source": "here"},
    }
    assert digest(TrainConfig().gan) == "026d67b1e6"
    of_measurements = {name: late_defaults(kind) for name, kind in METRICS.items()}
    mixed = {"partner": "", "ends": 0.0}
    assert of_measurements == {
        **{"nll": mixed, "frechet": mixed | {"neighbours": 0, "sets": 0, "features_sha256": ""}},
        **{"learned_v": {}, "gradient_noise": {}},
    }


PLACES = {
    "a C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "another hash": {"PYTHONHASHSEED": "12345", "TZ": "Asia/Kathmandu"},
}


@pytest.mark.parametrize("place", PLACES)
def test_ids_are_the_same_in_another_locale_folder_and_hash(place, here, tmp_path):
    """A grid whose file has letters beyond ASCII, listed by a process of another environment."""
    text = "title: Größe β\nrows: [{T: 1K}, {unet: {dropout: 0.1}, optim.lr: 1e-3}]\nseeds: [0, 1]"
    (here / "grids" / "mine.yaml").write_text(text, encoding="utf-8")
    program = (
        "import sys, experiments.grid as g; from pathlib import Path; from experiments import run;"
        f"g.HERE = Path({str(here)!r});"
        "sys.exit(run.main(['grid=mine', 'scale=mine', 'list=true', 'results=none']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        | PLACES[place],
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    ids = [cell.run_id for cell in expand(parse(["grid=mine", "scale=mine"])).cells]
    assert [line.split()[-4] for line in done.stdout.decode().splitlines()[:-1]] == ids
