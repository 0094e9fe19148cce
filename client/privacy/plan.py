"""One frozen object in which sampling, clipping, noise and accounting agree.

Nothing can be accounted that was not run, because both read the same fields; and nothing here was
computed from patients: every field comes from the study plan or from the hospital's public bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

from common import accounting
from common.accounting import DpEventSpec
from common.errors import PrivacyRefused
from common.plan import Plan


@dataclass(frozen=True)
class DpPlan:
    """How one hospital trains under patient-level differential privacy."""

    sampling_rate: float
    """q: each patient enters a step independently with this probability."""
    clip: float
    """C: the largest L2 norm of one patient's contribution to a step."""
    noise_multiplier: float
    """sigma: the standard deviation of the noise in units of C."""
    images_per_patient: int
    """K: up to this many images or augmented views of a patient are averaged into their contribution."""
    expected_batch: float
    """q times the public bucket of training patients: the divisor of every step."""
    steps_per_round: int
    delta: float
    rounds: int
    """Rounds the noise was calibrated for, spare ones included."""

    @classmethod
    def from_plan(cls, plan: Plan, bucket: int) -> DpPlan:
        """Calibrate the noise so that all rounds, spare ones included, stay within the plan's epsilon.

        Args:
            plan: a study plan with privacy.mode = 'patient-dp'.
            bucket: the hospital's public, coarse number of training patients.

        Raises:
            PrivacyRefused: `not-private` for a plan without privacy, `bucket` for an empty bucket,
                `accounting-*` when no noise is enough.
        """
        privacy = plan.privacy
        if not plan.private:
            raise PrivacyRefused(
                f"plan {plan.study.name}", "asks for no privacy", "Train without a DpPlan", code="not-private"
            )
        if bucket < 1:
            raise PrivacyRefused(
                "site.patients_bucket",
                "the public number of training patients is at least 1",
                "Ingest first, or set site.patients_bucket in site.toml",
                code="bucket",
            )
        rounds = plan.federation.rounds + privacy.spare_rounds
        steps = rounds * privacy.steps_per_round
        return cls(
            sampling_rate=privacy.sampling_rate,
            clip=privacy.clip,
            noise_multiplier=accounting.calibrate(
                privacy.epsilon, privacy.delta, privacy.sampling_rate, steps
            ),
            images_per_patient=plan.training.images_per_patient,
            expected_batch=privacy.sampling_rate * bucket,
            steps_per_round=privacy.steps_per_round,
            delta=privacy.delta,
            rounds=rounds,
        )

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of a step's sum, before the division."""
        return self.noise_multiplier * self.clip

    @property
    def round_event(self) -> DpEventSpec:
        """What one round does to every patient of the cohort: what the ledger charges."""
        return DpEventSpec(self.sampling_rate, self.noise_multiplier, self.steps_per_round)

    @property
    def epsilon(self) -> float:
        """Epsilon at `delta` of all rounds together; at most the plan's."""
        return accounting.epsilon(
            self.sampling_rate, self.noise_multiplier, self.rounds * self.steps_per_round, self.delta
        )
