"""A hospital whose training is a known function: the federation's machinery without the imaging.

The toy trains towards a point of its own: `delta = (target - incoming) / 2`, so what the federation
must come to can be worked out by hand.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common.code import code_digest
from common.errors import PolicyRefused
from common.messages import (
    Estimate,
    GroupMetrics,
    Instruction,
    IntakeSummary,
    ModelMetrics,
    Progress,
    SiteMetrics,
    Update,
)
from common.methods import model_part
from common.plan import Plan, plan_from_dict
from common.types import SiteName


def toy_plan(**federation) -> Plan:
    """A small plan; keyword arguments change its `[federation]`."""
    return plan_from_dict(
        {
            "study": {"name": "toy", "question": "Does the machinery work?"},
            "task": {"kind": "binary", "classes": ["opacity"]},
            "input": {"modalities": ["DX"], "shape": [32, 32]},
            "labels": {"source": "synthetic", "provenance": "made up"},
            "model": {"name": "small-cnn"},
            "federation": {"rounds": 2, "least_sites": 2, "deadline_s": 30.0, **federation},
        }
    )


@dataclass
class ToyDuties:
    """Training, survey and measuring of a toy hospital."""

    name: SiteName
    bucket: int = 100
    seen: list[Instruction] = field(default_factory=list)
    loss: float | None = None
    """What it says of its training loss."""

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        self.seen.append(instruction)
        intake = IntakeSummary(received=120, accepted=112, refused={"blank": 8}, patients_bucket=self.bucket)
        return SiteMetrics(self.name, instruction.run, instruction.round, code_digest(), intake=intake)

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        self.seen.append(instruction)
        if self.bucket == 0:
            raise PolicyRefused("site", "it only tests", "Leave it out of training", code="test-only")
        arrays = {
            name: ((target_of(self.name, name, array.shape) - array) / 2).astype(np.float32)
            for name, array in model_part(instruction.arrays).items()
        }
        return Update(
            self.name,
            instruction.run,
            instruction.round,
            instruction.plan_digest,
            code_digest(),
            self.bucket,
            arrays,
            Progress(0.7, 0.5),
            objective=self.loss,
        )

    def threshold(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        self.seen.append(instruction)
        value = 0.1 + (zlib.crc32(self.name.encode()) % 80) / 100
        return SiteMetrics(self.name, instruction.run, instruction.round, code_digest(), threshold=value)

    def evaluate(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        self.seen.append(instruction)
        group = GroupMetrics("all", "all", 40, 60, auroc=Estimate(0.8, 0.7, 0.9))
        model = ModelMetrics("federated", (group,), instruction.threshold or 0.0)
        return SiteMetrics(self.name, instruction.run, instruction.round, code_digest(), models=(model,))


def target_of(site: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The point a toy hospital trains towards."""
    seed = zlib.crc32(f"{site}/{name}".encode())
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def toy_service(folder: Path, name: str, bucket: int = 100, duties=None) -> SiteService:
    """A toy hospital with a real site folder and a real service around it."""
    site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
    return SiteService(site, duties or ToyDuties(site.name, bucket))
