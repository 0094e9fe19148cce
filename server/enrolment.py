"""How a hospital becomes a member, stays one and ceases to be one.

1. `invite`: a kit and a one-time code; the code is kept by its digest.
2. `ask`: the hospital shows the code and its own key. Whoever has the code can ask, and nothing else.
3. `admit`: a person compared fingerprints with the hospital. The certificate is issued, and a new roster is
   signed where the key is new; a hospital that comes again with the key it had needs none.
4. `renew`: over a connection with its present certificate, signed by its own key; no person, no new roster.
5. `revoke`: its certificates end at once, and a new roster is signed without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import enrolment
from common.audit import AuditLog
from common.certificates import Certificate, key_of
from common.enrolment import Answer, Ask, Renew, check_clock
from common.errors import FederationError, InputError
from common.identity import PublicKey, fingerprint
from common.kit import Kit, code_digest, new_code
from common.roster import Member, Roster, dump_roster, sign_roster
from common.types import Digest, SiteName
from server.federation_folder import AUDIT, Consortium
from server.site_book import SiteBook
from server.site_rows import MEMBER, WAITING, SiteRow


def invite(consortium: Consortium, site: str, now: datetime | None = None) -> tuple[Kit, str]:
    """A kit and a new code for a hospital; a code that it did not use yet ends.

    Raises:
        InputError: `site-name`.
    """
    at = now or datetime.now(UTC)
    name = _named(site)
    kit = consortium.kit(name)
    code = new_code(kit)
    ends = at + timedelta(days=consortium.settings.enrolment.code_days)
    consortium.book.invite(name, code_digest(code), at, ends)
    _log(consortium, "enrol.invited", name)
    return kit, code


def ask(consortium: Consortium, asked: Ask, now: datetime | None = None) -> Answer:
    """Judge a request; a repeated one gets the same answer, or the certificate once the hospital was admitted.

    Raises:
        FederationError: `clock`, `wrong-federation`, `signature`, `request`, or as `SiteBook.ask`.
    """
    at = now or datetime.now(UTC)
    check_clock(asked.time, at.timestamp(), asked.site)
    if asked.federation != consortium.name:
        raise _refused(
            "wrong-federation", "its kit is of another federation", "Use the kit of this one", asked.site
        )
    if not enrolment.signed_by(asked, asked.identity, consortium.identity.public):
        raise _refused(
            "signature", "it is not signed by the key it names", "Repeat the enrolment", asked.site
        )
    key_of(asked.request)
    row = consortium.book.ask(asked, code_digest(asked.code) if asked.code else "", at)
    if row.state == MEMBER and row.request == asked.request:
        given, roster = consortium.book.newest(row.name), consortium.book.roster()
        if given and roster:
            return Answer(admitted=True, certificate=given[0], roster=dump_roster(roster).decode())
    _log(consortium, "enrol.asked", row.name, digest=fingerprint(asked.identity))
    return Answer(admitted=False)


def admit(consortium: Consortium, site: str, now: datetime | None = None) -> Certificate:
    """Take a hospital in, after its key's fingerprint was compared.

    Raises:
        InputError: `not-waiting` when it did not ask.
    """
    at = now or datetime.now(UTC)
    row = consortium.book.site(site)
    if row is None or row.state != WAITING:
        raise InputError(
            site, "it does not wait to be admitted", "See `consilium-server list`", code="not-waiting"
        )
    given = consortium.authority().issue(row.asked_request, row.name, consortium.name, now=at)
    changed = row.asked_identity != row.identity
    consortium.book.admit(row.name, given, at, revoke_old=changed)
    _log(consortium, "enrol.admitted", row.name, digest=fingerprint(row.asked_identity))
    _log(consortium, "enrol.certified", row.name, digest=given.fingerprint)
    _sign_roster(consortium, at)
    consortium.write_revocations()
    return given


def renew(consortium: Consortium, site: SiteRow, asked: Renew, now: datetime | None = None) -> Answer:
    """A member's next certificate.

    Args:
        consortium: of which it is a member.
        site: as its present certificate says.
        asked: signed by the key in the roster.
        now: the clock's when not given.

    Raises:
        FederationError: `clock`, `signature`, or `request`.
    """
    at = now or datetime.now(UTC)
    check_clock(asked.time, at.timestamp(), site.name)
    if not enrolment.signed_by(asked, site.identity, consortium.identity.public):
        raise _refused("signature", "it is not signed by the key in the roster", "Enrol again", site.name)
    given = consortium.authority().issue(asked.request, site.name, consortium.name, now=at)
    consortium.book.renewed(site.name, given)
    _log(consortium, "enrol.certified", site.name, digest=given.fingerprint)
    return Answer(admitted=True, certificate=given.pem)


def revoke(consortium: Consortium, site: str, now: datetime | None = None) -> Roster | None:
    """End a hospital's membership; the edge must read the new revocation list.

    Returns:
        The newest roster.

    Raises:
        InputError: `site-unknown`.
    """
    at = now or datetime.now(UTC)
    row = consortium.book.site(site)
    if row is None:
        raise InputError(site, "it was never invited", "See `consilium-server list`", code="site-unknown")
    consortium.book.revoke(row.name, at)
    _log(consortium, "enrol.revoked", row.name)
    _sign_roster(consortium, at)
    consortium.write_revocations()
    return consortium.book.roster()


def holder(book: SiteBook, certificate: Digest, now: datetime | None = None) -> SiteRow:
    """Whose connection this is.

    Raises:
        FederationError: `certificate-unknown` for one that is not in the book, was revoked, or whose holder left.
    """
    at = now or datetime.now(UTC)
    row = book.owner(certificate, at)
    if row is None:
        raise FederationError(
            "certificate",
            "it is not that of a member of this federation, or was revoked",
            "Ask the consortium for a new invitation",
            code="certificate-unknown",
        )
    if abs(at.timestamp() - row.seen_at) > 15:  # often enough to say who is there, seldom enough for the disk
        book.seen(row.name, at)
    return row


def _sign_roster(consortium: Consortium, now: datetime) -> None:
    """Sign the members as they are now; nothing where nothing changed.

    A crash between a change and its roster is mended by the next one, or by `consilium-server renew`.
    """

    def make(old: Roster | None, sites: list[SiteRow]) -> Roster | None:
        members = tuple(members_of(sites))
        if members == (() if old is None else old.members):
            return None
        version = 1 if old is None else old.version + 1
        return sign_roster(consortium.identity, consortium.name, version, members)

    made = consortium.book.next_roster(make, now)
    if made is not None:
        _log(consortium, "roster.signed", "", version=str(made.version), digest=made.digest)


def settle(consortium: Consortium, now: datetime | None = None) -> bool:
    """Finish what a crash cut short, and renew what the server itself needs.

    Returns:
        Whether the edge has to read its settings again.
    """
    at = now or datetime.now(UTC)
    _sign_roster(consortium, at)
    another = consortium.write_revocations()
    return consortium.freshen(at) or another


def raise_roster(consortium: Consortium, above: int, now: datetime | None = None) -> Roster | None:
    """Sign the members again, under a version above every one that a hospital may have seen.

    For a server that was put back to an older state: hospitals take no version twice and none back.

    Args:
        consortium: that was put back.
        above: the highest version that a hospital knows.
        now: the clock's when not given.

    Returns:
        The newest roster; None where nobody was ever admitted.
    """

    def make(old: Roster | None, sites: list[SiteRow]) -> Roster | None:
        if old is None or old.version > above:
            return None
        return sign_roster(consortium.identity, consortium.name, above + 1, tuple(members_of(sites)))

    made = consortium.book.next_roster(make, now or datetime.now(UTC))
    if made is not None:
        _log(consortium, "roster.signed", "", version=str(made.version), digest=made.digest)
    return consortium.book.roster()


def members_of(sites: Iterable[SiteRow]) -> Iterable[Member]:
    """The hospitals that a roster names: those once admitted and not revoked, also while they ask again."""
    return (Member(row.name, PublicKey(row.identity)) for row in sites if row.identity)


def _log(consortium: Consortium, event: str, site: str, **fields: object) -> None:
    path: Path = consortium.folder / AUDIT
    AuditLog(path).append(event, **({"site": site} if site else {}), **fields)


def _named(site: str) -> SiteName:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", site):
        raise InputError(
            "the site's name",
            "it is made of a-z, 0-9, hyphen and underscore, begins with a letter or digit, and has at most 63",
            "Give the name that stands in its site.toml",
            code="site-name",
        )
    return SiteName(site)


def _refused(code: str, rule: str, remedy: str, site: str) -> FederationError:
    return FederationError(f"the request of {site}", rule, remedy, code=code)
