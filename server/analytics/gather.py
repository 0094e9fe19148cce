"""The counts of an analysis as the server gets them: cells that hospitals show, and one masked sum of all the others.

What the server learns of a sum, exact or noisy, is the vector alone; what is written down of an exact one has passed the rules for
small cells (`common.cells`). Until then it is in memory only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from common import analytics
from common.analytics import Counts, Schema
from common.arrays import digest
from common.cells import coarse, exact_tables
from common.errors import AdmissionRefused, FederationError
from common.messages import CountTable, Kind, Tally
from common.roster import Roster as Members
from common.secagg.coding import Coding, Head
from common.types import SiteName
from server.admission import Admission, refused
from server.analytics.records import Cells, Part
from server.exchange import NO_REPLY
from server.masked_gathering import MaskedRound
from server.masked_journal import MaskedJournal
from server.masked_stage import Stages
from server.survey import Roster
from server.talk import Talk, message_of
from server.unmasking import MaskedSum, terms_for

ROUND: Final = 1
"""An analysis has one round."""


@dataclass(frozen=True)
class Summed:
    """A sum that was opened, and who is in it."""

    sites: tuple[str, ...]
    counts: Counts
    refused: dict[str, str]
    parties: int
    """Who was asked."""
    threshold: int


def own_cells(
    talk: Talk, schema: Schema, sites: Mapping[SiteName, int]
) -> tuple[tuple[Part, ...], dict[str, str]]:
    """The cells of hospitals that show them, and the codes of those who do not.

    Args:
        talk: of the run.
        schema: what the plan counts.
        sites: whom to ask.
    """
    desk = Admission(talk.expected(ROUND))
    codes = {str(site): NO_REPLY for site in sites}
    parts = []
    if not sites:
        return (), {}
    for site, answer in talk.ask(talk.question(Kind.ANALYSE, ROUND), sites):
        try:
            reply = desk.masked(site, message_of(site, answer))
            parts.append(Part((str(site),), _checked(site, reply, schema, talk.plan.digest)))
        except AdmissionRefused as error:
            if error.code != "duplicate":
                codes[str(site)] = error.code
            talk.note("analysis.refused", site=site, code=error.code)
            continue
        talk.note("analysis.admitted", site=site)
        del codes[str(site)]
    return tuple(sorted(parts, key=lambda part: part.sites)), codes


def summed_cells(talk: Talk, schema: Schema, sites: Roster, members: Members) -> Summed:
    """The sum over the others, opened.

    Args:
        talk: of the run.
        schema: what the plan counts.
        sites: those of the sum, each weighing 1.
        members: the newest roster; the sites have accepted the same.

    Raises:
        SubsetError: fewer than the threshold are left; nothing was opened.
        FederationError: `secagg-…` where it cannot be opened as it was promised.
    """
    model = digest({})
    journal = MaskedJournal(talk.journal.under_way, f"{talk.run} {ROUND} {model}")
    codes = {str(site): NO_REPLY for site in sites.expected}
    stages = Stages(talk, journal, ROUND, codes)
    names = tuple(str(site) for site in sites.expected)
    coding = Coding(analytics.BITS, 1.0, 1, len(names))
    least = max(analytics.LEAST, talk.plan.federation.least_sites)
    terms = journal.terms(terms_for(members, names, least, coding, schema.size))
    round_ = MaskedRound(stages, MaskedSum(terms), members, sites, model, Kind.ANALYSE)
    ending = round_.trained(round_.group(), {})
    round_.opened(ending)
    if Head.decode(round_.total.head).weight != len(ending.alive):
        raise FederationError(
            "the masked sum",
            "not every site in it is there once",
            "A site sent what it should not have; compare the sites' logs",
            code="secagg-weight",
        )
    talk.note("sum.opened", round=ROUND, sites=len(ending.alive), count=len(ending.dead))
    out = {site: code for site, code in codes.items() if site not in ending.alive}
    counts = analytics.decoded(round_.total.values)
    return Summed(tuple(ending.alive), counts, out, len(names), terms.threshold)


def written(schema: Schema, summed: Summed, min_cell: int, *, noisy: bool) -> Part:
    """What is written down of a sum: with noise all of it, none below 0; else without its small cells."""
    counts = np.maximum(summed.counts, 0) if noisy else summed.counts
    tables = exact_tables(schema, counts)
    if not noisy:
        tables = coarse(tables, min_cell, min_cell)
    return Part(summed.sites, {one.axis: one.cells for one in tables}, noisy)


def _checked(site: SiteName, reply: object, schema: Schema, plan: str) -> dict[str, Cells]:
    if not isinstance(reply, Tally):
        raise refused(site, "kind", "the reply is no tally")
    if reply.plan_digest != plan:
        raise refused(site, "plan-mismatch", "the tally is for another plan")
    if reply.schema != schema.digest:
        raise refused(site, "schema", "its bins are not the plan's")
    names = [one.axis for one in reply.tables]
    known = {axis.name for axis in schema.axes}
    if not set(names) <= known or len(set(names)) < len(names) or not names:
        raise refused(site, "names", "its tables are not the plan's")
    for one in reply.tables:
        if not _shaped(one, len(schema.labels), len(schema.axis(one.axis).bins)):
            raise refused(site, "shape", "a table has other cells than the plan's")
    return {one.axis: one.cells for one in reply.tables}


def _shaped(one: CountTable, labels: int, bins: int) -> bool:
    cells: Collection[int | None] = [cell for row in one.cells for cell in row]
    small = all(cell is None or 0 <= cell < 2**31 for cell in cells)
    return small and len(one.cells) == labels and all(len(row) == bins for row in one.cells)
