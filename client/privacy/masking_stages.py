"""The stages of a masked round, in order, and one question of a stage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from client.membership import Membership
from common import wire
from common.arrays import digest
from common.messages import Instruction, Kind, Secure
from common.plan import Plan

STAGES: Final = (Kind.KEYS, Kind.SHARES, Kind.TRAIN, Kind.CONSENT, Kind.UNMASK)
OTHERWISE: Final = {
    Kind.KEYS: ("two-rosters", "the round was begun under other terms"),
    Kind.SHARES: ("two-groups", "other keys were told before"),
    Kind.TRAIN: ("two-groups", "other shares were told before"),
    Kind.ANALYSE: ("two-groups", "other shares were told before"),
    Kind.CONSENT: ("two-lists", "another list was consented to"),
    Kind.UNMASK: ("two-lists", "shares were given for another list"),
}
"""Code and rule of a second, different question of the same stage."""


def is_stage(instruction: Instruction) -> bool:
    """Whether a question belongs to a masked round; one for cells of one's own does not."""
    return instruction.kind in STAGES or (instruction.kind is Kind.ANALYSE and instruction.secure is not None)


def is_masked(instruction: Instruction, plan: Plan) -> bool:
    """Whether nothing of a training may leave but under masks."""
    return plan.federation.aggregation == "secure" or instruction.secure is not None


def stages_of(plan: Plan) -> tuple[Kind, ...]:
    """The stages of a plan's masked rounds, in order: where others train, an analysis counts."""
    return tuple(Kind.ANALYSE if plan.surveys and kind is Kind.TRAIN else kind for kind in STAGES)


@dataclass(frozen=True)
class Asked:
    """One question of a masked round, and what belongs to it here."""

    instruction: Instruction
    plan: Plan
    secure: Secure
    membership: Membership

    @property
    def digest(self) -> str:
        """Of what the answer depends on; signatures under a list may be others, the list may not."""
        given = replace(self.secure, consents={})
        body = replace(self.instruction, arrays={}, countersignature=None, secure=given, subset=False)
        return hashlib.sha256(wire.pack(body) + digest(self.instruction.arrays).encode()).hexdigest()
