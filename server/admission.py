"""May this reply enter the round? Everything a site sends is judged here before it is used.

A reply is refused with one fixed code, in this order: `duplicate`, `site`, `run`, `round`,
`code-mismatch`, `kind`; for an update also `plan-mismatch`, `weight`, `objective`, `bits`, `names`, `dtype`, `shape`,
`not-finite`, `too-large`, `norm`. A refused sender is put aside for the round and the others go on.
A site's own Refusal passes through with the site's code.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from common.arrays import Schema, largest_value, norm, slices
from common.compression import decompress
from common.errors import AdmissionRefused
from common.messages import Consent, Keys, Masked, Opened, Refusal, Shares, SiteMetrics, Tally, Update
from common.tensors import Made
from common.types import Arrays, Digest, RunId, SiteName
from common.wire import Message
from server.records import SiteRound

LEAST_WEIGHT: Final = 1
_REPLIES: Final = (Update, SiteMetrics, Keys, Shares, Masked, Consent, Opened, Tally)
LARGEST_WEIGHT: Final = 1_000_000
LARGEST_LOSS: Final = 17.0
"""Nats: a hospital's own code takes no probability below 1e-7, so no honest loss is larger."""
_BOUND_FACTOR: Final = 3.0
"""Updates of a well-behaved round differ in length by site size and noise; measured in docs/robust-rules.md."""
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
    bits: Literal[8, 16, 32] = 32
    """In which an update has to come."""
    bound: float = math.inf
    """L2 norm to which a longer update is scaled down (`norm_bound`)."""
    told: bool = False
    """Whether the method weights sites by their training losses, which each then has to say."""

    @property
    def total_weight(self) -> int:
        """What all training sites weigh together."""
        return sum(self.weights.values())


@dataclass(frozen=True)
class Admitted:
    """An update that may be folded in, float32, and the L2 norm with which it came."""

    update: Update
    norm: float
    scaled: bool = False
    """Whether it was longer than the bound and is scaled down to it here."""

    @property
    def record(self) -> SiteRound:
        """What the round's record says of it."""
        loss, auroc = self.update.progress.loss, self.update.progress.auroc
        known = self.update.objective
        return SiteRound(self.update.weight, self.norm, loss, auroc, self.update.epsilon, self.scaled, known)


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
        if rules.told and not 0 <= (-1 if reply.objective is None else reply.objective) <= LARGEST_LOSS:
            raise refused(
                site, "objective", "the method needs the site's training loss, in nats, within bounds"
            )
        length = _tensors(site, _decoded(site, reply, rules), rules)
        return Admitted(usable(site, reply, rules, length), length, length > rules.bound)

    def metrics(self, site: SiteName, reply: Message) -> SiteMetrics:
        """Let released metrics of `site` pass; see `update` for the errors."""
        self._envelope(site, reply)
        if not isinstance(reply, SiteMetrics):
            raise refused(site, "kind", "the reply is not metrics")
        return reply

    def masked(self, site: SiteName, reply: Message) -> Message:
        """Let an answer of a masked round pass; what is in it is for `server.masked_gathering` to judge."""
        self._envelope(site, reply)
        return reply

    def _envelope(self, site: SiteName, reply: Message) -> None:
        if site in self._seen:
            raise refused(site, "duplicate", "the site answered this round before")
        self._seen.add(site)
        if isinstance(reply, Refusal):
            raise refused(site, reply.code, "the site said no")
        if not isinstance(reply, _REPLIES):
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


def norm_bound(norms: Sequence[float], most: float) -> float:
    """How long an update may be before it is scaled down: three times the median of the last round's, at most `most`.

    Scaling is what Sun et al., "Can You Really Backdoor Federated Learning?", 2019, section 4, propose; the median of
    what was sent cannot be moved by less than half of the sites. In a first round there is no median yet.
    """
    return min(most, _BOUND_FACTOR * statistics.median(norms)) if norms else most


def usable(site: SiteName, update: Update, rules: UpdateRules, length: float) -> Update:
    """An admitted update as it may be folded in: float32, no longer than the bound; made tensor by tensor.

    Args:
        site: whose it is.
        update: as it came, or as it lies on disk.
        rules: of the round.
        length: L2 norm with which it came.
    """
    arrays = _decoded(site, update, rules)
    if length > rules.bound:
        arrays = _scaled(arrays, np.float32(rules.bound / length))
    return replace(update, arrays=arrays, bits=32)


def _scaled(arrays: Arrays, factor: np.float32) -> Arrays:
    return Made(arrays, lambda name: (arrays[name] * factor).astype(np.float32))


def _decoded(site: SiteName, update: Update, rules: UpdateRules) -> Arrays:
    if update.bits != rules.bits:
        raise refused(site, "bits", "the update is not in the bits the plan asks for")
    if rules.bits == 32:
        return update.arrays
    try:
        return decompress(update.arrays, rules.bits, rules.schema)
    except ValueError as error:
        raise refused(site, str(error), "its compressed tensors are not those of an update") from None


def _tensors(site: SiteName, arrays: Arrays, rules: UpdateRules) -> float:
    if list(arrays) != list(rules.schema):
        raise refused(site, "names", "the tensors are not the model's, in the model's order")
    largest = largest_value(rules.total_weight)
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise refused(site, "dtype", "a tensor is not float32")
        if array.shape != rules.schema[name]:
            raise refused(site, "shape", "a tensor has another shape than the model's")
        flat = array.reshape(-1)
        most = [float(np.max(np.abs(flat[part]))) for part in slices(flat)]
        if not bool(np.all(np.isfinite(most))):
            raise refused(site, "not-finite", "a tensor holds a value that is not finite")
        if max(most, default=0.0) >= largest:
            raise refused(site, "too-large", "a value is too large to be summed exactly")
    size = norm(arrays)
    if size > rules.max_norm:
        raise refused(site, "norm", "the update is longer than the plan allows")
    return size
