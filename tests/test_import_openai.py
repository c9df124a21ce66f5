"""A file of OpenAI's weights becomes a run, which is measured as any other; or it is refused."""

import shutil
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from openai_unet import filled
from PIL import Image

from core import checkpoint
from core.config import Frechet, Housekeeping, Likelihood, SamplerConfig, TrainConfig, from_dict
from core.errors import Refused
from core.interop import openai, released
from core.interop.released import MODELS, Released, named, recognised
from core.measurements import measure
from core.parts import Work
from core.trained import snapshot_path
from experiments import import_openai
from experiments.execute import execute
from experiments.files import read_json
from experiments.grid import expand
from experiments.import_openai import import_file, main, measuring
from experiments.overrides import ROOT, parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs, digest
from experiments.stages import Course

TINY = Released(
    "tiny",
    3,
    "--image_size 16 --num_channels 32 --num_res_blocks 1 --num_heads 2 --learn_sigma True "
    "--attention_resolutions 8 --diffusion_steps 40 --noise_schedule cosine "
    "--rescale_learned_sigmas False --rescale_timesteps False --lr 1e-4 --batch_size 2048",
)
TINY_UPSAMPLER = Released(
    "tiny_upsampler",
    3,
    TINY.flags.replace("--image_size 16", "--large_size 32 --small_size 16"),
    enlarges=True,
)


@pytest.fixture
def tiny(monkeypatch):
    """Small models among the released ones."""
    monkeypatch.setitem(released.CHANNEL_MULT, 16, (1, 2))
    monkeypatch.setitem(released.CHANNEL_MULT, 32, (1, 2))
    monkeypatch.setattr(released, "MODELS", (*MODELS, TINY, TINY_UPSAMPLER))


def weights_of(model: Released) -> dict:
    network = model.network().to_empty(device="cpu")
    return openai.to_openai(network, filled(network).state_dict())


@pytest.fixture
def file(tiny, tmp_path):
    """TINY's weights as OpenAI would have written them."""
    torch.save(weights_of(TINY), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """90 RGB images of 16x16, of which 81 are for training and 9 for testing."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 16)


def write_pictures(folder, size, classes=("",), mode="RGB"):
    numbers = np.random.default_rng(0)
    for i in range(90):
        pixels = numbers.integers(256, size=(size, size, 3), dtype=np.uint8)
        name = folder / classes[i % len(classes)] / f"{i:03d}.png"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(name)
    return folder


def test_a_file_is_recognised_by_its_name_or_else_by_its_parameters(tiny, tmp_path):
    assert recognised(tmp_path / "upsample_cond_500K.pt", {}).name == "upsample_cond_500K"
    for name in ("imagenet64_cond_270M_250K", "upsample_cond_500K", "tiny"):
        assert recognised(tmp_path / "model.pt", openai.shapes(named(name).network())).name == name
    cifar = openai.shapes(named("cifar10_uncond_50M_500K").network())
    with pytest.raises(Refused, match=r"cifar10_uncond_50M_500K or cifar10_uncond_vlb.*model=NAME"):
        recognised(tmp_path / "model.pt", cifar)
    with pytest.raises(Refused, match="fits none of the released models; these are: imagenet64"):
        recognised(tmp_path / "model.pt", {})
    with pytest.raises(Refused, match="there is no model 'cifar'; there are: imagenet64"):
        named("cifar")


FAULTS = {
    "missing": lambda s: s.pop("middle_block.1.qkv.weight"),
    "left over": lambda s: s.update({"input_blocks.9.0.op.bias": torch.zeros(3)}),
    "of another shape": lambda s: s.update({"time_embed.0.bias": torch.zeros(3)}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_with_the_names(fault, file, tmp_path):
    state = torch.load(file, weights_only=True)
    before = set(state)
    FAULTS[fault](state)
    torch.save(state, file)
    name = (before ^ set(state) or {"time_embed.0.bias"}).pop()
    with pytest.raises(Refused) as refused:
        import_file(file, tmp_path / "results")
    assert str(refused.value) == f"tiny.pt does not fit the network: {name} {fault}"
    assert not list(tmp_path.glob("results/runs/*"))


def test_a_message_names_some_parameters_and_counts_the_others(file, tmp_path):
    with pytest.raises(Refused) as refused:
        import_file(file, tmp_path / "results", model="cifar10_uncond_50M_500K")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700
    assert " more missing; " in str(refused.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist: give a .pt"),
        (b"PK nothing", "cannot be read as weights"),
        ({"a": 1}, "holds other things than weights"),
        ([torch.zeros(1)], "holds other things than weights"),
        ({"run": print}, "cannot be read as weights"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(Refused, match=message) as refused:
        openai.read(path)
    assert "\n" not in str(refused.value)


def config_of(run):
    return from_dict(TrainConfig, read_json(run.folder / "config.json"))


def do(results, *words):
    """A command line of one run, in this process; what it asks to be measured."""
    request = parse([*words, "device=cpu"])
    (cell,) = expand(request).cells
    (task,) = tasks_of(distinct([expand(request)], Runs(results / "runs")), request)
    execute(task, Course(lambda *_: None, lambda: False))
    return cell.measurements


def measured(file, results, pictures, *words):
    """The run, imported and measured by the command that the import says."""
    run = import_file(file, results, str(pictures))
    assert run.id == digest(config_of(run))
    few = [
        "measure.nll.images=4",
        "measure.fd.images=66",
        "measure.fd.sampler.steps=2",
        "measure.fd.features=fashion_cnn",
    ]
    return run, do(results, *measuring(config_of(run), results, str(pictures)), *few, *words)


def test_an_imported_file_is_measured_as_any_run(file, tmp_path, pictures):
    run, asked = measured(file, tmp_path / "results", pictures)
    assert run.folder.name == f"{run.id}-openai-folder-T40-cosine-hybrid-s0"
    assert run.state == "trained" and not (run.folder / "log.jsonl").exists()
    nll, fd = (run.measurement(item.id)["result"] for item in asked)
    assert 0 < nll["nll"] < 1e3 and nll["images"] == 4 and nll["evaluations"] == 40
    assert fd["frechet"] > 0 and fd["images"] == 66 and fd["steps"] == 2
    record = read_json(run.folder / "provenance.json")
    assert (record["source"], record["model"], record["file"]) == ("openai", "tiny", "tiny.pt")
    assert len(record["sha256"]) == 64 and len(record["commit"]) == 40


@pytest.mark.parametrize("zipped", [True, False])
def test_the_weights_are_those_of_the_file(zipped, file, tmp_path, pictures):
    """Their code saves parameters, not plain tensors; before PyTorch 1.6 in another format."""
    state = OrderedDict((k, torch.nn.Parameter(x)) for k, x in weights_of(TINY).items())
    state._metadata = OrderedDict({"": {"version": 1}})
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    run = import_file(file, tmp_path / "results", str(pictures))
    snapshot = checkpoint.load(snapshot_path(run.folder, 1.0, 3))
    theirs = openai.to_openai(TINY.network(), snapshot["ema"]["0"])
    for name, x in torch.load(file, weights_only=True).items():
        assert torch.equal(theirs[name], x) and type(theirs[name]) is torch.Tensor
    assert snapshot["images"] == [3, 16, 0] and snapshot["step"] == 3


def test_importing_again_does_nothing_and_another_file_is_refused(file, tmp_path):
    results = tmp_path / "results"
    run = import_file(file, results)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert import_file(file, results) == run
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    torch.save({name: x + 1 for name, x in weights_of(TINY).items()}, file)
    with pytest.raises(Refused, match="holds weights of another file: move it away"):
        import_file(file, results)
    assert [path.name for path in (results / "runs").iterdir()] == [run.folder.name]


def test_what_was_not_imported_is_not_trained(file, tmp_path, pictures):
    results = tmp_path / "results"
    run, _ = measured(file, results, pictures)
    with pytest.raises(Refused, match="has its final weights alone, and none are trained here"):
        measured(file, results, pictures, "measure.fd.at=0.5")
    assert run.trained
    words = measuring(config_of(run), results, str(pictures))
    shutil.rmtree(run.folder)
    with pytest.raises(Refused, match="has no weights, and none are trained here"):
        do(results, *words)
    # What that left is no obstacle.
    assert run.folder.exists() and import_file(file, results, str(pictures)).trained


def test_an_interrupted_import_leaves_nothing(file, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_openai.provenance, "record", stop)
    with pytest.raises(KeyboardInterrupt):
        import_file(file, tmp_path / "results")
    assert list((tmp_path / "results" / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "size, classes, mode, flags, message",
    [
        (24, ("",), "RGB", "", "draws RGB images of 16x16, and those of .* are 24x24"),
        (8, ("",), "RGB", "", "are 8x8"),
        (16, ("",), "L", "", "with 1 channel"),
        (16, ("a", "b"), "RGB", " --class_cond True", "knows 1000 classes, and .* has 2"),
    ],
)
def test_images_that_it_cannot_be_measured_on_are_refused(
    size, classes, mode, flags, message, tiny, tmp_path, monkeypatch
):
    model = replace(TINY, flags=TINY.flags + flags)
    monkeypatch.setattr(released, "MODELS", (model,))
    torch.save(weights_of(model), tmp_path / "tiny.pt")
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_pictures(folder, size, classes, mode)
    with pytest.raises(Refused, match=message):
        import_file(tmp_path / "tiny.pt", tmp_path / "results", str(folder))
    assert not (tmp_path / "results").exists()


def test_one_network_draws_and_another_enlarges(file, tmp_path):
    """Both on images of the larger size, which the first one's are averaged from."""
    folder, results = tmp_path / "pictures", tmp_path / "results"
    folder.mkdir()
    write_pictures(folder, 32)
    torch.save(weights_of(TINY_UPSAMPLER), tmp_path / "tiny_upsampler.pt")
    small, large = (
        import_file(path, results, str(folder)) for path in (file, tmp_path / "tiny_upsampler.pt")
    )
    configs = [config_of(run) for run in (small, large)]
    assert configs[0].data.size == 16 == configs[1].data.low
    keeping = Housekeeping(device="cpu", data_path=str(folder))
    how = Frechet(images=66, sampler=SamplerConfig(steps=2), partner=small.id)
    work = Work(keeping, large.folder / "part", tmp_path / "cache")
    result = measure(large.folder, configs[1], how, work, (small.folder, configs[0]))
    assert result.numbers["frechet"] > 0
    assert result.arrays["samples"].shape == (64, 3, 32, 32)
    alone = replace(how, partner="")
    drawn = measure(small.folder, configs[0], alone, replace(work, scratch=small.folder / "part"))
    assert np.array_equal(result.arrays["low"], drawn.arrays["samples"])
    assert result.arrays["low"].shape == (64, 3, 16, 16)
    nll = measure(small.folder, configs[0], Likelihood(images=3), work)
    assert np.isfinite(nll.numbers["nll"])


def test_the_command_line(file, tmp_path, pictures, capsys):
    results = tmp_path / "results"
    main([str(file), f"results={results}"])
    said = capsys.readouterr().out
    assert "-openai-folder-T40-cosine-hybrid-s0" in said and "not measured" in said
    main([str(file), f"results={results}", f"data_path={pictures}"])
    said = capsys.readouterr().out
    assert f"run.py grid=single scale=imagenet64 data_path={pictures}" in said
    assert "source=openai" in said and "diffusion.rescaled_time=false" in said
    assert ("measure.fd.neighbours=5" in said) == from_dict(
        TrainConfig, read_json(next(results.glob("runs/*/config.json")))
    ).unet.class_conditional
    with pytest.raises(Refused, match="'name': after the file come data_path=, model=, results="):
        main([str(file), "name=tiny"])


def test_the_command_by_the_name_of_the_module(tmp_path):
    command = [sys.executable, "-m", "core.interop.openai", "import", str(tmp_path / "none.pt")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {tmp_path / 'none.pt'} does not exist")
    with pytest.raises(Refused, match="'export': give import FILE"):
        openai.main(["export", "none.pt"])
