"""What every duty of a hospital needs: its data, its ledger's desk, the runs it has noted, its answer."""

from __future__ import annotations

from typing import Final

from client.at_hand import AtHand
from client.dataset import SiteData
from client.index import Index
from client.privacy.desk import Desk
from client.site import Site
from client.suppression import Least
from common.accounting import DpEventSpec
from common.code import code_digest
from common.messages import (
    Comparison,
    Instruction,
    IntakeSummary,
    LedgerHead,
    ModelMetrics,
    SiteMetrics,
)
from common.plan import Plan
from common.types import RunId

OPEN_RELEASE: Final = DpEventSpec(sampling_rate=1.0, noise_multiplier=0.0, steps=1)
"""What a release without privacy does to a patient: the ledger counts it as infinite epsilon."""


class Room:
    """One hospital at work.

    Args:
        site: the hospital.
        alone: whether it trains without a federation.
    """

    def __init__(self, site: Site, *, alone: bool = False) -> None:
        self._site = site
        self._alone = alone
        self._desk = Desk(site)
        self._at_hand = AtHand(site)
        self._noted: set[RunId] = set()

    def _data(self, plan: Plan) -> SiteData:
        return self._at_hand.data(plan)

    def _note_run(self, run: RunId, data: SiteData) -> None:
        """Write down whose images a run used, once, before it uses them."""
        if run in self._noted:
            return
        with Index(self._site.index) as index:
            index.record_run(run, [*data.train.pseudonyms, *data.validation.pseudonyms])
        self._noted.add(run)

    def _least(self, plan: Plan) -> Least:
        return Least.of(plan.evaluation.min_cell, self._site.policy.min_cell)

    def _min_cell(self, plan: Plan) -> int:
        return self._least(plan).cell

    def _metrics(
        self,
        instruction: Instruction,
        *,
        models: tuple[ModelMetrics, ...] = (),
        comparisons: tuple[Comparison, ...] = (),
        intake: IntakeSummary | None = None,
        threshold: float | None = None,
        worse: bool | None = None,
        epsilon: float | None = None,
        head: LedgerHead | None = None,
    ) -> SiteMetrics:
        return SiteMetrics(
            site=self._site.name,
            run=instruction.run,
            round=instruction.round,
            code_digest=code_digest(),
            models=models,
            comparisons=comparisons,
            intake=intake,
            threshold=threshold,
            worse=worse,
            epsilon=epsilon,
            simulated=self._site.simulated,
            head=head,
        )
