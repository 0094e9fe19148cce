"""Who comes to a run: the survey at its beginning, and who joins later.

A hospital whose node is being started anew just then answers nothing. It is asked again, as long as the plan lets a round
wait, when without it fewer than `least_sites` could train; a run is not given up for the second in which it began.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from common.messages import Kind
from server import exchange
from server.asking import AGAIN
from server.survey import Roster, joined, name_of, roster, until_named
from server.talk import Talk

JOIN_S: Final = 20.0
"""How long a round waits for nodes that came since the last one to say who they are."""
_AGAIN_S: Final = 1.0
"""Before the silent ones are asked again."""


class Attendance:
    """Asks the nodes of one run who they are.

    Args:
        talk: of the run; its deadline is lengthened where one machine plays several hospitals in turn.
        kind: of the question: `SURVEY`, or `PRESENT` where a site shall say no more than its name.
    """

    def __init__(self, talk: Talk, kind: Kind = Kind.SURVEY) -> None:
        self._talk = talk
        self._kind = kind

    def first(self, named: tuple[str, ...], wanted: int) -> Roster:
        """Wait for the nodes and ask them, and again while too few are there and one may only be starting.

        Args:
            named: the sites that are expected; empty where any may come.
            wanted: so many nodes are waited for, or `least_sites` at the deadline; 0: for `least_sites`.

        Raises:
            FederationError: code `no-nodes` when too few nodes are connected at the deadline.
        """
        talk, federation = self._talk, self._talk.plan.federation
        began, wait_s = time.monotonic(), talk.deadline_s + federation.longest_wait_s
        nodes = self._present(wanted, wait_s)
        talk.deadline_s *= talk.options.turns or (len(nodes) if talk.options.virtual else 1)
        sites = self._asked(nodes, 0, named)
        while self._may_be_starting(sites) and (left := began + wait_s - time.monotonic()) > 0:
            time.sleep(_AGAIN_S)
            sites = self._asked(self._present(wanted, left), 0, named)
        return sites

    def joined(self, sites: Roster, round_: int) -> Roster:
        """Take in who came since the last survey: a site that is expected, or one that only tests."""
        talk = self._talk
        new = talk.presence.new(talk.grid.get_node_ids()) if talk.changing else ()
        if not new:
            return sites
        came = self._asked(new, round_, (), min(JOIN_S, talk.deadline_s))
        talk.note("survey.joined", round=round_, sites=len(came.nodes))
        return joined(sites, came)

    def _present(self, wanted: int, wait_s: float) -> list[int]:
        talk, least = self._talk, self._talk.plan.federation.least_sites
        exact = talk.options.nodes
        return exchange.nodes_present(
            talk.grid, exact or wanted or least, wait_s, exact=exact > 0, least=least
        )

    def _may_be_starting(self, sites: Roster) -> bool:
        """Whether fewer can take part than must, and one of those who cannot gave no answer yet."""
        able = sites.training if self._kind is Kind.SURVEY else sites.nodes
        few = len(able) < self._talk.plan.federation.least_sites
        return self._talk.changing and few and not AGAIN.isdisjoint(sites.refused.values())

    def _asked(
        self, nodes: Collection[int], round_: int, named: tuple[str, ...], patience_s: float | None = None
    ) -> Roster:
        """Ask these nodes who they are and what they have; once all who are named answered, no other is waited for.

        A node that was restarted leaves its old number behind for a while, and nobody answers there.
        """
        talk = self._talk
        question = talk.question(self._kind, round_)
        question = replace(question, deadline_s=patience_s or question.deadline_s)
        awaited = named if talk.changing else ()
        answers = list(until_named(exchange.ask(talk.grid, question, dict.fromkeys(nodes, True)), awaited))
        heard = {answer.node for answer in answers}
        whole = bool(awaited) and set(awaited) <= {name_of(answer) for answer in answers}
        sites = roster(answers, heard if whole else nodes, talk.expected(round_), named)
        talk.presence.heard(nodes, heard)
        talk.presence.where.update(sites.nodes)
        for site, code in sites.refused.items():
            talk.note("survey.refused", site=site, code=code)
        for site, theirs in sites.skew.items():
            talk.skew(site, theirs)
        for site, head in sites.heads.items():
            talk.note("head.seen", site=site, **talk.heads.shown(site, head))
        return sites
