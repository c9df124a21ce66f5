"""What a measurement gives."""

from dataclasses import dataclass, field

from core.parts import Arrays


@dataclass(frozen=True)
class Result:
    """Numbers for JSON and arrays for npz."""

    numbers: dict
    arrays: Arrays = field(default_factory=dict)


def batches(which: range, size: int) -> list[range]:
    """Consecutive ranges of at most `size` images."""
    return [which[first : first + size] for first in range(0, len(which), size)]
