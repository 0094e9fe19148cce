"""All duties of one hospital with images."""

from __future__ import annotations

from client.bucket import bucket_of
from client.duties.measuring import Measuring
from client.duties.training import Training
from client.intake.summary import intake_summary
from common.messages import Instruction, IntakeSummary, SiteMetrics
from common.plan import Plan


class ImagingDuties(Training, Measuring):
    """The work of one hospital; keeps its data at hand from one round to the next."""

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Intake figures and the public bucket; preprocesses what is not in the store yet."""
        counts = intake_summary(self._site)
        bucket = bucket_of(self._site, plan, self._data(plan).train.n_patients)
        intake = IntakeSummary(counts.received, counts.accepted, dict(counts.refused), bucket)
        return self._metrics(instruction, intake=intake, head=self._desk.head())
