"""The only things said on the wire: Instruction, Update, Refusal, SiteMetrics, and what masked rounds add to them.

`client/egress` lets nothing else out of a hospital, `server/admission` lets nothing else in. Counts
are of patients unless said otherwise; `None` where a count or a metric was suppressed because its
cell is smaller than the plan's and the policy's minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from common.messages_analytics import CountTable, Tally
from common.messages_heads import Countersignature, LedgerHead, LogHead, Witness
from common.messages_masked import (
    Consent,
    Dealt,
    Keys,
    Masked,
    Opened,
    Secure,
    Shares,
    SignedKeys,
    Terms,
)
from common.types import Arrays, Digest, RunId, SiteName


class Kind(StrEnum):
    """What an Instruction asks for."""

    SURVEY = "survey"
    """What the hospital has: intake figures. No training, no privacy cost."""
    PRESENT = "present"
    """Say which site this is, and nothing else; how a node that was restarted is known again."""
    TRAIN = "train"
    """Validate the incoming model, train it, return an Update."""
    THRESHOLD = "threshold"
    """Say at which score the incoming model separates the hospital's validation patients best."""
    EVALUATE = "evaluate"
    """Measure the incoming model on the hospital's test patients at the shared threshold."""
    ANALYSE = "analyse"
    """Count the patients, under a plan that is an analysis: one's own cells, or into a masked sum."""
    KEYS = "keys"
    """Secure aggregation: make this round's keys and sign them."""
    SHARES = "shares"
    """Secure aggregation: share out what opens the masks, under seal."""
    CONSENT = "consent"
    """Secure aggregation: sign who answered and who vanished."""
    UNMASK = "unmask"
    """Secure aggregation: give the shares that open the sum, and no others."""


@dataclass(frozen=True)
class SiteHealth:
    """What a hospital says of its machine, coarse: nothing of a patient, nothing that names a device."""

    version: str
    """Of the installed release."""
    disk_free_gb: int
    """Under its data folder, rounded down to 1, 2 or 5 times a power of ten."""
    gpus: int
    """Devices of NVIDIA's driver, at most 16."""


@dataclass(frozen=True)
class Instruction:
    """What the server asks of one site in one round."""

    kind: Kind
    run: RunId
    round: int
    """1-based; 0 for a survey before training."""
    plan_toml: str
    plan_digest: Digest
    code_digest: Digest
    """Digest of the sender's common, client and server code; the receiver compares its own."""
    arrays: Arrays
    """The global model's trainable tensors, float32; empty for a survey."""
    threshold: float | None = None
    """The shared operating point, for EVALUATE only."""
    subset: bool = False
    countersignature: Countersignature | None = None
    """Of the newest ledger head the server has seen of this site; None on first contact."""
    secure: Secure | None = None
    """Of a plan with `federation.aggregation = "secure"`, but for survey, threshold and evaluation."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval. Units: those of the metric, in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationBin:
    """Patients whose score fell in one tenth of [0, 1]; released only above the minimum cell."""

    mean_score: float
    observed: float
    patients: int


@dataclass(frozen=True)
class GroupMetrics:
    """Released test metrics of one group of patients at one hospital."""

    group: str
    """`all`, `manufacturer`, `projection`, `sex` or `age`."""
    level: str
    """The value of the group, e.g. `AP`; `all` for the whole."""
    positives: int | None
    negatives: int | None
    auroc: Estimate | None = None
    auprc: Estimate | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    precision: Estimate | None = None
    f1: Estimate | None = None
    ece: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The same test patients under two models: `metric(model) - metric(other)`, paired."""

    model: str
    other: str
    metric: str
    difference: Estimate


@dataclass(frozen=True)
class IntakeSummary:
    """What the hospital received, in files, coarsened: small counts are None."""

    received: int | None
    accepted: int | None
    refused: dict[str, int | None]
    """Reason code to number of files."""
    patients_bucket: int
    """The hospital's declared public bucket of training patients; never the exact count."""


@dataclass(frozen=True)
class Progress:
    """How the incoming model did on the hospital's validation patients; suppressed like a test."""

    loss: float | None
    auroc: float | None


@dataclass(frozen=True)
class ModelMetrics:
    """Released test metrics of one model at one hospital."""

    model: str
    """`federated`, `personalised`, `alone` or `pooled`."""
    groups: tuple[GroupMetrics, ...]
    threshold: float
    """The score at and above which a patient counts as positive in these figures."""


@dataclass(frozen=True)
class SiteMetrics:
    """Everything a hospital says about models and intake; never a patient, never a small cell."""

    site: SiteName
    run: RunId
    round: int
    code_digest: Digest
    models: tuple[ModelMetrics, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    intake: IntakeSummary | None = None
    threshold: float | None = None
    """Where this hospital's validation patients are best separated (Youden's J), to 0.001."""
    worse: bool | None = None
    """After masked rounds: whether the final model does worse on them than the one the last round began with."""
    epsilon: float | None = None
    """Spent so far by the worst patient of the training cohort; None without a private plan."""
    simulated: bool = False
    head: LedgerHead | None = None
    """Of the site's ledger when it answered, for the server to countersign."""
    audit: Witness | None = None
    """The site's word on the audit logs; None where it is not enrolled."""
    health: SiteHealth | None = None
    """In a survey of an enrolled site only."""


@dataclass(frozen=True)
class Update:
    """What one site learned in one round: `trained - incoming`, per trainable tensor, float32."""

    site: SiteName
    run: RunId
    round: int
    plan_digest: Digest
    code_digest: Digest
    weight: int
    """The hospital's public bucket of training patients."""
    arrays: Arrays
    """float32; with `bits` below 32 as `common.compression` codes them."""
    progress: Progress = field(default_factory=lambda: Progress(None, None))
    """Of the incoming model, before training."""
    epsilon: float | None = None
    simulated: bool = False
    head: LedgerHead | None = None
    """Of the site's ledger after this round was charged, for the server to countersign."""
    audit: Witness | None = None
    """The site's word on the audit logs; None where it is not enrolled."""
    bits: int = 32
    """Of one value on the wire: 32, 16 or 8."""
    objective: float | None = None
    """Training loss of the incoming model in nats, to 0.001; of plans without privacy whose method weights by it."""


@dataclass(frozen=True)
class Refusal:
    """A typed no. `code` is from the error tree; there is no text, because text leaks."""

    site: SiteName
    run: RunId
    round: int
    code: str
    code_digest: Digest


Reply = Update | SiteMetrics | Refusal | Keys | Shares | Masked | Consent | Opened | Tally

__all__ = [
    "CalibrationBin",
    "Comparison",
    "Consent",
    "CountTable",
    "Countersignature",
    "Dealt",
    "Estimate",
    "GroupMetrics",
    "Instruction",
    "IntakeSummary",
    "Keys",
    "Kind",
    "LedgerHead",
    "LogHead",
    "Masked",
    "ModelMetrics",
    "Opened",
    "Progress",
    "Refusal",
    "Reply",
    "Secure",
    "Shares",
    "SignedKeys",
    "SiteHealth",
    "SiteMetrics",
    "Tally",
    "Terms",
    "Update",
    "Witness",
]
