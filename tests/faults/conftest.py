"""Tests of storage note the faults that they put in; with --write-records the page tells them."""

import json

import pytest
from records import HERE, PAGE, with_tables

STORAGE = HERE / "records" / "storage.jsonl"
PROPERTY = "injected"  # of a test's report, by which it travels from worker processes


def pytest_addoption(parser):
    """The word of the command line."""
    words = "write the table of faults of storage in docs/reliability.md from what these tests do"
    parser.addoption("--write-records", action="store_true", help=words)


@pytest.fixture
def injected(record_property):
    """injected(fault, where, outcome, times=1): what the test puts in, and what it then asserts."""

    def note(fault: str, where: str, outcome: str, times: int = 1) -> None:
        record_property(
            PROPERTY, {"fault": fault, "where": where, "outcome": outcome, "times": times}
        )

    return note


def pytest_configure(config):
    """In the process that the command started, not in its workers."""
    if config.getoption("write_records", False) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Keeper())


class Keeper:
    """Gathers the faults of all tests; a test that fails has lost something."""

    def __init__(self):
        self.records = []

    def pytest_runtest_logreport(self, report):
        """Of a test's three reports the middle one."""
        if report.when == "call":
            lost = "nothing" if report.passed else report.nodeid
            found = [value for name, value in report.user_properties if name == PROPERTY]
            self.records += [record | {"lost": lost} for record in found]

    def pytest_sessionfinish(self):
        """Writes the records, in an order of their own, and the page."""
        lines = sorted(json.dumps(record) for record in self.records)
        STORAGE.write_text("".join(f"{line}\n" for line in lines))
        PAGE.write_text(with_tables(PAGE.read_text()))
