"""What was injected and what became of it, as tables of docs/reliability.md.

    python tests/faults/records.py

Each campaign keeps a file of its own, records/NAME.jsonl: a line for each injection, or for several
of a kind, an object with fault, where, outcome, lost ("nothing", or in words), and, if there is a
choice, target and times. Its table is written between the lines <!-- NAME --> and <!-- /NAME --> of
the page.
"""

import json
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"


def read(path: Path) -> list[dict]:
    """The records of a campaign."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(records: list[dict]) -> str:
    """Markdown: a line for each fault at each place; outcomes and losses with how often."""
    keys = ["fault", "where", *(["target"] if any("target" in r for r in records) else [])]
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(tuple(record.get(key, "") for key in keys), []).append(record)
    lines = [[*keys, "times", "outcome", "lost"], ["---"] * (len(keys) + 3)]
    for group, found in sorted(groups.items()):
        lines.append([*group, f"{_times(found):,}", _each(found, "outcome"), _each(found, "lost")])
    lost = _times([record for record in records if record["lost"] != "nothing"])
    summary = f"{_times(records):,} injections, of which {lost:,} cost anything."
    return "\n".join([summary, "", *(f"| {' | '.join(line)} |" for line in lines)])


def _times(records: list[dict]) -> int:
    return sum(record.get("times", 1) for record in records)


def _each(records: list[dict], key: str) -> str:
    times: Counter[str] = Counter()
    for record in records:
        times[record[key]] += record.get("times", 1)
    if len(times) == 1:
        return next(iter(times))
    return "; ".join(f"{value} ({n})" for value, n in times.most_common())


def with_tables(page: str) -> str:
    """The page with the tables of all campaigns that have records."""
    for path in sorted((HERE / "records").glob("*.jsonl")):
        name = path.stem
        marks = f"<!-- {name} -->", f"<!-- /{name} -->"
        between = re.escape(marks[0]) + ".*" + re.escape(marks[1])
        new = f"{marks[0]}\n\n{table(read(path))}\n\n{marks[1]}"
        page, found = re.subn(between, lambda _, new=new: new, page, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"error: {PAGE} has not one section {marks[0]}: add it for {path}")
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
