"""Copies training curves and measurements to TensorBoard, trackio or Weights & Biases.

    python experiments/mirror.py to=tensorboard grid=NAME [follow=true] [key=value ...]

  to=NAME      tensorboard (files in FOLDER/tensorboard), trackio or wandb, each an optional extra
  follow=true  look again every 30 seconds, until every run of the grid is done

takes the same words as experiments/run.py otherwise. Nothing is trained here, and no training waits
for it: it reads log.jsonl and measurements/, on this machine or on any that sees the folder. What
was sent is remembered in FOLDER/cache, so that it can be stopped and started at any time.
"""

import math
import time
from typing import Any

from core.command import start
from core.config import metric_of, to_dict
from core.errors import Refused
from core.training import number
from experiments.files import read_json, write_json
from experiments.grid import Cell, expand_each
from experiments.overrides import dotted, parse
from experiments.records import log_of
from experiments.run import distinct
from experiments.runs import Run, Runs
from experiments.sinks import Sink, sink

EVERY = 30.0  # seconds between two looks


def logged(run: Run) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of each line of a run's log."""
    return [
        (entry["step"], {f"train/{k}": v for k, v in entry.items() if k != "step" and _number(v)})
        for entry in log_of(run.folder)
    ]


def measured(run: Run, cells: list[Cell]) -> dict[str, tuple[int, float]]:
    """What was measured of a run: name -> (step of the training, value)."""
    found = {}
    for cell in cells:
        for asked in cell.measurements:
            stored = run.measurement(asked.id) or {}
            value = stored.get("result", {}).get(metric_of(asked.settings))
            if _number(value):
                words = asked.words if len(cells) == 1 else f"{cell.words}: {asked.words}"
                step = round(asked.settings.at * cell.config.optim.steps)
                found[f"measured/{words}"] = step, value
    return found


def _number(value: Any) -> bool:
    return math.isfinite(number(value))


def send(run: Run, cells: list[Cell], to: Sink, before: dict | None) -> dict | None:
    """Sends what a run has that was not sent before, and returns what has been sent by now.

    Steps must not go back within a run: a measurement of an earlier step, made later, is sent at
    the last one.
    """
    if (
        not before
        or type(before.get("step")) is not int
        or type(before.get("measured")) is not list
    ):
        before = {"step": -1, "measured": []}
    lines = [(step, values) for step, values in logged(run) if step > before["step"]]
    points = {k: v for k, v in measured(run, cells).items() if k not in before["measured"]}
    if not lines and not points:
        return before
    to.begin(run.id, f"{cells[0].words} seed {cells[0].seed}", dotted(to_dict(cells[0].config)))
    ahead = max([before["step"], *(step for step, _ in lines)])
    for step, values in lines:
        to.line(step, values)
    for name, (step, value) in sorted(points.items(), key=lambda point: point[1][0]):
        ahead = max(ahead, step)
        to.line(ahead, {name: value})
    to.end()
    return {"step": ahead, "measured": [*before["measured"], *points]}


def main(words: list[str]) -> None:
    own = dict(w.split("=", 1) for w in words if w.startswith(("to=", "follow=")))
    request = parse([w for w in words if not w.startswith(("to=", "follow="))])
    if own.get("follow", "true") not in ("true", "false"):
        raise Refused("follow= takes true or false")
    to = sink(own.get("to", ""), request.results)
    runs = distinct(expand_each(request), Runs(request.results / "runs"))
    memory = request.results / "cache" / f"mirror.{own['to']}.json"
    while True:
        sent = read_json(memory) or {}
        for run, cells in runs:
            before = None if to.anew else sent.get(run.id)
            before = before if isinstance(before, dict) else None
            sent[run.id] = send(run, cells, to, before)
        write_json(memory, sent)
        lacking = [run for run, cells in runs if not _done(run, cells)]
        print(f"{len(runs)} runs are in {own['to']}, {len(lacking)} of them not finished yet")
        if not lacking or own.get("follow") != "true":
            return
        time.sleep(EVERY)


def _done(run: Run, cells: list[Cell]) -> bool:
    return run.trained and all(run.has(asked.id) for cell in cells for asked in cell.measurements)


if __name__ == "__main__":
    start(main, needs_words=True)
