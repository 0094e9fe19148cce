"""Who is there: from the anonymous nodes' survey replies to a roster of sites.

A node is a number until its reply names its site. A name that two nodes claim belongs to neither. A number of
patients that no hospital can declare, exact or absurd, keeps its site out before it weighs in any sum.
A node that stays silent, or whose site refuses even the survey, still counts as expected where the
plan names no sites: a run must not look complete because somebody was missing from the start.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from common.errors import AdmissionRefused
from common.messages import IntakeSummary, LedgerHead, Refusal, SiteMetrics
from common.types import Digest, SiteName
from server.admission import Admission, Expected, refused, weight_is_public
from server.exchange import NO_REPLY, Answer
from server.records import RoundRecord

SKEW = "code-mismatch"
NO_SITE = "no-site"
"""A node without a site: there are more nodes than virtual hospitals. It is nobody."""


@dataclass(frozen=True)
class Roster:
    """The sites of a run."""

    nodes: dict[SiteName, int]
    """Every site that answered the survey, and the node it answers at."""
    weights: dict[SiteName, int]
    """The public bucket of every site with training patients."""
    expected: tuple[SiteName, ...]
    """The sites that should train."""
    intake: dict[str, IntakeSummary]
    refused: dict[str, str] = field(default_factory=dict)
    heads: dict[SiteName, LedgerHead] = field(default_factory=dict)
    """Of the ledgers, where a site showed one."""
    skew: dict[str, Digest] = field(default_factory=dict)
    """Digest of the code of every site that runs another release than we do."""

    @property
    def training(self) -> dict[SiteName, int]:
        """The nodes of the sites that are there and should train."""
        return {s: self.nodes[s] for s in self.expected if s in self.weights and s in self.nodes}


def chosen(sites: Roster, count: int, seed: int, round_: int) -> Roster:
    """The roster of one round: `count` of the sites that can train, drawn by plan and round alone; all where 0.

    The same round draws the same sites again, after a restart too. Every site is as likely as any other, whatever
    it weighs (McMahan et al. 2017, algorithm 1).

    Args:
        sites: everybody.
        count: `federation.sites_per_round`.
        seed: `training.seed` of the plan.
        round_: its number.
    """
    able = sites.training
    if not 0 < count < len(able):
        return sites

    def rank(site: SiteName) -> bytes:
        return hashlib.sha256(f"consilium chosen {seed} {round_} {site}".encode()).digest()

    drawn = tuple(sorted(sorted(able, key=rank)[:count]))
    return replace(sites, expected=drawn, weights={site: sites.weights[site] for site in drawn})


def trained(rounds: Sequence[RoundRecord]) -> tuple[str, ...]:
    """The sites that learned at least once and in every round they were drawn for."""
    learned = {site for of in rounds for site in of.sites}
    return tuple(
        sorted(s for s in learned if all(s in of.sites for of in rounds if not of.chosen or s in of.chosen))
    )


def until_named(answers: Iterable[Answer], named: Iterable[str]) -> Iterator[Answer]:
    """The answers, until all the named sites have answered; every one where nobody is named."""
    missing = set(named)
    ends = bool(missing)
    for answer in answers:
        yield answer
        missing.discard(name_of(answer))
        if ends and not missing:
            return


def roster(
    answers: Iterable[Answer], nodes: Iterable[int], expected: Expected, named: Iterable[str]
) -> Roster:
    """Read the survey's answers; `named` are the sites the plan asks for, if any."""
    replies = {node: Answer(node, None, NO_REPLY, 0) for node in nodes}
    for answer in answers:
        if replies[answer.node].code == NO_REPLY:
            replies[answer.node] = answer
    claimed = Counter(name_of(answer) for answer in replies.values())
    found: dict[SiteName, SiteMetrics] = {}
    at: dict[SiteName, int] = {}
    turned_away: dict[str, str] = {}
    skew: dict[str, Digest] = {}
    for answer in replies.values():
        site, code = _judge(answer, expected, claimed)
        if code == NO_SITE:
            continue
        if code == SKEW and answer.message is not None:
            skew[str(site)] = answer.message.code_digest
        if code or not isinstance(answer.message, SiteMetrics):
            turned_away[site or f"unknown-{len(turned_away) + 1}"] = code
            continue
        found[site] = answer.message
        at[site] = answer.node
    return replace(_roster(found, at, turned_away, tuple(named)), skew=skew)


def joined(before: Roster, came: Roster) -> Roster:
    """A roster with those who came later, at the nodes where they are now.

    A site that was weighed keeps its weight; whom the run does not expect may test and does not train.
    """
    weights = {s: w for s, w in {**came.weights, **before.weights}.items() if s in before.expected}
    refused = {site: code for site, code in before.refused.items() if site not in came.nodes}
    return Roster(
        nodes=dict(sorted({**before.nodes, **came.nodes}.items())),
        weights=weights,
        expected=before.expected,
        intake={**before.intake, **came.intake},
        refused={**refused, **came.refused},
        heads={**before.heads, **came.heads},
    )


def _roster(
    found: dict[SiteName, SiteMetrics],
    at: dict[SiteName, int],
    turned_away: dict[str, str],
    named: tuple[str, ...],
) -> Roster:
    buckets = {s: m.intake.patients_bucket if m.intake else 0 for s, m in sorted(found.items())}
    training = [site for site, bucket in buckets.items() if bucket > 0]
    expected = named or sorted([*training, *turned_away])
    return Roster(
        nodes=dict(sorted(at.items())),
        weights={site: buckets[site] for site in training if site in expected},
        expected=tuple(SiteName(site) for site in expected),
        intake={str(s): m.intake for s, m in sorted(found.items()) if m.intake is not None},
        refused=dict(sorted(turned_away.items())),
        heads={s: m.head for s, m in sorted(found.items()) if m.head is not None},
    )


def name_of(answer: Answer) -> str:
    """The site that an answer names; empty where it names none."""
    return answer.message.site if isinstance(answer.message, (SiteMetrics, Refusal)) else ""


def _judge(answer: Answer, expected: Expected, claimed: Counter[str]) -> tuple[SiteName, str]:
    """The site behind an answer and the code that turns it away, empty when it is welcome."""
    if answer.message is None:
        return SiteName(""), answer.code
    site = SiteName(name_of(answer))
    try:
        if site and claimed[site] > 1:
            raise refused(site, "site-twice", "two nodes claim this site")
        metrics = Admission(expected).metrics(site, answer.message)
        bucket = metrics.intake.patients_bucket if metrics.intake else 0
        if bucket and not weight_is_public(bucket):
            raise refused(site, "weight", "its number of training patients is no public bucket")
    except AdmissionRefused as error:
        return site, error.code
    return site, ""
