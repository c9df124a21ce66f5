"""Copies of curves elsewhere: every line once, in order, whatever was sent before."""

import sys
from types import SimpleNamespace

import pytest

from core.errors import Refused
from core.training import read_log
from experiments import mirror, sinks
from experiments.files import write_bytes, write_json
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import Runs

WORDS = ("grid=training_length", "scale=smoke")


class Kept:
    """A sink that keeps what it is given; steps that go back are an error, as in wandb."""

    def __init__(self, anew=False):
        self.anew, self.got, self.configs = anew, {}, {}

    def begin(self, id, name, config):
        self.id, self.configs[id] = id, config
        if self.anew:
            self.got[id] = []

    def line(self, step, values):
        mine = self.got.setdefault(self.id, [])
        assert not mine or step >= mine[-1][0]
        mine.append((step, values))

    def end(self):
        self.id = None


@pytest.fixture
def results(tmp_path):
    log(tmp_path, 10, 20)
    return tmp_path


def cells(results):
    grid = expand(parse([*WORDS, f"results={results}"]))
    return [(cell, Runs(results / "runs").find(cell.run_id, cell.config)) for cell in grid.cells]


def log(results, *steps):
    for _, run in cells(results):
        lines = "".join(f'{{"step": {s}, "loss": {1 / s}, "vlb": NaN}}\n' for s in steps)
        write_bytes(run.folder / "log.jsonl", lines.encode())


def measure(results, name, at, value):
    cell, run = cells(results)[0]
    asked = next(a for a in cell.measurements if a.name == name and a.settings.at == at)
    metric = mirror.metric_of(asked.settings)
    content = {"metric": metric, "result": {metric: value}}
    write_json(run.folder / "measurements" / f"{asked.id}.json", content)


def sent(results, monkeypatch, sink):
    monkeypatch.setattr(mirror, "sink", lambda name, folder: sink)
    mirror.main([*WORDS, f"results={results}", "to=trackio"])
    return sink.got[cells(results)[0][0].run_id]


def test_every_line_is_sent_once_and_what_came_since_the_next_time(results, monkeypatch):
    sink = Kept()
    first = [(10, {"train/loss": 0.1}), (20, {"train/loss": 0.05})]
    assert sent(results, monkeypatch, sink) == first
    assert sent(results, monkeypatch, sink) == first
    log(results, 10, 20, 40)
    measure(results, "nll", 0.5, 4.5)  # of step 10, but measured later
    more = [(40, {"train/loss": 0.025}), (40, {"measured/nll at 0.5": 4.5})]
    assert sent(results, monkeypatch, sink) == first + more
    assert sent(results, monkeypatch, sink) == first + more
    assert len(sink.got) == 2 and all(c["diffusion.T"] == 4000 for c in sink.configs.values())


def test_a_training_that_went_back_to_its_checkpoint_is_not_sent_twice(results, monkeypatch):
    sink = Kept()
    sent(results, monkeypatch, sink)
    log(results, 10)
    sent(results, monkeypatch, sink)
    log(results, 10, 20, 30)
    assert [step for step, _ in sent(results, monkeypatch, sink)] == [10, 20, 30]


def test_event_files_are_written_anew_each_time(results, monkeypatch):
    sink = Kept(anew=True)
    sent(results, monkeypatch, sink)
    measure(results, "fd", 1.0, 30.5)
    steps = [step for step, _ in sent(results, monkeypatch, sink)]
    assert steps == [10, 20, 20]


def test_the_log_stays_as_it_is(results, monkeypatch):
    before = {run.folder: read_log(run.folder / "log.jsonl") for _, run in cells(results)}
    sent(results, monkeypatch, Kept())
    for folder, lines in before.items():
        assert str(read_log(folder / "log.jsonl")) == str(lines)


def test_trackers_are_called_as_they_are_documented(results, monkeypatch):
    for package in ("trackio", "wandb"):
        calls = []

        def record(what, calls=calls):
            return lambda *args, **kwargs: calls.append((what, args, kwargs))

        fake = SimpleNamespace(**{what: record(what) for what in ("init", "log", "finish")})
        monkeypatch.setitem(sys.modules, package, fake)
        mirror.main([*WORDS, f"results={results}", f"to={package}"])
        assert [call[0] for call in calls] == 2 * ["init", "log", "log", "finish"]
        start = calls[0][2]
        assert start["project"] == sinks.PROJECT and start["resume"] == "allow"
        assert start["config"]["objective.name"] == "hybrid"
        assert calls[1][1:] == (({"train/loss": 0.1},), {"step": 10})


def test_tensorboard_has_every_value(results):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    mirror.main([*WORDS, f"results={results}", "to=tensorboard"])
    id = cells(results)[0][0].run_id
    events = EventAccumulator(str(results / "tensorboard" / id))
    events.Reload()
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("train/loss")] == [
        (10, 0.1),
        (20, 0.05),
    ]


def test_a_word_that_is_neither_true_nor_false_is_no_order_to_follow(results):
    with pytest.raises(Refused, match="follow= takes true or false"):
        mirror.main([*WORDS, f"results={results}", "to=trackio", "follow=yes"])


@pytest.mark.parametrize("to", ["", "to=nowhere"])
def test_a_sink_that_there_is_not_is_refused(results, to):
    with pytest.raises(Refused, match="choose one of tensorboard, trackio, wandb"):
        mirror.main([word for word in (*WORDS, to) if word])


def test_a_package_that_is_not_installed_is_named_with_its_extra(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Refused, match=r"pip install '.\[wandb\]'"):
        mirror.main([*WORDS, f"results={results}", "to=wandb"])
