"""Whatever is typed or written into a grid's file: it expands, or one line says what is wrong.

Examples are generated, the same ones each time. EXAMPLES=5000 tries so many others.
"""

import contextlib
import io
import os
import re
import shutil
from dataclasses import fields, is_dataclass

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import chains
from core.config import METRICS, Housekeeping, TrainConfig
from core.errors import Refused
from experiments import definitions, overrides, run
from experiments import grid as grids
from experiments.overrides import RESERVED

MANY = os.environ.get("EXAMPLES")
FEW = settings(max_examples=int(MANY or 60), derandomize=not MANY, deadline=None, database=None)
GRID = """
title: A grid
rows: [{T: 1K, objective: L_simple}, {T: 4K, objective: L_hybrid}]
base: {schedule: cosine, unet: {dropout: 0.1}, measure.nll.split: train}
axes: {optim.lr: [1e-3, 2e-3]}
seeds: [0]
measure:
  nll: {metric: nll, steps: 7, axes: {stride: [extended, paper]}}
  fd: {metric: frechet, sampler.steps: 5}
analysis: [plot_axes]
"""
SCALE = """
title: A scale
train: {unet.channels: 8, unet.channel_mult: [1], unet.attention: [], optim.ema: [0.9]}
measure: {nll: {images: 4}, frechet: {images: 66}}
grids: {mine: {optim.steps: 3}}
axes: {mine: {nll: {stride: [paper]}}}
terms: {T: {4K: {diffusion.T: 40}}}
"""
WORDS = ("grid=mine", "scale=mine")


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A copy of experiments/ with grids/mine.yaml and scales/mine.yaml."""
    folder = tmp_path_factory.mktemp("files") / "experiments"
    for name in ("grids", "scales"):
        shutil.copytree(grids.HERE / name, folder / name)
    shutil.copy(grids.HERE / "terms.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "HERE", folder)
        yield folder


def said(*words: str, grid: str | bytes = GRID, scale: str | bytes = SCALE) -> str | None:
    """What a command line is refused with, and nothing when it is not."""
    for kind, text in (("grids", grid), ("scales", scale)):
        content = text if isinstance(text, bytes) else text.encode()
        (grids.HERE / kind / "mine.yaml").write_bytes(content)
    given = {word.partition("=")[0] for word in words}
    rest = [word for word in (*WORDS, "list=true") if word.partition("=")[0] not in given]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            assert run.main([*rest, *words]) == 0
    except Refused as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and "\x1b" not in message, message
        assert error.code == 2, message
        assert len(message) < 2000 + 3 * sum(map(len, words)), len(message)
        return message


def flat(kind: type, prefix: str = "") -> list[str]:
    """Dotted names of all fields."""
    names = []
    for f in fields(kind):
        names += flat(f.type, f"{prefix}{f.name}.") if is_dataclass(f.type) else [prefix + f.name]
    return names


OF_FILES = flat(TrainConfig) + [f"measure.{f}" for kind in METRICS.values() for f in flat(kind)]
OF_NLL = flat(METRICS["nll"], "measure.nll.")
TYPED = [*OF_FILES, *OF_NLL, *flat(Housekeeping), *RESERVED, "unet", "measure.nll", "slurm.nodes"]
TYPED = [key for key in TYPED if key not in ("list", "plan", "results")]
ODD = """
null ~ true no -1 0 1 2 1e3 1000.0 -0.0 1e400 9223372036854775808 12345678901234567890123456
.nan nan .inf -.inf 1e-320 0x10 010 1:30 2020-01-01 é ١ 漢字 a=b == [] [[]] [[1]] [1] [-1] [.nan]
[true] [null] [1,[2]] [a] {} {a:1} {?} { } * & ! | > % @ ` ??? ${x} ${oc.env:HOME} !!set{a} &x[*x]
!!python/name:os.system .. . / a/b ../laptop .hidden -- --x x=[ [0,0] None linear"""
ODD = [*ODD.split(), "", " ", "{a: 1}", "!!set {a}", "&x [*x]", "[1, {a: 1}]"]
SCALARS = st.one_of(
    st.sampled_from(ODD[:30]), st.integers(), st.floats(), st.booleans(), st.none(), st.text()
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@FEW
@given(st.sampled_from(TYPED), st.sampled_from(ODD) | st.text() | st.integers().map(str))
@example("unet.channel_mult", "[[1]]")  # numbers were compared with lists
@example("optim.ema", "[[0.9]]")
@example("measure.fd.sampler.eta", ".nan")  # refused, but for a number that was not named
@example("measure.nll.ends", ".nan")
@example("unet.width", ".nan")  # unet.channels was blamed
@example("diffusion.T", "1e15")  # tables of so many entries do not fit any memory
@example("optim.lr", "${oc.env:HOME}")  # the environment's value became the configuration's
@example("unet.channels", "0")
@example("data_path", "")
@example("measure.nll", "3")
@example("grid", "../scales/mine")
def test_any_value_of_any_key_is_taken_or_refused_naming_the_key(key, value):
    plain = GRID.replace("T: 1K, ", "").replace("T: 4K, ", "")  # so that T can be typed
    message = said(f"{key}={value}", grid=plain)
    if message and not message.startswith("nothing that mine measures"):
        assert key.rpartition(".")[2] in message or key.split(".")[0] in message, message


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("optim.lr", "${oc.env:HOME}", "a word cannot have a '$'"),
        ("measure.fd.sampler.eta", ".nan", "measure.fd.sampler.eta=nan: give a finite number"),
        ("unet.width", "0.3", "unet.channels * unet.width=2.4 must be positive and even"),
        ("optim.warmup", "9223372036854775808", "whole numbers end at"),
        ("seeds", "9223372036854775808", "seeds="),
        ("diffusion.rescaled_time", "maybe", "diffusion.rescaled_time=maybe"),
        ("unet.attention", "[0]", "unet.attention=[0]: give positive"),
        ("objective.min_snr", "-1", "objective.min_snr=-1.0 must be 0 or more"),
        ("unet.res_blocks", "1000000", "unet.res_blocks=1000000 must be in 1..100"),
        ("results", "", "results= needs a folder"),
        ("unet.", "1", "'unet.=1' is not of the form key=value"),
        ("measure", "3", "measure=3: set a field"),
        ("unet." * 3000 + "a", "1", "is too long"),
        ("unet." * 1000 + "a", "1", "unet has no 'unet'"),
        ("a\nb", "1", r"'a\nb=1' has characters that cannot be printed"),
        ("optim.lr", "\x1b[2J", "has characters that cannot be printed"),
        ("gird", "x", "unknown key 'gird'. Did you mean 'grid'?"),
        ("unet.dropout", "true", "unet.dropout=True: give a number"),
        ("optim.steps", "1.5", "optim.steps=1.5: give a whole number"),
        ("optim.steps", "[1]", "optim.steps=[1]: give a whole number"),
        ("measure.nll.steps", "few", "measure.nll.steps=few: give a whole number, or null"),
        ("unet.channel_mult", "[a]", "unet.channel_mult=['a']: give a list of whole numbers, as"),
        ("optim.ema", "0.9", "optim.ema=0.9: give a list of numbers, as in [0.9, 0.99]"),
        ("compile", "maybe", "compile=maybe: give true or false"),
        ("device", "gpu", "device=gpu: choose one of auto, cpu, cuda, mps. Did you mean 'cpu'?"),
    ],
)
def test_what_is_wrong_with_a_word_is_said(key, value, says):
    assert says in said(f"{key}={value}")


@pytest.mark.parametrize("kind", [TrainConfig, Housekeeping, *METRICS.values()])
def test_what_any_field_takes_is_said_in_plain_words(kind):
    """A mapping is right for none."""
    for key in flat(kind):
        with pytest.raises(ValueError, match=rf"^{key}=.*: (give|choose one of) [\w ,.\[\]]+$"):
            overrides._converted(kind, key, {"a": 1})


@FEW
@given(st.lists(st.text() | st.sampled_from(ODD), min_size=1, max_size=3))
@example(["="])
@example(["a==b"])
@example(["grid="])
@example(["seeds=["])
@example(["seeds=[0,0]"])
@example(["seeds=0"])
@example(["--x"])
@example(["x" * 100_000 + "=1"])
@example(["optim.steps=" + "9" * 5000])
@example(["optim.ema=" + "[" * 3000])
@example(["optim.lr\n=1"])  # its refusal had two lines
@example(["\ud800=1"])
@example(["unet.dropout=0.1", "unet={dropout: 0.2}"])
def test_any_words_are_taken_or_refused(words):
    said(*words)


def misspelt(name: str, place: int, letter: str, how: str) -> str:
    """The name with one letter changed, left out or added."""
    place %= len(name)
    kept = {"changed": 1, "left out": 1, "added": 0}[how]
    return name[:place] + ("" if how == "left out" else letter) + name[place + kept :]


MISSPELLINGS = (
    st.integers(0, 20),
    st.sampled_from("aeknstxz_"),
    st.sampled_from(["changed", "left out", "added"]),
)
LONG = [key for key in dict.fromkeys([*flat(TrainConfig), *OF_NLL]) if len(key.split(".")[-1]) > 2]


@FEW
@given(st.sampled_from(LONG), *MISSPELLINGS)
@example("unet.heads", 4, "s", "left out")
@example("gan.beta1", 4, "x", "changed")  # beta1 and beta2 are equally near
def test_a_misspelt_field_is_refused_with_its_name(key, place, letter, how):
    group, dot, name = key.rpartition(".")
    wrong = misspelt(name, place, letter, how)
    if f"{group}{dot}{wrong}" not in [*LONG, *TYPED, "seeds"] and wrong not in ("grids", "form"):
        message = said(f"{group}{dot}{wrong}=1")
        assert wrong in message and re.search(rf"\b{name}\b", message), message
        if dot and not group.startswith("measure"):
            message = said(grid=f"base: {{{group}.{wrong}: 1}}")
            assert message.startswith("grids/mine.yaml: ") and name in message, message


FIRST = [*RESERVED, *flat(Housekeeping), "objective", "schedule", "variance"]
FIRST = [key for key in FIRST if len(key) > 3]


@FEW
@given(st.sampled_from(FIRST), *MISSPELLINGS)
@example("grid", 1, "", "left out")  # all that was said is that grid=NAME is missing
def test_a_misspelt_word_of_the_command_line_is_refused_with_its_name(key, place, letter, how):
    wrong = misspelt(key, place, letter, how)
    if wrong and wrong not in [*FIRST, *TYPED]:
        message = said(f"{wrong}=1")
        assert f"'{wrong}'" in message and f"'{key}'" in message, message


KEYS = [("grid", key) for key in definitions.GRID] + [("scale", key) for key in definitions.SCALE]
KEYS = [(kind, key) for kind, key in KEYS if len(key) > 3]


@FEW
@given(st.sampled_from(KEYS), *MISSPELLINGS)
def test_a_misspelt_key_of_a_file_is_refused_with_its_name(of, place, letter, how):
    kind, key = of
    shapes, text = {"grid": (definitions.GRID, GRID), "scale": (definitions.SCALE, SCALE)}[kind]
    wrong = misspelt(key, place, letter, how)
    if wrong not in shapes:
        message = said(**{kind: f"{text}{wrong}: 1\n"})
        assert message.startswith(f"{kind}s/mine.yaml: unknown key '{wrong}'"), message
        assert f"'{key}'" in message.rpartition("Did you mean")[2], message


@FEW
@given(st.sampled_from(KEYS), TREES)
@example(("grid", "measure"), {"nll": {"metric": ["nll"]}})
@example(("grid", "measure"), {"nll": {"metric": "nll", "axes": None}})
@example(("grid", "measure"), {"nll": {"metric": "nll", "with_row": 3}})
@example(("grid", "rows"), 3)
@example(("grid", "rows"), [{1: 2}])
@example(("grid", "axes"), {"T": "1K"})
@example(("grid", "axes"), {"diffusion.T": [[1]]})
@example(("grid", "base"), {"unet": {"dropout": 0.1}, "unet.dropout": 0.2})
@example(("grid", "seeds"), 3)
@example(("grid", "analysis"), "plot_axes")
@example(("scale", "measure"), {"nll": None})
@example(("scale", "terms"), {"T": {"1K": 3}})
@example(("scale", "form"), [3, 8])
def test_any_content_of_a_key_of_a_file_is_taken_or_refused_naming_the_file(of, content):
    kind, key = of
    valid = yaml.safe_load({"grid": GRID, "scale": SCALE}[kind])
    message = said(**{kind: yaml.safe_dump(valid | {key: content}, allow_unicode=True)})
    if message and not message.startswith(("nothing that mine", "two cells")):
        assert "mine.yaml" in message or "no row of this grid" in message, message


def leaves(content, path=()):
    """Where there is anything in a file: the path to it."""
    inner = {dict: lambda: content.items(), list: lambda: enumerate(content)}.get(type(content))
    return [path, *(p for k, v in inner() for p in leaves(v, (*path, k)))] if inner else [path]


FILES = {"grid": yaml.safe_load(GRID), "scale": yaml.safe_load(SCALE)}
PLACES = [(kind, path) for kind in FILES for path in leaves(FILES[kind]) if path]


@FEW
@given(st.sampled_from(PLACES), TREES)
def test_a_grid_with_anything_in_one_place_is_taken_or_refused(place, content):
    kind, path = place
    whole = yaml.safe_load({"grid": GRID, "scale": SCALE}[kind])
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = content
    said(**{kind: yaml.safe_dump(whole, allow_unicode=True)})


@FEW
@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
@example(b"")
@example(b"\xff\xfe")
@example(b"a: b: c")
@example(b"? [a]\n: 1")
@example(b"base: &x {a: *x}")
@example(b"rows: [{T: 1K, T: 4K}]")  # the last one won
@example(b"rows: !!python/object/apply:os.getcwd []")
@example(b"---\n---\n")
def test_any_bytes_as_a_file_are_taken_or_refused_naming_the_file(content):
    for kind in ("grid", "scale"):
        message = said(**{kind: content})
        assert message is None or "mine.yaml" in message, message


@pytest.mark.parametrize(
    "kind, content, says",
    [
        (
            "grid",
            "rows: [{T: 1K, T: 4K}]",
            "mine.yaml is not YAML that can be read: line 1: 'T' is",
        ),
        ("grid", "base: {shedule: linear}", "grids/mine.yaml: unknown key 'shedule'. Did you mean"),
        ("grid", "base: {schedule: liner}", "grids/mine.yaml: schedule=liner: choose one of lin"),
        ("grid", "base: {optim.steps: 0}", "grids/mine.yaml at scales/mine.yaml: optim.steps=0"),
        ("grid", "base: {threads: 2}", "grids/mine.yaml: 'threads' is for the command line"),
        (
            "grid",
            "{base: {measure.nl.images: 3}, measure: {nll: {metric: nll}}}",
            "grids/mine.yaml at scales/mine.yaml: measure.nl.images: no measurement",
        ),
        (
            "grid",
            "measure: {nll: {metric: nl}}",
            "measure.nll: unknown metric 'nl'; there",
        ),
        ("scale", "measure: {nl: {images: 2}}", "scales/mine.yaml: measure.nl: unknown metric"),
        (
            "scale",
            "grids: {recipes: {unet.heads: 1}}",
            "grids: there is no 'recipes'. Did you",
        ),
        ("scale", "axes: {mine: {nl: {steps: [2]}}}", "axes.mine: there is no 'nl'. Did you mean"),
        ("scale", "seeds: [0, 0]", "scales/mine.yaml: seeds=[0, 0]: a seed is given twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(kind, content, says):
    files = {"scale": ""} if kind == "grid" else {}
    assert says in said(**(files | {kind: content}))


def test_a_schedule_that_only_the_configuration_knows_says_where_it_is_missing(monkeypatch):
    monkeypatch.delitem(chains.SCHEDULES, "cosine")
    chains.training_chain.cache_clear()
    message = said()
    assert "diffusion.schedule=cosine: core/chains.py lacks it: add it to SCHEDULES" in message
    monkeypatch.delitem(chains.STRIDES, "paper")
    chains._kept.cache_clear()
    assert "stride=paper: core/chains.py lacks it: add it to STRIDES" in said(
        grid=GRID.replace("cosine", "linear")
    )


@pytest.mark.parametrize(
    "word",
    [
        *("diffusion.T=1000000", "measure.nll.images=9223372036854775807", "optim.batch_size=1e18"),
        *("optim.steps=9223372036854775807", "unet.channels=1e18", "unet.heads=1e18"),
        *("unet.heads=3", "unet.channel_mult=[1,1,1,1,1,1,1]", "throughput=1e-300", "data.low=16"),
    ],
)
def test_the_price_of_anything_is_reckoned_or_refused(word):
    one = "rows: [{objective: L_simple}]\nmeasure: {nll: {metric: nll}}"
    small = "train: {unet.channels: 8, unet.channel_mult: [1], unet.attention: []}"
    said(word, "list=false", "plan=true", grid=one, scale=small)
