"""What an audit found, as records: the only source of every number on its page."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.messages import Estimate

SCHEMA = "consilium/audit/1"


@dataclass(frozen=True)
class Check:
    """One claim put to the test."""

    name: str
    claim: str
    """What must hold, in words."""
    measured: float
    low: float | None
    """Least value with which the claim holds; None: no lower bound."""
    high: float | None
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Reconstructions:
    """One arm of an attack that gives pictures back."""

    arm: str
    sigma: float | None
    """Noise multiplier; None: no protection at all; 0: clipping alone."""
    epsilon: float | None
    """Claimed for everything the attacker saw; None where the noise is none or too small to be accounted for."""
    images: int
    recovered: int
    """Above 20 dB, and 3 dB better than the public picture most like the original (`likeness.recovered`)."""
    psnr: tuple[float, ...]
    """Of each original, in decibels."""
    ssim: tuple[float, ...]


@dataclass(frozen=True)
class Membership:
    """One arm of membership inference; intervals at 95% over models."""

    arm: str
    attack: str
    """`likelihood-ratio` or `loss`."""
    epsilon: float | None
    models: int
    patients: int
    auc: Estimate
    tpr_at_1_fpr: Estimate
    advantage: Estimate
    """True less false positive rate, where the attacker draws the line before he looks."""
    allowed: float | None
    """The largest advantage that the claimed epsilon and delta allow."""
    ceiling: float | None
    """The largest true positive rate at 1% false positives that the claimed epsilon and delta allow."""


@dataclass(frozen=True)
class SumOf:
    """What an attack makes of the opened sum over some hospitals, of the pictures of one of them."""

    attack: str
    sites: int
    images: int
    """Of the hospital that is attacked."""
    alone: int
    """How many came back under secure aggregation alone."""
    alone_db: float
    """PSNR, mean over images, in decibels."""
    with_dp: int
    """The same where every hospital adds its own noise as well."""
    with_dp_db: float
    sigma: float


@dataclass(frozen=True)
class Canaries:
    """One arm of the one-run audit."""

    arm: str
    claimed: float | None
    """Epsilon at `delta`; None where nothing is claimed."""
    delta: float
    canaries: int
    guesses: int
    correct: int
    lower_bound: float
    """On epsilon, at 95% confidence."""


@dataclass(frozen=True)
class AuditRecord:
    """A whole audit."""

    created: str
    """UTC, ISO 8601."""
    code_digest: str
    seconds: float
    seed: int
    short: bool
    images: str
    """`phantoms`, or `real`."""
    plan_toml: str
    """The plan whose setting is called `the plan's`."""
    checks: tuple[Check, ...]
    imprint: tuple[Reconstructions, ...] = ()
    guess_db: float | None = None
    """What the public picture most like an original reaches without any attack, in decibels, mean over originals."""
    inversion: tuple[Reconstructions, ...] = ()
    membership: tuple[Membership, ...] = ()
    canaries: tuple[Canaries, ...] = ()
    sums: tuple[SumOf, ...] = ()
    """Under secure aggregation: one row for each attack and number of hospitals."""
    left_out: tuple[str, ...] = field(default_factory=tuple)
    """Parts that were not run because the time was up."""
    schema: str = SCHEMA

    @property
    def passed(self) -> bool:
        """Whether every claim held, and every part was run."""
        return bool(self.checks) and all(check.passed for check in self.checks) and not self.left_out
