"""What a hospital with a table does when it is asked: all that one with images does, over rows."""

from __future__ import annotations

from client.bucket import bucket_of
from client.dataset import SiteData
from client.duties import ImagingDuties
from client.site import Site
from common.messages import Instruction, IntakeSummary, SiteMetrics
from common.plan import Plan
from common.types import RunId


class TableDuties(ImagingDuties):
    """Survey, training, threshold and test of one virtual hospital.

    Args:
        site: its folder, for policy, ledger and scores; nothing is read from its index.
        held: its patients.
    """

    def __init__(self, site: Site, held: SiteData) -> None:
        super().__init__(site)
        self._rows = held

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """The public bucket; files were not taken in."""
        bucket = bucket_of(self._site, plan, self._rows.train.n_patients)
        intake = IntakeSummary(None, None, {}, bucket)
        return self._metrics(instruction, intake=intake, head=self._desk.head())

    def _data(self, plan: Plan) -> SiteData:
        del plan
        return self._rows

    def _note_run(self, run: RunId, data: SiteData) -> None:
        """A virtual patient does not withdraw."""
