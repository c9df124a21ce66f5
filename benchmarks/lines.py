"""What a section of the benchmarks reports: lines with a measured value and perhaps a target."""

from dataclasses import dataclass

from benchmarks.timing import Ratio


@dataclass(frozen=True)
class Line:
    """`measured` is a number, a Ratio with its quartiles, or words.

    target: in words;  met: None where there is no target.
    """

    what: str
    measured: float | Ratio | str
    target: str = ""
    met: bool | None = None

    @property
    def cells(self) -> list[str]:
        value = self.measured
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return [self.what, shown, self.target, verdict]


def at_most(what: str, ratio: Ratio | float, limit: float, unit: str = "") -> Line:
    """A target from above, judged by the median."""
    value = ratio.median if isinstance(ratio, Ratio) else ratio
    return Line(what, ratio, f"at most {limit:g}{unit}", value <= limit)


def at_least(what: str, ratio: Ratio | float, limit: float, unit: str = "") -> Line:
    """A target from below, judged by the median."""
    value = ratio.median if isinstance(ratio, Ratio) else ratio
    return Line(what, ratio, f"at least {limit:g}{unit}", value >= limit)
