"""How one round's updates come together: the port behind which plain and masked gathering stand.

A `Gathering` asks the training sites one question and gives the weighted sum of what they learned, with who is
in it and who is not and why. It may speak with the sites as often as it needs (`server.talk`); it never
advances a round, which `server.rounds` does with what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.arrays import Schema
from common.errors import AdmissionRefused
from common.plan import Plan
from common.types import SiteName
from server.admission import Admission, UpdateRules, norm_bound
from server.exchange import NO_REPLY, Question
from server.records import SiteRound
from server.strategies import State, Strategy
from server.survey import Roster
from server.talk import Talk, message_of


@dataclass(frozen=True)
class Gathered:
    """What the sites' answers of one round came to."""

    state: State
    """The strategy's own."""
    sites: dict[str, SiteRound]
    """Whose updates are in the sum."""
    refused: dict[str, str]
    """Every other expected site and the code of why."""
    bytes_up: int


class Gathering(Protocol):
    """One way in which the updates of a round come together."""

    def gather(self, question: Question, schema: Schema, sites: Roster) -> Gathered:
        """Ask the training sites and sum what is admitted, exactly.

        Args:
            question: the round's, made by `Talk.question`; `question.step` is the round.
            schema: name and shape of every tensor an update must have, float32.
            sites: who is there, with their public buckets.

        Raises:
            ConsiliumError: when nothing can be gathered; too few sites are for the caller to judge.
        """


def rules_for(plan: Plan, schema: Schema, sites: Roster, norms: tuple[float, ...]) -> UpdateRules:
    """What an update of this round must look like, and how long it may be before it is scaled down."""
    of = plan.federation
    bound = norm_bound(norms, of.max_update_norm) if of.robust == "norm-bound" else of.max_update_norm
    return UpdateRules(plan.digest, schema, sites.weights, of.max_update_norm, of.update_bits, bound)


class Visible:
    """Each update is seen, judged, folded in as it arrives, and forgotten."""

    def __init__(self, talk: Talk, strategy: Strategy) -> None:
        self._talk = talk
        self._strategy = strategy

    def gather(self, question: Question, schema: Schema, sites: Roster) -> Gathered:
        """See `Gathering.gather`; whoever is not in by the end is refused with a code."""
        plan = self._talk.plan
        rules = rules_for(plan, schema, sites, self._talk.norms)
        desk = Admission(self._talk.expected(question.step))
        state = self._strategy.init(schema, rules.total_weight)
        into: dict[str, SiteRound] = {}
        refused = {str(site): NO_REPLY for site in sites.expected}
        up = 0
        for site, answer in self._talk.ask(question, sites.training):
            up += answer.bytes
            try:
                admitted = desk.update(site, message_of(site, answer), rules)
            except AdmissionRefused as error:
                self._turn_away(refused, site, error.code)
                continue
            update = admitted.update
            state = self._strategy.fold(state, update.arrays, update.weight)
            into[site] = admitted.record
            del refused[site]
            seen = self._talk.heads.proven(site, update.head)
            self._talk.note("update.admitted", site=site, round=update.round, weight=update.weight, **seen)
            self._talk.options.observer(update.round, site)
        return Gathered(state, into, refused, up)

    def _turn_away(self, refused: dict[str, str], site: SiteName, code: str) -> None:
        # A second reply does not undo the first, which may already be in the sum.
        if code != "duplicate":
            refused[site] = code
        self._talk.note("update.refused", site=site, code=code)
