"""What an analysis adds to what is said on the wire, imported from `common.messages`: one hospital's own cells."""

from __future__ import annotations

from dataclasses import dataclass

from common.messages_heads import Witness
from common.types import Digest, RunId, SiteName


@dataclass(frozen=True)
class CountTable:
    """Patients by label and by the bins of one axis; the bins' names follow from the schema and are not said."""

    axis: str
    """Of `common.analytics.AXES`."""
    cells: tuple[tuple[int | None, ...], ...]
    """[label][bin]; None where it is held back."""


@dataclass(frozen=True)
class Tally:
    """Answer to ANALYSE of a hospital that shows cells under its own name."""

    site: SiteName
    run: RunId
    round: int
    plan_digest: Digest
    code_digest: Digest
    schema: Digest
    """Of all bins."""
    tables: tuple[CountTable, ...] = ()
    simulated: bool = False
    audit: Witness | None = None
    """The site's word on the audit logs; None where it is not enrolled."""
