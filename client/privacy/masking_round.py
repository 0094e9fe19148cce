"""One masked round at one site, computed: shares made and opened, masks put on; nothing here writes or refuses lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from client.privacy.masking_store import Held, Kept
from common.analytics import Counts, encoded
from common.arrays import norm
from common.messages import Dealt, Secure, SignedKeys, Terms, Update
from common.secagg import keys as round_keys
from common.secagg import labels, masks, sharing
from common.secagg.coding import Head
from common.secagg.graph import Graph, neighbourhood, withstood
from common.secagg.keys import Secrets
from common.secagg.masks import Vector
from common.secagg.sharing import Route, Share
from common.types import Arrays, Digest, RunId, SiteName

Vectors = tuple[Vector, Vector]
"""Counts and head of one hospital; they are changed where masks are put on."""


@dataclass(frozen=True)
class Round:
    """What a site knows of a round whose keys it has accepted."""

    site: SiteName
    held: Held
    secrets: Secrets = field(repr=False)
    keys: Mapping[SiteName, SignedKeys]
    group: bytes
    graph: Graph
    colluding: int

    @classmethod
    def of(cls, site: SiteName, held: Held) -> Round:
        """From the site's memory; graph and thresholds follow from it, nobody tells them."""
        group = labels.group_of(bytes.fromhex(held.context), held.keys)
        colluding = withstood(len(held.terms.members), held.terms.threshold)
        rule = neighbourhood(len(held.keys), held.terms.threshold, colluding)
        keys = {one.site: one for one in held.keys}
        secrets = Secrets(*map(bytes.fromhex, (held.mask, held.seal, held.own)))
        return cls(site, held, secrets, keys, group, Graph.of(tuple(keys), rule, group), colluding)


def shared_out(round_: Round) -> tuple[Dealt, Kept]:
    """The site's secrets in shares, sealed for each of its neighbours; and the share it keeps itself."""
    site, holders = round_.site, round_.graph.holders(round_.site)
    needed = round_.graph.rule.threshold
    mask = sharing.split(round_.secrets.mask, needed, len(holders))
    own = sharing.split(round_.secrets.own, needed, len(holders))
    sealed = {}
    for number, holder in enumerate(holders):
        if holder != site:
            route = Route(site, holder, round_.group)
            public = round_.keys[SiteName(holder)].seal_key
            share = Share(mask[number], own[number])
            sealed[SiteName(holder)] = sharing.seal(share, route, round_.secrets.seal, public)
    at = holders.index(site)
    commitment = round_keys.commitment_of(round_.secrets.own, site, round_.group)
    return Dealt(commitment, sealed), Kept(mask[at].hex(), own[at].hex())


def unsealed(round_: Round, dealt: Mapping[SiteName, Dealt]) -> dict[SiteName, Kept]:
    """The shares that are for this site.

    Raises:
        FederationError: `secagg-share` when one does not open.
    """
    kept = {}
    for sender, one in dealt.items():
        if round_.site in one.sealed:
            route = Route(sender, round_.site, round_.group)
            public = round_.keys[sender].seal_key
            share = sharing.unseal(one.sealed[round_.site], route, round_.secrets.seal, public)
            kept[sender] = Kept(share.mask.hex(), share.own.hex())
    return kept


def masked_arrays(round_: Round, values: Vector, head: Vector) -> dict[str, npt.NDArray[Any]]:
    """Counts and head under every mask of this site, as they travel; the arguments are changed.

    Args:
        round_: with the bond of this round in its memory.
        values: counts [values] in the ring of the terms.
        head: uint64 [HEAD].
    """
    bond, bits, site = bytes.fromhex(round_.held.bond), round_.held.terms.bits, round_.site
    own = round_keys.own_seed(round_.secrets.own, site, bond)
    masks.add(values, own, bits)
    masks.add(head, own, 64)
    for other in round_.graph.neighbours(site):
        if other in round_.held.dealt:
            public = round_.keys[SiteName(other)].mask_key
            seed = round_keys.pair_seed(round_.secrets.mask, site, public, other, bond)
            masks.add(values, seed, bits, minus=other < site)
            masks.add(head, seed, 64, minus=other < site)
    return {"values": masks.to_wire(values, bits), "head": head}


def opened_for(round_: Round, given: Secure) -> tuple[dict[SiteName, str], dict[SiteName, str]]:
    """The share of the own mask of each of the living, and of the pairwise masks of each of the dead; never both."""
    kept = round_.held.kept
    own = {site: kept[site].own for site in given.alive if site in kept}
    mask = {site: kept[site].mask for site in given.dead if site in kept}
    return own, mask


def counted_arrays(run: RunId, counts: Counts, terms: Terms) -> tuple[Digest, Vectors]:
    """What an analysis counted, as it goes under masks, exact; and a digest by which it is masked once in a run.

    The same counts may go into the sum of another run: which sums those may be is `client.analytics`' to say.

    Raises:
        FederationError: `secagg-range`.
    """
    content = Digest("sha256:" + hashlib.sha256(f"analysis {run} ".encode() + counts.tobytes()).hexdigest())
    return content, (encoded(counts, len(terms.members)), Head(weight=1).encode())


def clipped(arrays: Arrays, bound: float) -> Arrays:
    """An update no longer than the bound: nobody can measure it under its masks, so its own site does."""
    length = norm(arrays)
    if not bound < length < np.inf:
        return arrays  # what is not finite is refused by name where it is counted
    share = np.float32(bound / length)
    return {name: (array * share).astype(np.float32) for name, array in arrays.items()}


def head_of(update: Update, vote: bool | None) -> Head:  # noqa: FBT001 - a third answer is none
    """Weight, figures and vote of this site, to be summed with those of the others."""
    loss, auroc = update.progress.loss, update.progress.auroc
    told = loss is not None and auroc is not None
    return Head(
        weight=update.weight,
        measured=update.weight if told else 0,
        loss=update.weight * (loss or 0.0) if told else 0.0,
        auroc=update.weight * (auroc or 0.0) if told else 0.0,
        judged=int(vote is not None),
        worse=int(vote is True),
    )
