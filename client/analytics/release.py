"""What of a hospital's own cells may leave; called by the door (`client.coarsen`) and by nobody else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from client.suppression import Least
from common.analytics import GROUPED
from common.cells import coarse
from common.messages import Tally


def released(tally: Tally, least: Least, groups: Collection[str], *, shown: bool) -> Tally:
    """The same record with nothing in it that may not leave (`common.cells`).

    Args:
        tally: exact.
        least: of plan and policy.
        groups: of the policy; an axis of `GROUPED` that is not among them stays.
        shown: whether the policy shows own cells at all.
    """
    kept = [one for one in tally.tables if one.axis not in GROUPED or one.axis in groups]
    return replace(tally, tables=coarse(kept, least.cell, least.floor) if shown else ())
