"""Studies: what the consortium asks, what is new about it, what it costs; yes, and no again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, say, show

if TYPE_CHECKING:
    from client.site import Site
    from client.studies import Changes
    from client.study_cost import Cost
    from common.release import Parcel

StudyId = Annotated[str, typer.Argument(help="Identifier of a release, as `studies` lists it.")]


@dataclass(frozen=True)
class Listed:
    """One release in the list."""

    id: str
    study: str
    made: str
    state: str
    """`approved`, `withdrawn`, `needs approval`, or `other code` where it is not the code installed here."""


@dataclass(frozen=True)
class Read:
    """One release, for the person who has to decide."""

    id: str
    state: str
    asks: tuple[tuple[str, str], ...]
    changes: Changes
    other_code: tuple[str, ...]
    """Files in which its code differs from the code installed here; such a release cannot be approved."""
    policy: str
    """The rule of the policy that it breaks; empty when it breaks none."""
    cost: Cost | None
    """None where the ledger cannot be read now."""
    ledger: str
    """Why there is no cost; empty when there is."""
    plan_digest: str
    bundle_digest: str


def studies(
    study: Annotated[str, typer.Argument(help="Only this one, in full.")] = "",
    take: Annotated[
        Path | None, typer.Option("--take", help="Take in a release from a file instead of fetching it.")
    ] = None,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the federation for new ones.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--code", help="Also show the differences of the code, line by line.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Read what the consortium asks for: in plain words, what is new, what it costs, how many patients it is about."""
    from client.site import load_site
    from client.studies import code_difference, find, receive_file, received

    loaded = load_site(site)
    if take is not None:
        receive_file(loaded, take)
    elif not offline:
        _look_for_new(loaded)
    if not study:
        found = [_listed(loaded, parcel) for parcel in received(loaded)]
        rows = [(one.id, one.study, one.made[:16].replace("T", " "), one.state) for one in found]
        show(
            found,
            as_json,
            lambda: grid(f"Studies for {loaded.name}", ("id", "study", "made (UTC)", "state"), rows),
        )
        return
    parcel = find(loaded, study)
    read = read_study(loaded, parcel)
    show(read, as_json, lambda: _told(read) + (code_difference(loaded, parcel) if code else ""))


def approve(
    study: StudyId,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; for a person who has read `studies ID`.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Let a release train here: its signature, code and policy are checked, then its digests are pinned."""
    from client import policy
    from client.approvals import Approvals, check_code
    from client.site import load_site
    from client.studies import find

    loaded = load_site(site)
    parcel = find(loaded, study)
    check_code(parcel)
    policy.check(loaded.policy, parcel.plan)
    if not yes:
        click.echo(_told(read_study(loaded, parcel)), err=True)
        click.confirm(f"Approve {study} for {loaded.name}?", abort=True, err=True)
    given = Approvals(loaded).approve(parcel)
    # An analysis trains nothing, and whoever approves one must not read that it does.
    may = "count patients (an analysis; nothing is trained)" if parcel.plan.surveys else "train"
    said = f"{given.id} may {may} at {loaded.name} from now on. `consilium-site withdraw-approval {given.id}` ends it."
    show(given, as_json, lambda: said)


def withdraw_approval(study: StudyId, site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Let a release train here no more, from its next question on; what was spent stays spent."""
    from client.approvals import Approvals
    from client.site import load_site

    loaded = load_site(site)
    ended = Approvals(loaded).withdraw(study)
    show(
        ended,
        as_json,
        lambda: f"{ended.id} trains at {loaded.name} no more; its rounds are refused: not-approved.",
    )


def _look_for_new(site: Site) -> None:
    """Fetch what is new; who cannot be reached now is said, and what is here is shown."""
    from client.studies import enrolled, fetch
    from common.errors import FederationError

    enrolled(site)
    try:
        new = fetch(site)
    except FederationError as error:
        if error.code == "release":
            raise
        say(f"note: the federation was not asked for new studies: {error}")
        return
    if new:
        say(f"new: {', '.join(new)}")


def read_study(site: Site, parcel: Parcel) -> Read:
    """Everything there is to say about a release; nothing of it leaves."""
    from client import policy
    from client.approvals import differing_files
    from client.studies import changes
    from client.study_cost import cost_of
    from client.study_words import words
    from common.code import sources
    from common.errors import LedgerError, PolicyRefused, PrivacyRefused

    broken, ledger, cost = "", "", None
    try:
        policy.check(site.policy, parcel.plan)
    except (PolicyRefused, PrivacyRefused) as error:
        broken = str(error)
    try:
        cost = cost_of(site, parcel.plan)
    except LedgerError as error:
        ledger = str(error)
    release = parcel.release
    return Read(
        release.id,
        _listed(site, parcel).state,
        words(parcel.plan, site.policy),
        changes(site, parcel),
        tuple(differing_files(parcel.code, sources())),
        broken,
        cost,
        ledger,
        release.plan_digest,
        release.bundle_digest,
    )


def _listed(site: Site, parcel: Parcel) -> Listed:
    from client.studies import approvals_of
    from common.code import code_digest

    release, given = parcel.release, approvals_of(site, parcel)
    state = "needs approval"
    if any(one.holds for one in given):
        state = "approved"
    elif release.code_digest != code_digest():
        state = "other code"
    elif given:
        state = "withdrawn"
    return Listed(release.id, release.study, release.at, state)


def _told(read: Read) -> str:
    parts = [f"{read.id}: {read.state}", "", "What is asked", *_rows(read.asks)]
    parts += ["", *_changes(read)]
    parts += [
        "",
        "What it costs",
        *_rows(_cost(read)),
        "",
        f"plan    {read.plan_digest}",
        f"bundle  {read.bundle_digest}",
    ]
    return "\n".join(parts) + "\n"


def _changes(read: Read) -> list[str]:
    changed = read.changes
    if not changed.since:
        told = ["What changed: nothing was approved here before; read the whole plan"]
    else:
        told = [f"What changed since {changed.since}, approved last"]
        told += _rows(
            [(one.key, f"{one.before} → {one.now}") for one in changed.plan] or [("plan", "nothing")]
        )
        told += _rows(
            [(one.path, f"+{one.added} −{one.removed} lines") for one in changed.code]
            or [("code", "nothing")]
        )
    if read.other_code:
        told += ["", "Its code is NOT the code installed here, so it cannot be approved. It differs in:"]
        told += [f"  {path}" for path in read.other_code]
    return told


def _cost(read: Read) -> list[tuple[str, str]]:
    rows = [("policy", f"REFUSES IT: {read.policy}" if read.policy else "allows it")]
    cost = read.cost
    if cost is None:
        return [*rows, ("ledger", read.ledger)]
    rows.append(
        (
            "patients",
            f"{cost.patients} labelled here, with {cost.images} images; about {cost.training} would train",
        )
    )
    rows.append(
        ("run", "without bound" if cost.epsilon is None else f"ε {cost.epsilon:.2f} at δ = {cost.delta:g}")
    )
    rows += [
        (
            one.span,
            f"worst patient: ε {_number(one.before)} now, {_number(one.after)} after it, of {one.limit:g}",
        )
        for one in cost.spent
    ]
    if cost.refused:
        rows.append(("ledger", f"WILL REFUSE it before its end: {cost.refused}"))
    return rows


def _number(epsilon: float | None) -> str:
    return "without bound" if epsilon is None else f"{epsilon:.2f}"


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in rows]
