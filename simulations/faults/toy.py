"""A hospital whose training is a known function, so that what a federation must come to is known to the bit.

It trains half way towards a point of its own, `delta = (target - incoming) / 2`, and takes the time it is told to.
While it works it leaves a mark in its folder, so that a fault can be made to happen in the middle.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from common.arrays import digest
from common.code import code_digest
from common.messages import Instruction, IntakeSummary, Progress, SiteMetrics, Update
from common.plan import Plan, plan_from_dict
from common.types import SiteName

AT_WORK: Final = "at-work"
PACE: Final = "pace"
HOLD: Final = "hold"
TRAINED: Final = "trained"
"""Files in a toy hospital's state: there while it trains, with the round in it; seconds that a training takes, once
`hold` is not there; a line with the round for each training that was begun."""
_LOOK_S: Final = 0.02


def toy_plan(**federation: object) -> Plan:
    """A small plan; keyword arguments change its `[federation]`."""
    return plan_from_dict(
        {
            "study": {"name": "faults", "question": "Does the machinery hold?"},
            "task": {"kind": "binary", "classes": ["opacity"]},
            "input": {"modalities": ["DX"], "shape": [32, 32]},
            "labels": {"source": "synthetic", "provenance": "made up"},
            "model": {"name": "small-cnn"},
            "federation": {"rounds": 2, "least_sites": 2, "deadline_s": 120.0, **federation},
        }
    )


@dataclass
class ToyDuties:
    """Survey, training and figures of a toy hospital.

    Args:
        name: of the site; its target is drawn from it.
        state: folder of the site's state.
        bucket: its public number of training patients.
    """

    name: SiteName
    state: Path
    bucket: int = 100
    _sent: dict[str, Update] = field(default_factory=dict)

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """The bucket, and no other figure."""
        del plan
        return self._metrics(instruction, intake=IntakeSummary(None, None, {}, self.bucket))

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        """Half way to the target, in the time the file `pace` says; what was made for the same model is given again."""
        release = f"{instruction.run}/{instruction.round}/{digest(instruction.arrays)}"
        if release not in self._sent:
            self._sent[release] = self._trained(instruction, plan)
        return self._sent[release]

    def _trained(self, instruction: Instruction, plan: Plan) -> Update:
        mark = self.state / AT_WORK
        mark.write_text(str(instruction.round))
        with (self.state / TRAINED).open("a") as begun:
            begun.write(f"{instruction.round}\n")
        while (self.state / HOLD).exists():
            time.sleep(_LOOK_S)
        time.sleep(_seconds(self.state / PACE))
        arrays = {
            name: ((target_of(self.name, name, array.shape) - array) / 2).astype(np.float32)
            for name, array in instruction.arrays.items()
        }
        mark.unlink(missing_ok=True)
        return Update(
            self.name,
            instruction.run,
            instruction.round,
            plan.digest,
            code_digest(),
            self.bucket,
            arrays,
            Progress(None, None),
            simulated=True,
        )

    def threshold(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """No answer of its own."""
        del plan
        return self._metrics(instruction)

    def evaluate(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """No figures: a toy has no patients."""
        del plan
        return self._metrics(instruction)

    def _metrics(self, instruction: Instruction, intake: IntakeSummary | None = None) -> SiteMetrics:
        run, round_ = instruction.run, instruction.round
        return SiteMetrics(self.name, run, round_, code_digest(), intake=intake, simulated=True)


def target_of(
    site: str, name: str, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The point a toy hospital trains towards."""
    seed = zlib.crc32(f"{site}/{name}".encode())
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _seconds(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0
