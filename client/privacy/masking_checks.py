"""What a hospital refuses in a masked round, by name; nothing here is left to the server's word.

secagg-roster       another roster than the one approved here, or members that are not in it, or not the plan's
secagg-few          a roster of two; a list with fewer sites than the threshold
secagg-threshold    a threshold that is not over half of the members, below three, or below the plan's
secagg-terms        another coding than the plan's, or one that is none
secagg-key          a key that is not signed by its site's enrolled identity for this round, or is not ours where ours
                    should be
secagg-share        a sealed share that was exchanged, or meant for another group
secagg-both         a site listed both alive and dead
secagg-list         a list that does not say of everybody who shared out, once, whether they are alive
secagg-cut          a list that would cut a few sites off from all others (sparse graph)
secagg-consent      too few genuine signatures under the list
secagg-difference   with the sums of earlier analyses it would tell one hospital's counts (`client.analytics`)
secagg-two-rosters  the round was begun under other terms, or the update was masked for another group
secagg-two-groups   keys or shares other than those told before
secagg-two-lists    another list than the one consented to
secagg-model        another model than the one trained before
secagg-replayed     a round that is over
secagg-order        a stage before the one it needs
secagg-range        a value that is not finite, or too large to be summed
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from client.membership import Membership
from common.analytics import BITS, schema_of, summed_of
from common.errors import FederationError
from common.identity import verify
from common.messages import Dealt, Secure, SignedKeys, Terms
from common.plan import Plan
from common.secagg import keys as round_keys
from common.secagg import labels
from common.secagg.coding import Coding
from common.secagg.graph import Graph
from common.types import SiteName

LEAST: Final = 3
"""Members of a masked round, and sites in its sum: of two, each knows the other's part."""
_HEAVIEST: Final = 1_000_000


def refused(
    code: str, rule: str, remedy: str = "Ask the consortium; this hospital has sent nothing"
) -> FederationError:
    """A refusal by name."""
    return FederationError("secure aggregation", rule, remedy, code=f"secagg-{code}")


def check_terms(terms: Terms, site: str, plan: Plan, membership: Membership) -> None:
    """Hold the terms of a round against the roster and the plan that were approved here.

    Raises:
        FederationError: see above.
    """
    roster, asked = membership.roster, plan.federation
    if terms.roster != roster.digest:
        raise refused("roster", "its roster is not the one approved here")
    everybody = [member.name for member in roster.members]
    wanted = summed_of(plan, everybody) if plan.surveys else tuple(sorted(asked.sites or everybody))
    if len(terms.members) < LEAST:
        raise refused(
            "few", f"its roster has {len(terms.members)} sites, and of two each knows the other's part"
        )
    if terms.members != wanted or any(roster.key_of(name) is None for name in wanted):
        raise refused("roster", "its members are not those of the plan and the roster")
    if roster.key_of(site) != membership.identity.public or site not in wanted:
        raise refused("roster", "this hospital is not among its members")
    least = max(LEAST, asked.least_sites)
    if not (2 * terms.threshold > len(wanted) and least <= terms.threshold <= len(wanted)):
        raise refused("threshold", f"{terms.threshold} of {len(wanted)} sites are not enough to open a sum")
    counts = (BITS, 1.0, schema_of(plan).size) if plan.surveys else None
    coding = (asked.mask_bits, asked.mask_range, terms.values) if counts is None else counts
    heaviest = _HEAVIEST if counts is None else 1
    if (terms.bits, terms.range, terms.values) != coding or terms.heaviest > heaviest:
        raise refused("terms", "its coding is not the plan's")
    Coding.of(terms)


def check_keys(
    given: tuple[SignedKeys, ...], own: SignedKeys, terms: Terms, held: Membership, context: bytes
) -> None:
    """Every key is its site's, signed for this round; ours is ours.

    Raises:
        FederationError: `secagg-few`, `secagg-key`, `secagg-roster`.
    """
    names = [one.site for one in given]
    if names != sorted(set(names)) or not set(names) <= set(terms.members):
        raise refused("roster", "its keys are not one for each of some members")
    if len(names) < terms.threshold:
        raise refused("few", f"{len(names)} sites made keys, and {terms.threshold} must remain to the end")
    if own not in given:
        raise refused("key", "the key under this hospital's name is not its own")
    for one in given:
        if not round_keys.genuine(one, held.roster.key_of(one.site) or "", context):
            raise refused(
                "key", f"the key under the name {one.site} is not signed by that hospital for this round"
            )
    if len({one.mask_key for one in given}) < len(given):
        raise refused("key", "two sites show the same key")


def check_dealt(
    dealt: Mapping[SiteName, Dealt], graph: Graph, own: Dealt, site: SiteName, threshold: int
) -> None:
    """Everybody's shares are there for exactly their holders, and ours are those we made.

    Raises:
        FederationError: `secagg-few`, `secagg-two-groups`, `secagg-share`.
    """
    if not set(dealt) <= set(graph.ring):
        raise refused("two-groups", "somebody shared out who made no keys")
    if len(dealt) < threshold:
        raise refused("few", f"{len(dealt)} sites shared out, and {threshold} must remain to the end")
    if dealt.get(site) != own:
        raise refused("share", "what is said to be shared by this hospital is not")
    for name, one in dealt.items():
        if set(one.sealed) != set(graph.holders(name)) - {name}:
            raise refused("share", f"the shares of {name} are not for its neighbours")


def check_list(given: Secure, dealt: Collection[str], site: str, graph: Graph, colluding: int) -> None:
    """Everybody who shared out is listed once, alive or dead; enough are alive, we among them, in one piece.

    Raises:
        FederationError: `secagg-both`, `secagg-list`, `secagg-few`, `secagg-cut`.
    """
    alive, dead = given.alive, given.dead
    both = sorted(set(alive) & set(dead))
    if both:
        raise refused("both", f"{', '.join(both)} would be both alive and dead, which opens its update")
    if sorted((*alive, *dead)) != sorted(dealt) or list(alive) != sorted(alive) or list(dead) != sorted(dead):
        raise refused("list", "it does not say of everybody who shared out whether they are alive")
    if len(alive) < given.terms.threshold:
        raise refused(
            "few", f"{len(alive)} sites would be summed, fewer than the threshold {given.terms.threshold}"
        )
    if site not in alive:
        raise refused("list", "it counts this hospital among the dead, and asks it to open the others")
    if not graph.in_one_piece(alive, colluding):
        raise refused(
            "cut", "it would cut a few sites off from all others, whose sum could then be opened apart"
        )


def check_consents(given: Secure, bond: bytes, membership: Membership) -> None:
    """Enough of the living signed this very list.

    Raises:
        FederationError: `secagg-consent`.
    """
    statement = labels.consent_statement(bond, given.alive, given.dead)
    good = [
        name
        for name in given.alive
        if verify(membership.roster.key_of(name) or "", given.consents.get(name, ""), statement)
    ]
    if len(good) < given.terms.threshold:
        raise refused("consent", f"{len(good)} sites signed the list, and {given.terms.threshold} must")
