"""The coordinator's half of secure aggregation: masked updates are added up, and the sum alone is opened.

Pure: what the sites said goes in, what to say next and at last the sum come out. The server is not trusted with
any of this by the sites, which check everything themselves (`client.privacy.masking`); what is checked here keeps
a wrong site from spoiling the round of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Final

import numpy as np

from common.arrays import RESOLUTION_BITS, Schema, Sum
from common.errors import FederationError
from common.messages import Dealt, Opened, SignedKeys, Terms
from common.roster import Roster
from common.secagg import keys as round_keys
from common.secagg import labels, masks, sharing
from common.secagg.coding import HEAD, Coding, Head
from common.secagg.graph import Graph, neighbourhood, withstood
from common.secagg.masks import Vector
from common.types import Arrays, Digest, SiteName

_TRIES: Final = 200
"""Choices of shares that are tried where some of them are wrong; enough for any single wrong holder."""


@dataclass(frozen=True)
class Group:
    """Who takes part in a round, and what follows from their keys."""

    terms: Terms
    context: bytes
    keys: Mapping[SiteName, SignedKeys]
    digest: bytes
    graph: Graph

    @classmethod
    def of(cls, terms: Terms, context: bytes, keys: Collection[SignedKeys]) -> Group:
        """From the keys that were admitted; in any order."""
        ordered = tuple(sorted(keys, key=lambda one: one.site))
        digest = labels.group_of(context, ordered)
        by_site = {one.site: one for one in ordered}
        rule = neighbourhood(len(by_site), terms.threshold, withstood(len(terms.members), terms.threshold))
        return cls(terms, context, by_site, digest, Graph.of(tuple(by_site), rule, digest))

    def well_dealt(self, site: SiteName, dealt: Dealt) -> bool:
        """Whether a site shared out to exactly its neighbours."""
        return set(dealt.sealed) == set(self.graph.holders(site)) - {site}

    def joined(self, alive: Collection[str]) -> bool:
        """Whether the sites would consent to a list with these alive."""
        return self.graph.in_one_piece(alive, withstood(len(self.terms.members), self.terms.threshold))


def terms_for(roster: Roster, members: Collection[str], least: int, coding: Coding, values: int) -> Terms:
    """The terms of a round: everything that its keys are bound to.

    Args:
        roster: the newest, which the sites have accepted.
        members: the sites that should train.
        least: sites without which the plan wants no sum.
        coding: bits, range and heaviest are taken from it.
        values: of one update.
    """
    names = tuple(SiteName(name) for name in sorted(members))
    threshold = max(least, len(names) // 2 + 1)
    return Terms(roster.digest, names, threshold, coding.bits, coding.range, coding.heaviest, values)


def values_of(schema: Schema) -> int:
    """How many values an update has."""
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in schema.values())


@dataclass
class MaskedSum:
    """Masked updates added up as they come; none of them is kept."""

    terms: Terms
    values: Vector = field(init=False)
    head: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.zeros(self.terms.values, masks.dtype_of(self.terms.bits))
        self.head = np.zeros(HEAD, np.uint64)

    def admits(self, arrays: Arrays) -> tuple[Vector, Vector] | None:
        """The two vectors of a masked update; None when it is not one of this round."""
        if list(arrays) != ["values", "head"]:
            return None
        values = masks.from_wire(arrays["values"], self.terms.bits, self.terms.values)
        head = masks.from_wire(arrays["head"], 64, HEAD)
        return None if values is None or head is None else (values, head)

    def fold(self, values: Vector, head: Vector) -> None:
        """Add one masked update."""
        np.add(self.values, values, out=self.values)
        masks.cut(self.values, self.terms.bits)
        np.add(self.head, head, out=self.head)


@dataclass(frozen=True)
class Ending:
    """Who is in the sum and who vanished after sharing out."""

    group: Group
    dealt: Mapping[SiteName, Dealt]
    model: Digest
    alive: tuple[SiteName, ...]

    @property
    def bond(self) -> bytes:
        """What all masks were derived from."""
        return labels.bond_of(self.group.digest, self.dealt, self.model)

    @property
    def dead(self) -> tuple[SiteName, ...]:
        """Those whose pairwise masks must be taken off."""
        return tuple(sorted(set(self.dealt) - set(self.alive)))

    def enough(self, opened: Mapping[SiteName, Opened]) -> bool:
        """Whether every secret has as many shares as open it."""
        needed = self.group.graph.rule.threshold
        wanted = [(site, False) for site in self.alive] + [(site, True) for site in self.dead]
        return all(len(_shares(self, opened, site, dead=dead)) >= needed for site, dead in wanted)


def open_sum(total: MaskedSum, ending: Ending, opened: Mapping[SiteName, Opened]) -> None:
    """Take every mask off the sum, in place.

    Raises:
        FederationError: `secagg-share` when the shares of a site do not open what it promised.
    """
    for site in ending.alive:
        own = _opened(ending, opened, site, dead=False)
        _take_off(total, round_keys.own_seed(own, site, ending.bond), minus=True)
    for gone in ending.dead:
        secret = _opened(ending, opened, gone, dead=True)
        for left in ending.group.graph.neighbours(gone):
            if left in ending.alive:
                public = ending.group.keys[SiteName(left)].mask_key
                seed = round_keys.pair_seed(secret, gone, public, left, ending.bond)
                # `left` took the mask away where the other's name comes first, and added it otherwise.
                _take_off(total, seed, minus=not gone < left)


def weighted_sum(total: MaskedSum, schema: Schema, total_weight: int) -> tuple[Sum, Head]:
    """The opened sum as strategies take it, and its head.

    Raises:
        FederationError: `secagg-weight` when the weights under the masks are not those declared.
    """
    head = Head.decode(total.head)
    if head.weight != total_weight:
        raise FederationError(
            "the masked sum",
            "the weights in it are not those that its sites declared",
            "A site sent what it should not have; the round is given up. Compare the sites' logs",
            code="secagg-weight",
        )
    exact = Coding.of(total.terms).decode(total.values)
    counts, at = {}, 0
    for name, shape in schema.items():
        size = int(np.prod(shape, dtype=np.int64))
        part = np.rint(exact[at : at + size] * 2.0**RESOLUTION_BITS).astype(np.int64)
        counts[name] = part.reshape(shape)
        at += size
    return Sum(counts, head.weight, max(head.weight, 1)), head


def _take_off(total: MaskedSum, seed: bytes, *, minus: bool) -> None:
    masks.add(total.values, seed, total.terms.bits, minus=minus)
    masks.add(total.head, seed, 64, minus=minus)


def _shares(
    ending: Ending, opened: Mapping[SiteName, Opened], site: SiteName, *, dead: bool
) -> dict[int, bytes]:
    """The shares of a site's secret by the number of their holder."""
    found = {}
    for number, holder in enumerate(ending.group.graph.holders(site), start=1):
        told = opened.get(SiteName(holder))
        text = "" if told is None else (told.mask if dead else told.own).get(site, "")
        if len(text) == 2 * round_keys.KEY_BYTES:
            found[number] = bytes.fromhex(text)
    return found


def _opened(ending: Ending, opened: Mapping[SiteName, Opened], site: SiteName, *, dead: bool) -> bytes:
    """The secret of a site, as it promised it; a wrong share among enough right ones does no harm."""
    needed, shares = ending.group.graph.rule.threshold, _shares(ending, opened, site, dead=dead)
    for chosen in islice(combinations(sorted(shares), needed), _TRIES):
        secret = sharing.combine({number: shares[number] for number in chosen}, needed)
        if dead and round_keys.public_of(secret) == ending.group.keys[site].mask_key:
            return secret
        if not dead and _promised(ending, site, secret):
            return secret
    raise FederationError(
        "the masked sum",
        f"the shares of {site} do not open what it promised",
        "A site gave a wrong share, or dealt wrong ones; the round is given up. Compare the sites' logs",
        code="secagg-share",
    )


def _promised(ending: Ending, site: SiteName, secret: bytes) -> bool:
    return round_keys.commitment_of(secret, site, ending.group.digest) == ending.dealt[site].commitment
