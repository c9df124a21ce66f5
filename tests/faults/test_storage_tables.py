"""Tables and figures that are damaged, or older than what they were made of, are made again."""

import os
import sys
import time

import pytest

from experiments.files import write_json
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import Runs
from experiments.scripts import Analysis


@pytest.fixture
def made(tmp_path):
    """An analysis whose script writes a table, which it has done; the table and the stamp."""
    request = parse(["grid=schedule_ablation", "scale=smoke", f"results={tmp_path}"])
    analysis = Analysis([expand(request)], request)
    table = tmp_path / "tables" / f"{request.name}.md"
    table.parent.mkdir()
    program = f"from pathlib import Path; Path({str(table)!r}).write_text('| 3.1 |')"
    analysis.commands = [[sys.executable, "-c", program]]
    assert analysis.outdated() and analysis.write_all() and not analysis.outdated()
    (stamp,) = tmp_path.glob("cache/*.analysed")
    return analysis, table, stamp


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("content", [b"", b"| 7.1 |", None])
def test_a_damaged_table_or_stamp_is_noticed_and_made_again(made, which, content, injected):
    fault = {None: "removed", b"": "emptied"}.get(content, "other content")
    injected(fault, "a table, its stamp", "noticed, made again")
    analysis, path = made[0], made[which]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert analysis.outdated()
    assert analysis.write_all() and made[1].read_text() == "| 3.1 |" and not analysis.outdated()


def test_what_was_measured_since_counts_and_dates_do_not(made, tmp_path, injected):
    injected("dates in the past and the future", "tables", "do not count", 2)
    analysis, table, stamp = made
    for days in (-400, 400):
        for path in (table, stamp):
            os.utime(path, 2 * (time.time() + days * 86400,))
        assert not analysis.outdated()
    cell = analysis.grids[0].cells[0]
    folder = Runs(tmp_path / "runs").find(cell.run_id, cell.config).folder / "measurements"
    measured = folder / f"{cell.measurements[0].id}.json"
    write_json(measured, {"metric": "nll", "result": {"nll": 3.0}})
    for path in (measured, folder):  # by a machine whose clock is far behind
        os.utime(path, (0, 0))
    assert analysis.outdated()
