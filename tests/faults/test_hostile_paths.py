"""Names and links that lead elsewhere: nothing is read or written outside of its folder."""

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import refusal
from made_up import encoded, noise, zipped
from test_prepare_published import CIFAR, binary
from test_studies import write

from analysis import compare
from analysis import load as module
from analysis.load import load
from core.config import Housekeeping
from core.data import cifar10
from core.data.original import Options
from core.data.sources import load as load_images
from core.files import temporary
from experiments import profiles
from experiments.execute import _open
from experiments.export import export
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs
from experiments.submit import Shape, Submission
from experiments.tidy import tidy

UP = ["../evil.png", "../../evil.png", "/tmp/evil.png", "a/../../b.png", "..\\evil.png"]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_names_in_a_zip_lead_nowhere(tmp_path):
    """They are names of images and nothing else: nothing is unpacked under them."""
    inner = tmp_path / "inner"
    inner.mkdir()
    files = {name: encoded(noise(8, 8)) for name in [*UP, *(f"{i}.png" for i in range(20))]}
    path = zipped(inner / "a.zip", files)
    before = everything(tmp_path)
    assert "'/tmp/evil.png' in " in refusal(load_images, "folder", "train", str(path))
    path = zipped(path, {name: content for name, content in files.items() if name[0] != "/"})
    assert len(load_images("folder", "train", str(path))) == 18  # hidden, as what begins with "."
    assert everything(tmp_path) == before and not Path("/tmp/evil.png").exists()


def test_a_link_in_a_zip_is_a_file_of_its_text(tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(noise(8, 8)))
    path = zipped(tmp_path / "a.zip", {f"{i}.png": encoded(noise(8, 8)) for i in range(20)})
    link = zipfile.ZipInfo("1z.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(tmp_path / "secret.png"))
    assert "'1z.png' in " in refusal(load_images, "folder", "train", str(path))


KINDS = {
    "symbolic link": (tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": (tarfile.LNKTYPE, "../../../etc/passwd"),
    "device": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_is_no_plain_member_of_a_tar_is_passed_over(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 1)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in CIFAR:
            member = tarfile.TarInfo(f"../../{name}.bin")
            content = binary(noise(1, 3, 32, 32), [1])
            if name == "data_batch_3":
                member.type, member.linkname = KINDS[kind]
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    before = everything(tmp_path)
    says = refusal(cifar10.open_cifar10, tmp_path / "a.tar.gz", Options())
    assert "lacks data_batch_3 of CIFAR-10" in says and everything(tmp_path) == before


@pytest.mark.parametrize("leads", ["/etc", "../../../../elsewhere"])
def test_a_commit_whose_results_lead_out_is_not_unpacked(leads, tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("results/reference/runs/x")
        member.type, member.linkname = tarfile.SYMTYPE, leads
        archive.addfile(member)
    done = subprocess.CompletedProcess([], 0, content.getvalue(), b"")
    monkeypatch.setattr(compare.subprocess, "run", lambda *words, **how: done)
    assert "the results of 'abc' are not taken" in refusal(compare.side, "abc", [], tmp_path / "s")
    assert not (tmp_path / "elsewhere").exists()


# A results folder from elsewhere.

WORDS = ["grid=model_mix", "scale=smoke", "seeds=[0]"]


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "none")
    write(tmp_path / "results", "model_mix")
    return tmp_path / "results"


def of(results: Path):
    """A task of the study, its run and the number of its measurements."""
    request = parse([*WORDS, f"results={results}"])
    task = tasks_of(distinct([expand(request)], Runs(results / "runs")), request)[0]
    return request, task, task.run.folder


LINKS = [
    "",
    "measurements",
    "checkpoints",
    "config.json",
    "log.jsonl",
    "trained",
    "provenance.json",
]


@pytest.mark.parametrize("what", LINKS)
def test_links_out_of_a_results_folder_are_refused_and_nothing_is_written(what, results, tmp_path):
    request, task, folder = of(results)
    away = tmp_path / "away"
    place = folder / what if what else folder
    if place.exists():
        place.rename(away)
    else:
        away.mkdir()
    place.symlink_to(away)
    before = everything(tmp_path)
    cell = expand(request).cells[0]
    calls = (
        lambda: _open(task, _Writes()),
        lambda: load(request),
        lambda: export(cell, task.run, tmp_path / "published", True),
        lambda: Submission("x", [task], LOCAL, Shape(), results / "jobs"),
    )
    for call in calls:
        says = refusal(call)
        assert str(place) in says and "leads out of the results" in says
    assert everything(tmp_path) == before


LOCAL = profiles.load("local", {})


class _Writes:
    writes = True


@pytest.mark.parametrize("what", ["", "measurements", "checkpoints", "../../tables"])
def test_nothing_is_tidied_up_behind_a_link(what, results, tmp_path):
    _, _, folder = of(results)
    away, place = tmp_path / "away", folder / what
    if place.exists():
        place.rename(away)
    (away / "a.part").mkdir(parents=True)
    dead = temporary(away / "x").name.replace(f".{os.getpid()}.", ".4194304.")
    for name in ("a.json", "progress.json", dead):
        (away / name).touch()
    place.symlink_to(away)
    before = everything(away)
    tidy(results, [folder])
    assert everything(away) == before
    place.unlink()
    away.rename(place)
    tidy(results, [folder])
    assert not (place / dead).exists()  # which it would have removed here


def test_nothing_is_tidied_up_where_all_runs_are_behind_a_link(results, tmp_path):
    _, _, folder = of(results)
    (folder / "progress.json").touch()
    (results / "runs").rename(tmp_path / "away")
    (results / "runs").symlink_to(tmp_path / "away")
    tidy(results, [folder])
    assert (folder / "progress.json").exists()


def test_a_measurement_that_is_a_link_or_a_pipe_is_refused_and_not_waited_for(results):
    request, task, folder = of(results)
    path = next((folder / "measurements").glob("*.json"))
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)  # reading it would take for ever
    assert str(path) in refusal(load, request)
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert str(path) in refusal(load, request)
    path.unlink()
    path.write_bytes(content)
    load(request)
    _open(task, _Writes())


def test_a_folder_of_runs_that_is_a_link_is_read_and_not_written_to(results, tmp_path):
    """The reference's may be shown in another folder, as analysis/report.py allows."""
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "runs").symlink_to(results / "runs")
    request, task, _ = of(shown)
    assert load(request).frame["value"].notna().all()
    assert "leads out of the results" in refusal(_open, task, _Writes())


def test_links_within_the_results_and_a_results_folder_that_is_a_link_are_fine(results, tmp_path):
    _, _, folder = of(results)
    real = folder.with_name("real")
    folder.rename(real)
    folder.symlink_to(real)
    (tmp_path / "link").symlink_to(results)
    request, task, _ = of(tmp_path / "link")
    _open(task, _Writes())
    assert load(request).frame["value"].notna().all()


def test_a_run_that_is_a_file_is_refused(results, tmp_path):
    _, task, folder = of(results)
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    assert str(folder) in refusal(_open, task, _Writes())


@pytest.mark.parametrize("id", ["../../elsewhere", "/tmp/elsewhere", "..", "a/b"])
def test_ids_come_from_configurations_and_never_from_files(id, results):
    """A folder is found by the beginning of its name; what its files call it is of no account."""
    request, task, folder = of(results)
    (folder / "provenance.json").write_text(f'{{"run": "{id}", "folder": "{id}"}}')
    frame = load(request).frame
    assert all(Path(f).parent == results / "runs" for f in frame["folder"])
    words = [*WORDS, f"results={results}", f"measure.nll.partner={id}"]
    assert "the code sets it" in refusal(lambda: expand(parse(words)))
    assert isinstance(task.housekeeping, Housekeeping)


def test_a_file_s_name_has_room_for_whatever_was_changed():
    changes = [f"measure.fd.number_{i}={i}" for i in range(9)]
    names = [parse([*WORDS, *changes[:n], "unet.dropout=" + "é" * 50]).name for n in range(10)]
    assert max(len(name.encode()) for name in names) < 200 and len(set(names)) == 10
    assert names[0].startswith("model_mix.smoke.unet.dropout=ééé")  # as long as that fits
    assert "=" not in names[9] and names[9].startswith("model_mix.smoke.")


def test_the_name_of_a_table_leads_nowhere(results):
    for word in ("data.name=../../x", "unet.dropout=0.1/../../x"):
        assert "/" not in parse([*WORDS, word]).name
    assert np.isfinite(load(parse([*WORDS, f"results={results}"])).frame["value"]).all()
