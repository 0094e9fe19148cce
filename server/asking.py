"""One question to several sites, asked again until each has answered for good or the plan's patience ends.

To ask again is safe: a site gives the same bytes for the same round, and admission lets each site in once. It
is done when nothing but the way between us failed:

1. Flower says that the node, the message or the courier's process was lost.
2. The site says that it is `busy`, or its courier that the service does not answer.
3. The site's node is gone and another has come that says it is this site's (a node that was restarted has a
   new number). Who a new node belongs to is asked with `Kind.PRESENT`, which costs a hospital nothing.
4. The node is idle and has not answered: the reply was lost with a process on its way. A node does one thing at
   a time, so a `PRESENT` that it answers says that nothing else of ours is before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flwr.serverapp import Grid

from common.messages import Refusal, SiteMetrics
from common.types import SiteName
from server.exchange import CRASHED, NO_REPLY, Answer, Question, answer_in, pause, push, takes_maps

AGAIN: Final = frozenset((NO_REPLY, CRASHED, "busy", "no-service", "socket"))
"""Codes that are no answer yet."""
_FIRST_AGAIN_S: Final = 1.0
_LONGEST_AGAIN_S: Final = 15.0
_LOOK_S: Final = 1.0
"""How often we look whether nodes came or went."""
_PROBE_S: Final = 12.0
"""After so long without an answer a node is asked whether it is idle."""
_PROBE_TTL_S: Final = 60.0
"""So long that question is worth, its way and a courier's start on a busy machine included; no second one meanwhile."""
_GRACE_S: Final = 1.0
_NOWHERE: Final = -1
"""The node of a site that has none."""


@dataclass(frozen=True)
class Patience:
    """How long a question waits, and for how many."""

    deadline_s: float
    least: int = 0
    """With fewer than these admitted at the deadline, `longest_wait_s` more is waited for them."""
    longest_wait_s: float = 0.0
    quorum: int = 0
    """With so many admitted the others have `grace_s` more; 0: they have the whole deadline."""
    grace_s: float = 0.0

    def ends(self, admitted: int, quorum_at_s: float | None) -> float:
        """The second after which nobody is waited for any more."""
        end = self.deadline_s
        if admitted < self.least:
            end += self.longest_wait_s
        if quorum_at_s is not None:
            end = min(end, quorum_at_s + self.grace_s)
        return end


@dataclass
class Presence:
    """Which node speaks for which site, as far as is known; kept for the whole run."""

    where: dict[SiteName, int] = field(default_factory=dict)
    surveyed: set[int] = field(default_factory=set)
    """Nodes that were asked in a survey, or said that they speak for a site of this run."""
    newcomers: set[int] = field(default_factory=set)
    """Nodes of sites that were not there when the run began; for the next round's survey."""
    mute: set[int] = field(default_factory=set)
    """Nodes that a survey heard nothing of; asked in no other until they show themselves."""

    def knows(self, node: int) -> bool:
        """Whether a node was asked who it is."""
        return node in self.surveyed or node in self.newcomers

    def new(self, there: Iterable[int]) -> list[int]:
        """Of the nodes that are there, those to ask in a survey."""
        return sorted(
            node for node in set(there) - self.surveyed if node in self.newcomers or node not in self.mute
        )

    def heard(self, asked: Iterable[int], answered: Iterable[int]) -> None:
        """A survey asked these nodes, and these answered."""
        self.surveyed |= set(answered)
        self.newcomers -= set(asked)
        self.mute |= set(asked) - self.surveyed


@dataclass
class _Pending:
    node: int
    numbers: list[str]
    asked_s: float
    most_bytes: int
    again_s: float | None = None
    pause_s: float = _FIRST_AGAIN_S
    code: str = NO_REPLY
    patient: bool = True


class Asking:
    """One question on its way; iterate over `answers` once.

    Args:
        grid: where nodes are reached.
        question: for one site, with what belongs to that site only.
        presence: which node speaks for which site; brought up to date while we wait.
        who: the question by which a new node says whose it is; None: nodes never change (in-process).
    """

    def __init__(
        self,
        grid: Grid,
        question: Callable[[SiteName, int], Question],
        presence: Presence,
        who: Question | None = None,
    ) -> None:
        self._grid = grid
        self._question = question
        self._presence = presence
        self._who = who
        self._began = time.monotonic()
        self._looked_s = 0.0
        self._pending: dict[SiteName, _Pending] = {}
        self._probes: dict[str, int] = {}
        self._lapses: dict[int, float] = {}

    def answers(
        self, sites: Mapping[SiteName, bool], patience: Patience, admitted: Callable[[], int]
    ) -> Iterator[tuple[SiteName, Answer]]:
        """Each site's answer when it comes; a site that never answered is given at the end with its last code.

        Args:
            sites: whom to ask, and whether each is worth the whole deadline; one that was silent before gets,
                once the others have answered, only as long again and a second.
            patience: of the plan.
            admitted: how many answers were let in so far.
        """
        self._ask_all(sites)
        quorum_at: float | None = None
        shortest: float | None = None
        while self._pending:
            came = False
            for site, answer in self._arrived():
                came = True
                yield site, answer
            now = self._now()
            if patience.quorum and quorum_at is None and admitted() >= patience.quorum:
                quorum_at = now
            if shortest is None and not any(p.patient for p in self._pending.values()):
                shortest = 2 * now + _GRACE_S
            end = patience.ends(admitted(), quorum_at)
            if now >= end or (shortest is not None and now >= shortest and admitted() >= patience.least):
                break
            self._look(now)
            self._again(now)
            if not came:
                time.sleep(pause(now))
        for site, pending in self._pending.items():
            if pending.code != NO_REPLY:
                yield site, Answer(pending.node, None, pending.code, 0)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _ask_all(self, sites: Mapping[SiteName, bool]) -> None:
        for site, patient in sites.items():
            if site in self._presence.where:
                self._ask(site, patient=patient)
            elif self._who is not None:
                # Nobody speaks for it since the run was resumed; if somebody comes in time, it is asked.
                self._pending[site] = _Pending(_NOWHERE, [], self._now(), 0, patient=False)

    def _ask(self, site: SiteName, *, patient: bool = True) -> None:
        node = self._presence.where[site]
        question = self._question(site, node)
        number = push(self._grid, question, node)
        before = self._pending.get(site)
        if before is None:
            self._pending[site] = _Pending(node, [number], self._now(), question.most_bytes, patient=patient)
            return
        before.node, before.again_s, before.asked_s = node, None, self._now()
        before.numbers.append(number)
        before.most_bytes = question.most_bytes

    def _arrived(self) -> Iterator[tuple[SiteName, Answer]]:
        """In one look where the grid leaves replies on disk; else one at a time, so that no two updates are held."""
        asked = {number: (site, its) for site, its in self._pending.items() for number in its.numbers}
        looks = [list(asked)] if takes_maps(self._grid) else [[number] for number in asked]
        for numbers in looks:
            for reply in self._grid.pull_messages(numbers):
                number = reply.metadata.reply_to_message_id if len(numbers) > 1 else numbers[0]
                if number not in asked:
                    continue
                site, pending = asked[number]
                answer = answer_in(pending.node, reply, pending.most_bytes)
                if self._is_final(pending, number, answer):
                    self._pending.pop(site, None)
                    yield site, answer

    def _is_final(self, pending: _Pending, number: str, answer: Answer) -> bool:
        """Whether this is an answer; where not, when to ask again is noted."""
        code = answer.message.code if isinstance(answer.message, Refusal) else answer.code
        if self._who is None or code not in AGAIN:
            return True
        if number in pending.numbers:
            pending.numbers.remove(number)
        pending.code = code
        pending.again_s = self._now() + pending.pause_s
        pending.pause_s = min(pending.pause_s * 2, _LONGEST_AGAIN_S)
        return False

    def _again(self, now: float) -> None:
        for site, pending in self._pending.items():
            if pending.again_s is not None and now >= pending.again_s:
                self._ask(site)

    def _look(self, now: float) -> None:
        """Who came, who is idle and has not answered."""
        if self._who is None or now - self._looked_s < _LOOK_S:
            return
        self._looked_s = now
        there = set(self._grid.get_node_ids())
        for node in there:
            if not self._presence.knows(node) and now >= self._lapses.get(node, 0.0):
                self._probe(node, now)
        for pending in self._pending.values():
            if pending.node not in there:
                # It is not asked again where it was; whoever comes for the site is.
                pending.again_s = None
            elif not pending.numbers and pending.again_s is None:
                pending.again_s = now
            elif now - pending.asked_s >= _PROBE_S and now >= self._lapses.get(pending.node, 0.0):
                self._probe(pending.node, now)
        self._heard()

    def _probe(self, node: int, now: float) -> None:
        if self._who is None:
            return
        self._lapses[node] = now + _PROBE_TTL_S
        self._probes[push(self._grid, self._who, node, _PROBE_TTL_S)] = node

    def _heard(self) -> None:
        """Read who said that it is there."""
        if self._who is None:
            return
        for number, node in list(self._probes.items()):
            for reply in self._grid.pull_messages([number]):
                self._probes.pop(number, None)
                self._lapses[node] = self._now() + _PROBE_S
                answer = answer_in(node, reply, self._who.most_bytes)
                if isinstance(answer.message, SiteMetrics):
                    self._found(answer.message.site, node)
                elif answer.code not in AGAIN and not self._presence.knows(node):
                    self._presence.newcomers.add(node)

    def _found(self, site: SiteName, node: int) -> None:
        if site not in self._presence.where and site not in self._pending:
            self._presence.newcomers.add(node)
            return
        self._presence.where[site] = node
        self._presence.surveyed.add(node)
        if site in self._pending:
            self._ask(site)


def who_question(question: Question) -> Question:
    """A question of `Kind.PRESENT` that lapses as a probe does."""
    return replace(question, deadline_s=_PROBE_TTL_S)
