"""May this reply enter the round? Everything a site sends is judged here before it is used.

A reply is refused with one fixed code, in this order: `duplicate`, `site`, `run`, `round`,
`code-mismatch`, `kind`; for an update also `plan-mismatch`, `weight`, `names`, `dtype`, `shape`,
`not-finite`, `too-large`, `norm`. A refused sender is put aside for the round and the others go on.
A site's own Refusal passes through with the site's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.arrays import Schema, largest_value, norm
from common.errors import AdmissionRefused
from common.messages import Refusal, SiteMetrics, Update
from common.types import Digest, RunId, SiteName
from common.wire import Message
from server.records import SiteRound

LEAST_WEIGHT: Final = 1
LARGEST_WEIGHT: Final = 1_000_000
_GRID: Final = frozenset((1, 2, 3, 5, 7, 15))
"""A public bucket is one of these times a power of ten (15 x 10^k is 1.5 x 10^(k+1))."""


@dataclass(frozen=True)
class Expected:
    """What every reply of this round has to say about itself."""

    run: RunId
    round: int
    code_digest: Digest


@dataclass(frozen=True)
class UpdateRules:
    """What an update of this run must look like."""

    plan_digest: Digest
    schema: Schema
    weights: Mapping[SiteName, int]
    """Each training site's bucket, as it declared it in the survey."""
    max_norm: float

    @property
    def total_weight(self) -> int:
        """What all training sites weigh together."""
        return sum(self.weights.values())


@dataclass(frozen=True)
class Admitted:
    """An update that may be folded in, and its L2 norm."""

    update: Update
    norm: float

    @property
    def record(self) -> SiteRound:
        """What the round's record says of it."""
        loss, auroc = self.update.progress.loss, self.update.progress.auroc
        return SiteRound(self.update.weight, self.norm, loss, auroc, self.update.epsilon)


class Admission:
    """The desk of one round: each site may pass once."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._seen: set[SiteName] = set()

    def update(self, site: SiteName, reply: Message, rules: UpdateRules) -> Admitted:
        """Let an update of `site` pass.

        Raises:
            AdmissionRefused: with the code of the first rule broken, or the site's own.
        """
        self._envelope(site, reply)
        if not isinstance(reply, Update):
            raise refused(site, "kind", "the reply is not an update")
        if reply.plan_digest != rules.plan_digest:
            raise refused(site, "plan-mismatch", "the update is for another plan")
        if reply.weight != rules.weights.get(site) or not weight_is_public(reply.weight):
            raise refused(site, "weight", "the weight is not the bucket the site declared")
        return Admitted(reply, _tensors(site, reply, rules))

    def metrics(self, site: SiteName, reply: Message) -> SiteMetrics:
        """Let released metrics of `site` pass; see `update` for the errors."""
        self._envelope(site, reply)
        if not isinstance(reply, SiteMetrics):
            raise refused(site, "kind", "the reply is not metrics")
        return reply

    def _envelope(self, site: SiteName, reply: Message) -> None:
        if site in self._seen:
            raise refused(site, "duplicate", "the site answered this round before")
        self._seen.add(site)
        if isinstance(reply, Refusal):
            raise refused(site, reply.code, "the site said no")
        if not isinstance(reply, (Update, SiteMetrics)):
            raise refused(site, "kind", "the message is not a reply")
        if reply.site != site:
            raise refused(site, "site", "the reply names another site than the one asked")
        if reply.run != self._expected.run:
            raise refused(site, "run", "the reply is of another run")
        if reply.round != self._expected.round:
            raise refused(site, "round", "the reply is of another round")
        if reply.code_digest != self._expected.code_digest:
            raise refused(site, "code-mismatch", "the site runs other code")


def weight_is_public(weight: int) -> bool:
    """Whether a weight is a bucket of the public grid within its bounds."""
    if not LEAST_WEIGHT <= weight <= LARGEST_WEIGHT:
        return False
    while weight % 10 == 0:
        weight //= 10
    return weight in _GRID


def refused(site: str, code: str, rule: str) -> AdmissionRefused:
    """The refusal of one site's reply."""
    remedy = "The site is put aside for this round; look at its log"
    return AdmissionRefused(f"site {site or 'unknown'}", rule, remedy, code=code)


def _tensors(site: SiteName, update: Update, rules: UpdateRules) -> float:
    if list(update.arrays) != list(rules.schema):
        raise refused(site, "names", "the tensors are not the model's, in the model's order")
    largest = largest_value(rules.total_weight)
    for name, array in update.arrays.items():
        if array.dtype != np.float32:
            raise refused(site, "dtype", "a tensor is not float32")
        if array.shape != rules.schema[name]:
            raise refused(site, "shape", "a tensor has another shape than the model's")
        if not bool(np.all(np.isfinite(array))):
            raise refused(site, "not-finite", "a tensor holds a value that is not finite")
        if array.size and float(np.max(np.abs(array))) >= largest:
            raise refused(site, "too-large", "a value is too large to be summed exactly")
    size = norm(update.arrays)
    if size > rules.max_norm:
        raise refused(site, "norm", "the update is longer than the plan allows")
    return size
