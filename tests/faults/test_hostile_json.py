"""JSON of a results folder that nobody vouches for: no traceback, and what is kept is named."""

import json
import os
from pathlib import Path

import pytest
from hostile import refusal
from test_studies import write

from analysis import load as module
from analysis import report, table_rows
from analysis.judging import evaluate
from analysis.load import load
from core.files import here
from core.training import number, read_log
from experiments import claims, progress, records
from experiments.files import read_json, read_record
from experiments.grid import expand
from experiments.listing import listing
from experiments.mirror import send
from experiments.overrides import parse
from experiments.reference import adopted
from experiments.runs import SUBMITTED, Run, Runs
from experiments.submitted import Queue, jobs_of

DEEP = b"[" * 100_000
BROKEN = {
    "nothing": b"",
    "half": b'{"a": 1',
    "no text": b"\xff\xfe\x00\x80",
    "zeros": bytes(100),
    "a list": b'[{"token": "x"}]',
    "a text": b'"token"',
    "a number": b"3",
    "null": b"null",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "more than infinity": b'{"a": 1e999}',
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "a large number": b'{"a": 100000000000000000000}',
    "depth": b'{"a": ' + DEEP,
    "many levels of objects": b'{"a":' * 100_000,
    "a large file": b'{"a": "' + b"x" * 2**24 + b'"}',
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_object_of_json_is_as_if_not_there_or_refused_by_its_name(kind, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(BROKEN[kind])
    assert read_json(path) is None
    assert str(path) in (says := refusal(read_record, path)) and "delete it" in says
    assert read_record(tmp_path / "none.json") is None


# A claim, a progress file and a note of jobs are passed over when they are not what is written.
OTHERS = [
    {"token": 3, "host": "x"},
    {"token": ["x"], "seen_from": ["y"]},
    {"token": [], "seen_from": ["y"]},
    {"token": "x", "pid": 10**15, "seen_from": "here"},
    {"token": "x", "pid": "../../etc", "seen_from": "here"},
    {"token": "x", "pid": -1, "seen_from": "here"},
    {"token": "x", "job": [1], "pid": 1},
    {"stage": 3, "done": "x", "total": None, "words": [], "left": "soon"},
    {"stage": "x", "done": 1},
    {"stage": "\x1b[2J", "done": 1, "total": 2, "words": "", "left": None},
    {"stage": "x", "done": 1, "total": 2, "words": "\x1b[2J", "left": None},
    {"token": "x", "host": "\x1b]0;title\x07", "job": "\x1b[2J", "pid": 1},
    {"cluster": "slurm", "jobs": 3},
    {"cluster": "slurm", "jobs": [[1], 2]},
    {"cluster": ["x"], "jobs": []},
    {"cluster": "local", "jobs": ["1"], "processes": [1, "x"]},
    {"cluster": "local", "jobs": ["1"], "processes": [{"pid": "x", "seen_from": "here"}]},
]


def contents():
    for other in OTHERS:
        seen = other | ({"seen_from": here()} if other.get("seen_from") == "here" else {})
        yield json.dumps(seen).encode()
    yield from (BROKEN[kind] for kind in ("half", "a list", "NaN", "depth", "no text"))


def test_claims_progress_and_notes_of_jobs_that_say_nonsense_stop_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SILENCE", 0.0)
    for i, content in enumerate(contents()):
        run = Run("0123456789", tmp_path / str(i))
        (run.folder / "trained").parent.mkdir()
        owner = run.claim()
        for path in (owner, run.progress(), run.progress("m.1"), run.folder / SUBMITTED):
            path.write_bytes(content)
        queue = Queue()
        queue._asked, queue._jobs = float("inf"), {"7_1"}
        assert run.look(queue.holds) in ("new", "started", "running", "queued")
        assert progress.read(run.folder) == []
        assert queue.works_on(run) in (True, False) and isinstance(jobs_of(run), list)
        assert claims.holder(owner).isprintable() and claims.surely_alive(owner) in (True, False)
        claim = claims.acquire(owner) or claims.acquire(owner)  # the first look begins the silence
        assert claim is not None, content[:80]
        claim.release()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "mark",
    [{}, {"provenance": 5}, {"provenance": {}}, {"provenance": {"log_sha256": "x"}, "log": 5}],
)
def test_a_mark_of_a_training_that_is_none_is_damage_like_any_other(mark, whole, tmp_path):
    (tmp_path / "trained").write_text(json.dumps(mark))
    (tmp_path / "log.jsonl").write_text("{}\n")
    if whole:
        (tmp_path / "provenance.json").write_text('{"seconds": 1}')
    assert records.damaged(tmp_path) == [tmp_path / "trained"]
    records.restore(tmp_path)
    assert records.damaged(tmp_path) == []
    assert (tmp_path / "trained").exists() == whole  # else it counts as not finished


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A study of which everything is measured, for both seeds."""
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "none")
    write(tmp_path / "results", "model_mix")
    return tmp_path / "results"


def words(results: Path) -> list[str]:
    return ["grid=model_mix", "scale=smoke", f"results={results}"]


def first_run(results: Path):
    cell = expand(parse([*words(results), "seeds=[0,1]"])).cells[0]
    return cell, Runs(results / "runs").find(cell.run_id, cell.config)


def measurement(results: Path) -> Path:
    cell, run = first_run(results)
    asked = next(a for a in cell.measurements if a.name == "nll")
    return run.folder / "measurements" / f"{asked.id}.json"


RESULTS = {
    "NaN": {"nll": float("nan")},
    "infinity": {"nll": float("inf")},
    "text": {"nll": "3.2"},
    "a list": {"nll": [3.2]},
    "a truth": {"nll": True},
    "nothing": {"nll": None},
    "another": {"frechet": 3.0},
    "an error that is a list": {"nll": 3.2, "standard_error": [1]},
}


def left_out(results: Path, path: Path, capsys) -> None:
    """What is not whole is named in a warning, and is a hole."""
    frame = load(parse(words(results))).frame
    assert f"warning: {path} is damaged and left out" in capsys.readouterr().err
    assert frame["value"].isna().sum() == 1


@pytest.mark.parametrize("kind", RESULTS)
def test_a_measurement_that_is_no_number_is_named(kind, results, capsys):
    path = measurement(results)
    stored = json.loads(path.read_text())
    del stored["checksum"]  # which a stranger may leave out
    path.write_text(json.dumps(stored | {"result": RESULTS[kind]}))
    if kind in ("NaN", "infinity"):  # is no JSON
        left_out(results, path, capsys)
    else:
        assert str(path) in refusal(load, parse(words(results)))


def test_neither_tables_nor_verdicts_nor_the_report_take_one_that_is_not_finite(results, capsys):
    path = measurement(results)
    path.write_text(path.read_text().replace('"nll": 3', '"nll": NaN, "was": 3'))
    request = parse(words(results)[1:], grid="single")
    for show in (
        lambda: table_rows.main(words(results)),
        lambda: evaluate(request, [32], fall_back=False),
        lambda: report.build(request),
    ):
        show()
        assert f"warning: {path} is damaged and left out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["half", "a list", "depth", "no text"])
def test_a_measurement_or_configuration_that_is_no_json_is_named(kind, results, capsys):
    path = measurement(results)
    path.write_bytes(BROKEN[kind])
    left_out(results, path, capsys)
    cell, run = first_run(results)
    for name in ("config.json", "provenance.json"):
        (run.folder / name).write_bytes(BROKEN[kind])
        assert run.folder / name in run.damaged()
    run.check_drift(cell.config)  # the folder's name says of what it is, and it is written anew
    assert not adopted(run) and run.provenance == {}


@pytest.mark.parametrize("record", [{"commit": 3}, {"seconds": "x"}, {"processor": ["x"]}])
def test_a_provenance_of_other_types_is_named(record, results):
    _, run = first_run(results)
    (run.folder / "provenance.json").write_text(json.dumps(record))
    says = refusal(lambda: report.runs(load(parse(words(results)))))
    assert str(run.folder / "provenance.json") in says and next(iter(record)) in says


def test_a_configuration_of_another_form_is_refused_in_one_short_line(results):
    cell, run = first_run(results)
    (run.folder / "config.json").write_text(json.dumps({"optim": ["x" * 10**6]}))
    assert "was made with another" in refusal(run.check_drift, cell.config)


LINES = {
    "no line": b"nonsense\n",
    "a list": b"[1, 2]\n",
    "a number": b"5\n",
    "no step": b'{"loss": 1}\n',
    "a step in words": b'{"step": "x"}\n',
    "no text": b"\xff\xfe\n",
    "depth": DEEP + b"\n",
    "a huge number": b'{"step": ' + b"9" * 5000 + b"}\n",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_a_log_that_is_none_is_named_and_a_last_one_left_out(kind, tmp_path):
    path, good = tmp_path / "log.jsonl", b'{"step": 1, "vlb": 2.0}\n'
    path.write_bytes(good + LINES[kind] + good)
    assert f"line 2 of {path} is damaged" in refusal(read_log, path)
    path.write_bytes(good + LINES[kind])
    assert read_log(path) == [{"step": 1, "vlb": 2.0}]


def test_values_of_a_log_that_are_no_numbers_are_holes_of_curves_and_verdicts(results):
    values = [float("nan"), float("inf"), None, "x", [1], True, 10**400, 1e999]
    assert all(number(value) != number(value) for value in values) and number(3) == 3.0
    _, run = first_run(results)
    lines = [{"step": i, "vlb": value} for i, value in enumerate(values[:-2], 1)]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cell, _ = first_run(results)

    class Sink:
        def __init__(self):
            self.sent = []

        def begin(self, *arguments): ...

        def end(self): ...

        def line(self, step, values):
            self.sent.append(values)

    to = Sink()
    for before in (None, {}, {"step": "x"}, {"step": 1, "measured": 3}):
        send(run, [cell], to, before)
    assert not [v for sent in to.sent for key, v in sent.items() if key.startswith("train/")]


def test_a_stranger_s_error_is_shown_without_what_a_terminal_obeys(results):
    _, run = first_run(results)
    (run.folder / "error.txt").write_bytes(b"\xff\x1b]0;title\x07 it failed\n")
    request = parse([*words(results), "seeds=[0,1]"])
    shown = listing([expand(request)], Runs(results / "runs"))
    assert "it failed" in shown and shown.replace("\n", "").isprintable()
    os.unlink(run.folder / "error.txt")
    (run.folder / "error.txt").symlink_to("/etc/hostname")
    assert run.error is None
