"""What every chain shares: a stage that can say its formula, and chance that belongs to one stage.

A chain is a tuple of stages in physical order. Each stage is a function of one working frame; its docstring has the
lines `Formula:`, `Unit:` and `Source:`, from which docs/scanners.md is held to the code. A stage's random
numbers come from a generator of its own, seeded by the exposure's seed and the stage's name: leaving a stage out, or
changing it, moves no number of another.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from common.errors import DataError

FloatMap = npt.NDArray[np.float32]
Frame = TypeVar("Frame")

WORDS: Final = ("Formula", "Unit", "Source")


@dataclass(frozen=True)
class Told:
    """What a stage says of itself, from its docstring."""

    title: str
    formula: str
    unit: str
    """Of what the stage leaves."""
    source: str


@dataclass(frozen=True)
class Stage(Generic[Frame]):
    """One step of a chain: its name, and the function that carries it out on the frame."""

    name: str
    run: Callable[[Frame], None]

    def told(self) -> Told:
        """Title, formula, unit and source. Empty where the docstring has none; a test forbids that."""
        text = inspect.cleandoc(self.run.__doc__ or "")
        found = dict.fromkeys(WORDS, "")
        word = ""
        for line in text.splitlines()[1:]:
            head, colon, rest = line.partition(":")
            begins = bool(colon) and head in WORDS
            if begins or not line.strip():
                word = head if begins else ""
            if word:
                found[word] = f"{found[word]} {(rest if begins else line).strip()}".strip()
        return Told(text.partition("\n")[0], found["Formula"], found["Unit"], found["Source"])


def run_stages(stages: Sequence[Stage[Frame]], frame: Frame, last: str | None = None) -> Frame:
    """Carry out the stages in order on this frame, up to and including `last`.

    Raises:
        DataError: when no stage is named `last`.
    """
    if last is not None and last not in {stage.name for stage in stages}:
        names = ", ".join(stage.name for stage in stages)
        raise DataError(f"stage {last}", "this chain has no such stage", f"Use one of {names}")
    for stage in stages:
        stage.run(frame)
        if stage.name == last:
            break
    return frame


def chance(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one stage of one exposure: SFC64, the fastest of NumPy's for float32 normals."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))
