"""How a number differs from exposure to exposure at one site: three shapes, each drawn, never hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Uniform:
    """Any value between two bounds alike."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class Normal:
    """A bell around the mean, never further than three standard deviations."""

    mean: float
    deviation: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return self.mean + self.deviation * float(np.clip(rng.standard_normal(), -3, 3))


@dataclass(frozen=True)
class LogNormal:
    """Positive, a bell in the logarithm around the median, never further than three standard deviations."""

    median: float
    deviation: float
    """Of the natural logarithm: 0.2 is about 20%."""

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(self.median * np.exp(self.deviation * np.clip(rng.standard_normal(), -3, 3)))


Spread = Uniform | Normal | LogNormal


def scaled(spread: Spread, factor: float) -> Spread:
    """The same shape, every value times this factor."""
    if isinstance(spread, Uniform):
        return Uniform(spread.low * factor, spread.high * factor)
    if isinstance(spread, LogNormal):
        return LogNormal(spread.median * factor, spread.deviation)
    return Normal(spread.mean * factor, spread.deviation * factor)


def near(rng: np.random.Generator, value: float, deviation: float) -> float:
    """A value around this one, by a deviation of its logarithm: how one copy of a machine differs from another."""
    return LogNormal(value, deviation).draw(rng)
