"""Who shares masks and shares with whom: everybody up to 20 hospitals, a random ring of neighbours beyond.

Beyond 20, hospitals are put on a ring in an order drawn from the digest of everybody's keys, and each is joined
with the k/2 nearest on either side: the graph of Harary (1962), in which k sites must go before it falls apart,
randomly labelled as in Bell et al. 2020, section 3. A hospital's secrets are shared among itself and its k
neighbours; `threshold` of these open them.

What a lying server could gain by its choice of drop-outs is not left to chance: it sees the graph, so it could
declare those dead that surround one hospital. Each site therefore holds the list it is asked to consent to
against the graph (`in_one_piece`), with as many colluding sites taken away as the global threshold t withstands,
c = 2t - n - 1, and refuses. What is left to chance, with n hospitals of which n - t vanish:

    secrecy    some hospital has `threshold` colluding holders. Those who collude, c or a tenth of all, are fixed
               before the order is drawn: hypergeometric, times n; at most 2^-60, of which 2^-20 is for a server that
               draws again by leaving sites out of the group.
    success    some hospital has fewer than `threshold` holders left, or the list does not hold together when those
               who vanish are not chosen: hypergeometric, times n, and pairs of runs; at most 2^-20. Then the round is
               given up; nothing is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Final

from common.secagg.labels import packed

FULL: Final = 20
"""Up to so many hospitals everybody is everybody's neighbour (facts of this project; Bell et al. gain nothing here)."""
SECRECY: Final = 2.0**-60
SUCCESS: Final = 2.0**-20


@dataclass(frozen=True)
class Neighbourhood:
    """How large a neighbourhood is, and what of it opens a secret, with the probability that each fails."""

    size: int
    """k: neighbours of a hospital."""
    threshold: int
    """Of the k + 1 holders, the hospital itself among them."""
    secrecy: float = 0.0
    success: float = 0.0


def withstood(members: int, threshold: int) -> int:
    """How many sites may tell a lying server all they know: two lists would need 2t consents of n + c."""
    return max(2 * threshold - members - 1, 0)


@cache
def neighbourhood(parties: int, threshold: int, colluding: int) -> Neighbourhood:
    """The smallest neighbourhood that holds its promises; everybody where none does, or with at most 20.

    Args:
        parties: hospitals in the group.
        threshold: hospitals that must remain, of the group.
        colluding: hospitals that may tell a lying server all they know; with a server that follows the protocol
            at least a tenth of the group may.
    """
    everybody = Neighbourhood(parties - 1, threshold)
    if parties <= FULL:
        return everybody
    gone, curious = parties - threshold, max(colluding, parties // 10)
    for size in range(2, parties - 1, 2):
        apart = _apart(parties, size, gone, colluding)
        lost = _tails(parties, gone, size + 1)
        allowed = (k for k, chance in enumerate(lost) if parties * chance + apart <= SUCCESS)
        # The round fails where `missing` holders are gone, so that `size + 2 - missing` are needed of them.
        missing = next(allowed, None)
        needed = 0 if missing is None else size + 2 - missing
        if missing is None or needed < 2:
            continue
        found = _tails(parties, curious, size + 1)[needed] * parties
        if found <= SECRECY:
            return Neighbourhood(size, needed, found, parties * lost[missing] + apart)
    return everybody


@dataclass(frozen=True)
class Graph:
    """The neighbours of a round."""

    ring: tuple[str, ...]
    """All sites in the order of the ring."""
    rule: Neighbourhood

    @classmethod
    def of(cls, sites: Collection[str], rule: Neighbourhood, group: bytes) -> Graph:
        """Drawn from the digest of the group, so that everybody draws the same."""
        order = sorted(sites, key=lambda site: hashlib.sha256(packed("ring", group.hex(), site)).digest())
        return cls(tuple(order), rule)

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.rule.size >= len(self.ring) - 1

    def neighbours(self, site: str) -> tuple[str, ...]:
        """Those with whom a site shares masks; sorted."""
        if self.complete:
            return tuple(sorted(other for other in self.ring if other != site))
        at, size = self.ring.index(site), len(self.ring)
        half = range(1, self.rule.size // 2 + 1)
        found = {self.ring[(at + sign * step) % size] for step in half for sign in (1, -1)}
        return tuple(sorted(found - {site}))

    def holders(self, site: str) -> tuple[str, ...]:
        """Those who hold shares of a site's secrets, itself among them; sorted, numbered from 1 in this order."""
        return tuple(sorted((*self.neighbours(site), site)))

    def in_one_piece(self, alive: Collection[str], colluding: int) -> bool:
        """Whether the living stay joined, whichever `colluding` of them are taken away.

        The ring falls apart only where two gaps of k/2 places each have nobody left, so the two cheapest such gaps
        with somebody between them on both sides must cost more than `colluding`.
        """
        if self.complete:
            return True
        return _cheapest_cut([site in alive for site in self.ring], self.rule.size // 2) > colluding


def _cheapest_cut(living: Sequence[bool], gap: int) -> int:
    """How many of the living must go before those who stay are in two pieces on the ring."""
    size = len(living)
    cost = [sum(living[(at + step) % size] for step in range(gap)) for at in range(size)]
    before = [0]
    for one in (*living, *living):
        before.append(before[-1] + one)
    best = sum(living)
    for first in range(size):
        for second in range(first + gap + 1, first + size - gap):
            # Somebody must live between the gaps on either side, or nothing was cut off.
            inner = before[second] - before[first + gap]
            outer = before[first + size] - before[second + gap]
            if inner and outer:
                best = min(best, cost[first] + cost[second % size])
    return best


def _tails(parties: int, marked: int, drawn: int) -> list[float]:
    """For each k from 0 to drawn + 1 the chance of k or more marked ones among `drawn` of `parties`.

    Exact in integers and divided once, so that every machine finds the same neighbourhood.
    """
    ways = [comb(marked, k) * comb(parties - marked, drawn - k) for k in range(drawn + 1)]
    whole, above, found = comb(parties, drawn), 0, [0.0]
    for way in reversed(ways):
        above += way
        found.append(above / whole)
    return found[::-1]


def _apart(parties: int, size: int, gone: int, colluding: int) -> float:
    """A bound on the chance that `gone` drawn at random, and any `colluding` more, empty two gaps of the ring.

    Two gaps that do not touch are k places, of which all but `colluding` are hit by those who are gone.
    """
    needed = size - colluding
    if needed <= 0:
        return 1.0
    return min(1.0, comb(parties, 2) * _tails(parties, gone, size)[needed])
