"""What the tests of hostile files share."""

import os
import tracemalloc
from pathlib import Path

import pytest

from core.errors import Refused


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def refusal(call, *arguments, **keywords) -> str:
    """The one line with which a call refuses."""
    with pytest.raises(Refused) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert message.isprintable() and 20 < len(message) < 2000
    return message


class Memory:
    """Around what must not take much of it; counts what Python and NumPy ask for, in bytes."""

    def __init__(self, most: int):
        self.most = most

    def __enter__(self):
        tracemalloc.start()

    def __exit__(self, *exception):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.most, f"{peak:,} bytes"
