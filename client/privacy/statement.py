"""What the ledger says, for people: spend against limits, and the export a regulator checks alone."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from client.privacy.heads import NAME, Heads, contains, countersignature_from
from client.privacy.ledger import Ledger, Usage
from client.privacy.ledger_file import link
from client.privacy.limits import Limits
from client.site import Site
from common.errors import InputError
from common.heads import genuine
from common.messages import Countersignature, LedgerHead
from common.types import Digest

SCHEMA: Final = "consilium/ledger-export/1"
_TENTHS: Final = 10


@dataclass(frozen=True)
class Part:
    """What one run or one study cost the patient it cost most; None: without bound."""

    name: str
    epsilon: float | None
    rounds: int
    patients: int
    """Of the largest cohort."""


@dataclass(frozen=True)
class Statement:
    """The ledger of a site; exact numbers of patients, so it stays in the hospital."""

    site: str
    simulated: bool
    delta: float
    """The smallest ever promised, or the policy's."""
    unbounded: bool
    """Whether a patient was in a training without privacy; the figures below then count the others."""
    usage: tuple[Usage, ...]
    runs: tuple[Part, ...]
    studies: tuple[Part, ...]
    """By digest of the plan."""
    patients_by_tenth: tuple[int, ...]
    """Of the limit for life: up to 10%, up to 20%, ..., up to 100%, above."""
    head: LedgerHead
    server: Digest | None
    """Fingerprint of the server's key that is pinned here."""
    server_since: str
    countersigned: LedgerHead | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The limits of which four fifths or more are spent."""
        return tuple(usage.span.value for usage in self.usage if usage.near)


def statement(site: Site, ledger: Ledger) -> Statement:
    """Everything `consilium-site ledger show` prints."""
    heads = Heads(site.state / NAME)
    charges, delta = ledger.charges, min(site.policy.max_delta, ledger.book.strictest_delta)
    limits = replace(Limits.of_policy(site.policy), delta=delta, allow_non_private=True)
    runs = {c.release.run: [d for d in charges if d.release.run == c.release.run] for c in charges}
    plans = {
        c.release.plan_digest: [d for d in charges if d.release.plan_digest == c.release.plan_digest]
        for c in charges
    }

    def parts(groups: dict[Any, list[Any]]) -> tuple[Part, ...]:
        """Each group of charges and its cost."""
        return tuple(
            Part(
                str(name),
                _finite(ledger.book.epsilon_of(of, delta)),
                len(of),
                max(charge.patients for charge in of),
            )
            for name, of in groups.items()
        )

    newest = heads.known.newest
    return Statement(
        site=site.name,
        simulated=site.simulated,
        delta=delta,
        unbounded=any(not charge.event.private for charge in charges),
        usage=ledger.usage(limits),
        runs=parts(runs),
        studies=parts(plans),
        patients_by_tenth=_tenths(ledger, delta, limits.lifetime_epsilon),
        head=ledger.head,
        server=heads.known.fingerprint,
        server_since=heads.known.since,
        countersigned=newest.head if newest else None,
    )


def export(site: Site, ledger: Ledger, *, with_keys: bool = False) -> dict[str, Any]:
    """Every row, its digest, and the newest countersignature, as JSON values.

    Spend keys are pseudonyms of patients and left out, unless `with_keys`.
    """
    newest = Heads(site.state / NAME).known.newest
    rows = [{"sequence": n, "body": body, "digest": digest} for n, body, digest in ledger.rows()]
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "site": site.name,
        "simulated": site.simulated,
        "genesis": ledger.digest_at(0),
        "rows": rows,
        "head": asdict(ledger.head),
        "countersignature": asdict(newest) if newest else None,
    }
    if with_keys:
        values["cohorts"] = ledger.members()
    return values


@dataclass(frozen=True)
class Verified:
    """What `ledger verify` looked at and found whole."""

    rows: int
    updates: int
    head: LedgerHead
    countersigned: LedgerHead | None
    against: LedgerHead | None
    """Head of the export it was compared with."""


def verify(site: Site, ledger: Ledger, against: Path | None = None) -> Verified:
    """Chain and cohorts (at opening), stored updates, what was countersigned, and an earlier export.

    Raises:
        LedgerError: by name, what is not whole. InputError: the export is none.
    """
    heads = Heads(site.state / NAME)
    heads.check(ledger)
    earlier = None
    if against is not None:
        earlier = exported_head(against)
        contains(ledger, earlier)
    newest = heads.known.newest
    return Verified(
        len(ledger.rows()), ledger.check_updates(), ledger.head, newest.head if newest else None, earlier
    )


def exported_head(path: Path) -> LedgerHead:
    """The head of an export whose own chain and countersignature hold.

    Raises:
        InputError: code `ledger-export` when they do not.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        digest = Digest(str(values["genesis"]))
        chain = [digest]
        for number, row in enumerate(values["rows"], start=1):
            digest = link(digest, str(row["body"]))
            chain.append(digest)
            if row["sequence"] != number or row["digest"] != digest:
                raise _no_export(path, f"row {number} does not follow from the row before it")
        head = LedgerHead(int(values["head"]["sequence"]), Digest(str(values["head"]["digest"])))
        signed = countersignature_from(values["countersignature"]) if values["countersignature"] else None
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_export(path, "it is not an export of a ledger") from None
    if head != LedgerHead(len(chain) - 1, chain[-1]):
        raise _no_export(path, "its head is not that of its rows")
    if signed is not None and not _fits(signed, chain):
        raise _no_export(path, "its countersignature is not for these rows")
    return head


def trust(site: Site, key_fingerprint: str) -> None:
    """Let go of the pinned server key; see `Heads.trust`."""
    Heads(site.state / NAME).trust(key_fingerprint)


def _fits(signed: Countersignature, chain: list[Digest]) -> bool:
    at = signed.head.sequence
    return genuine(signed) and 0 <= at < len(chain) and chain[at] == signed.head.digest


def _tenths(ledger: Ledger, delta: float, limit: float) -> tuple[int, ...]:
    counts = [0] * (_TENTHS + 1)
    for epsilon, patients in ledger.book.patients(delta):
        tenth = math.ceil(epsilon / limit * _TENTHS) - 1 if epsilon <= limit else _TENTHS
        counts[max(0, tenth)] += patients
    return tuple(counts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _no_export(path: Path, rule: str) -> InputError:
    return InputError(path.name, rule, "Export again: consilium-site ledger export", code="ledger-export")
