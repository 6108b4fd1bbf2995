"""What was measured: samples of a server, and figures that compare two servers pair by pair."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["ratio", "value"]
DIGITS: Final = 3
"""Significant digits of a printed figure."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    done: float
    """Units of work done: requests, bytes, images."""
    seconds: float
    cpu: float
    """CPU seconds of all processes of the server."""
    memory: int
    """Peak bytes of all processes of the server."""
    p99: float = 0.0
    """Seconds, where the sample has them."""

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.done / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds for a unit of work."""
        return self.cpu / self.done


@dataclass(frozen=True)
class Figure:
    """One line of the table: Polly, beside another where there is one, and the goal."""

    what: str
    unit: str
    polly: list[float]
    goal: float
    at_least: bool = True
    kind: Kind = "ratio"
    """Whether the goal is about the ratio to the other or about Polly's own value."""
    other: list[float] = field(default_factory=list)
    beside: str = "docker-registry"

    @property
    def ratios(self) -> list[float]:
        """Polly to the other, pair by pair."""
        return [mine / its for mine, its in zip(self.polly, self.other, strict=True) if its] if self.other else []

    @property
    def measured(self) -> float:
        """The median that the goal is about."""
        return statistics.median(self.ratios if self.kind == "ratio" else self.polly)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    @property
    def worse(self) -> bool:
        """Whether Polly does worse than the other."""
        if not self.ratios:
            return False
        ratio = statistics.median(self.ratios)
        return ratio < 1 if self.at_least else ratio > 1


@dataclass(frozen=True)
class Cost:
    """What a rate cost a server."""

    server: str
    rate: str
    cpu: float
    cpu_each: str
    memory: int


@dataclass(frozen=True)
class Result:
    """A row of the suite, measured."""

    row: str
    figures: list[Figure]
    costs: list[Cost] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def cost(server: str, samples: list[Sample], unit: str, scale: float = 1.0) -> Cost:
    """Medians of the samples; ``scale`` turns what was counted into the unit that is printed."""
    rate = statistics.median(sample.rate for sample in samples) / scale
    each = statistics.median(sample.cpu_each for sample in samples) * scale
    return Cost(
        server,
        f"{short(rate)} {unit}/s",
        statistics.median(sample.cpu for sample in samples),
        f"{short(each * 1000)} ms/{unit}" if each < 1 else f"{short(each)} s/{unit}",
        max(sample.memory for sample in samples),
    )


def short(value: float) -> str:
    """A number with three significant digits, and thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (DIGITS - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{DIGITS}g}"
    return text if "e" in text else text.rstrip("0").rstrip(".")
