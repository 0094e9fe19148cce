"""What the consortium knows of its hospitals, in `consortium.sqlite`; opened by `server.federation_folder` alone.

sites          name, state, present identity and node key; beside them what waits to be admitted
invitations    digest of each one-time code, for whom, until when, and whose key used it
certificates   every certificate ever given, with when it was revoked
rosters        every version ever signed
releases       bundles that hospitals may fetch

1. A code is used once: by the first key that shows it, in the transaction in which it is judged.
2. What was admitted changes only by admitting again; a request waits beside it.
3. A certificate is in the book before it is given, and nothing is ever deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from common.certificates import Certificate
from common.enrolment import Ask
from common.errors import FederationError, StorageError
from common.pki import Revoked
from common.roster import Roster, dump_roster, load_roster
from common.sqlite import use_wal
from common.types import Digest, SiteName
from server.site_rows import INVITED, MEMBER, REVOKED, SCHEMA, WAITING, ReleaseRow, SiteRow, site_row


class SiteBook:
    """The database; any number of processes may have it open.

    Raises:
        StorageError: it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._changing() as db:
            db.executescript(SCHEMA)

    # hospitals

    def sites(self) -> list[SiteRow]:
        """Every hospital that was ever invited, by name."""
        with self._reading() as db:
            return [site_row(row) for row in db.execute("SELECT * FROM sites ORDER BY name")]

    def site(self, name: str) -> SiteRow | None:
        """One hospital; None when it was never invited."""
        with self._reading() as db:
            row = db.execute("SELECT * FROM sites WHERE name = ?", (name,)).fetchone()
        return None if row is None else site_row(row)

    def invite(self, site: SiteName, code: str, now: datetime, ends: datetime) -> None:
        """Note a new code by its digest; an older one of this hospital that nobody used ends now."""
        at = now.timestamp()
        with self._changing() as db:
            db.execute("UPDATE invitations SET ends_at = ? WHERE site = ? AND used_by IS NULL", (at, site))
            db.execute(
                "INSERT INTO invitations VALUES (?, ?, ?, ?, NULL)", (code, site, at, ends.timestamp())
            )
            db.execute("INSERT OR IGNORE INTO sites (name, state) VALUES (?, ?)", (site, INVITED))

    def ask(self, ask: Ask, code: str, now: datetime) -> SiteRow:
        """Take in a request, judged and noted in one step.

        Args:
            ask: whose signature was verified.
            code: digest of its code; empty when it asks again.
            now: when it came.

        Returns:
            The hospital as it stands afterwards.

        Raises:
            FederationError: `code`, `code-expired`, `code-used`, `kit-site`, `not-invited`, `identity-taken`.
        """
        with self._changing() as db:
            found = db.execute("SELECT * FROM sites WHERE name = ?", (ask.site,)).fetchone()
            known = None if found is None else site_row(found)
            same = known is not None and ask.request in {known.request, known.asked_request}
            fresh = False
            if code:
                fresh = _judge(db, ask, code, now.timestamp())
                if not fresh and not same:
                    raise _used()
            elif not same or known is None or ask.identity not in {known.identity, known.asked_identity}:
                raise _refused("not-invited", "it has not been invited", "Give the one-time code", ask.site)
            if fresh or not same:
                _note(db, ask, now.timestamp())
            return site_row(db.execute("SELECT * FROM sites WHERE name = ?", (ask.site,)).fetchone())

    def admit(self, site: SiteName, certificate: Certificate, now: datetime, *, revoke_old: bool) -> None:
        """What waited counts from now on, and its certificate is given; with `revoke_old` the earlier ones end."""
        with self._changing() as db:
            if revoke_old:
                _revoke(db, site, now.timestamp())
            db.execute(
                "UPDATE sites SET state = ?, identity = asked_identity, node = asked_node, request = asked_request,"
                " asked_identity = NULL, asked_node = NULL, asked_request = NULL, admitted_at = ? WHERE name = ?",
                (MEMBER, now.timestamp(), site),
            )
            _add(db, site, certificate)

    def renewed(self, site: SiteName, certificate: Certificate) -> None:
        """One more certificate of a member."""
        with self._changing() as db:
            _add(db, site, certificate)

    def revoke(self, site: SiteName, now: datetime) -> None:
        """A hospital is no member any more; its certificates and open invitations end."""
        with self._changing() as db:
            _revoke(db, site, now.timestamp())
            db.execute(
                "UPDATE sites SET state = ?, identity = NULL, node = NULL, request = NULL, asked_identity = NULL,"
                " asked_node = NULL, asked_request = NULL WHERE name = ?",
                (REVOKED, site),
            )
            db.execute(
                "UPDATE invitations SET ends_at = ? WHERE site = ? AND used_by IS NULL",
                (now.timestamp(), site),
            )

    # certificates

    def owner(self, fingerprint: Digest, now: datetime) -> SiteRow | None:
        """Whose certificate this is; None when it is nobody's, revoked, over, or its holder no member."""
        with self._reading() as db:
            row = db.execute(
                "SELECT s.* FROM certificates c JOIN sites s ON s.name = c.site"
                " WHERE c.fingerprint = ? AND c.revoked_at IS NULL AND c.begins <= ? AND c.ends > ? AND s.state IN (?, ?)",
                (fingerprint, now.timestamp(), now.timestamp(), MEMBER, WAITING),
            ).fetchone()
        return None if row is None else site_row(row)

    def seen(self, site: SiteName, now: datetime) -> None:
        """A hospital came through the edge just now."""
        with self._changing() as db:
            db.execute("UPDATE sites SET seen_at = ? WHERE name = ?", (now.timestamp(), site))

    def newest(self, site: SiteName) -> tuple[str, datetime] | None:
        """PEM and end of the certificate last given to a hospital."""
        with self._reading() as db:
            row = db.execute(
                "SELECT pem, ends FROM certificates WHERE site = ? AND revoked_at IS NULL ORDER BY rowid DESC",
                (site,),
            ).fetchone()
        return None if row is None else (str(row["pem"]), datetime.fromtimestamp(row["ends"], UTC))

    def revoked(self) -> list[Revoked]:
        """Every certificate that was ended before its time."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL"
            ).fetchall()
        return [
            Revoked(int(row["serial"], 16), datetime.fromtimestamp(row["revoked_at"], UTC)) for row in rows
        ]

    # rosters and releases

    def roster(self) -> Roster | None:
        """The newest version; None before the first hospital was admitted."""
        with self._reading() as db:
            row = db.execute("SELECT text FROM rosters ORDER BY version DESC").fetchone()
        return None if row is None else load_roster(row["text"].encode())

    def next_roster(
        self, make: Callable[[Roster | None, list[SiteRow]], Roster | None], now: datetime
    ) -> Roster | None:
        """One more version, made from the newest one and the hospitals as they are, in one step.

        Args:
            make: gives the version to add, or None where nothing changed.
            now: when it is signed.

        Returns:
            What was added.
        """
        with self._changing() as db:
            row = db.execute("SELECT text FROM rosters ORDER BY version DESC").fetchone()
            sites = [site_row(one) for one in db.execute("SELECT * FROM sites ORDER BY name")]
            made = make(None if row is None else load_roster(row["text"].encode()), sites)
            if made is not None:
                text = dump_roster(made).decode()
                db.execute("INSERT INTO rosters VALUES (?, ?, ?)", (made.version, now.timestamp(), text))
        return made

    def add_release(self, release: ReleaseRow) -> None:
        """One more bundle; the same identifier again changes nothing."""
        with self._changing() as db:
            row = (release.id, release.at, release.title, release.body)
            db.execute("INSERT OR IGNORE INTO releases VALUES (?, ?, ?, ?)", row)

    def releases(self) -> list[ReleaseRow]:
        """Every bundle without its body, newest first."""
        with self._reading() as db:
            rows = db.execute("SELECT id, at, title FROM releases ORDER BY at DESC").fetchall()
        return [ReleaseRow(row["id"], row["at"], row["title"]) for row in rows]

    def release(self, id_: str) -> ReleaseRow | None:
        """One bundle; None when there is none of that identifier."""
        with self._reading() as db:
            row = db.execute("SELECT * FROM releases WHERE id = ?", (id_,)).fetchone()
        return None if row is None else ReleaseRow(row["id"], row["at"], row["title"], row["body"])

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.rollback()
                raise
            db.commit()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            yield db

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self._path, timeout=20, isolation_level=None)
            try:
                db.row_factory = sqlite3.Row
                use_wal(db, 20)
                db.execute("PRAGMA synchronous = FULL")
                yield db
            finally:
                db.close()
        except sqlite3.Error:
            raise StorageError(
                self._path.name, "the database cannot be read or written", "Check free space and rights"
            ) from None


def _judge(db: sqlite3.Connection, ask: Ask, code: str, now: float) -> bool:
    """Whether this code was unused until now; it is used from here on."""
    row = db.execute("SELECT * FROM invitations WHERE code = ?", (code,)).fetchone()
    if row is None:
        raise _refused("code", "nobody was given this code", "Type it again, or ask for a new one", ask.site)
    if row["site"] != ask.site:
        raise _refused(
            "kit-site", "the code was given to another hospital", "Ask for one of your own", ask.site
        )
    if row["used_by"] is not None:
        if row["used_by"] != ask.identity:
            raise _used()
        return False
    if row["ends_at"] <= now:
        raise _refused("code-expired", "the code is no longer good", "Ask for a new one", ask.site)
    db.execute("UPDATE invitations SET used_by = ? WHERE code = ?", (ask.identity, code))
    return True


def _note(db: sqlite3.Connection, ask: Ask, now: float) -> None:
    taken = db.execute(
        "SELECT 1 FROM sites WHERE name <> ? AND ? IN (identity, asked_identity)", (ask.site, ask.identity)
    ).fetchone()
    if taken:
        remedy = "Make a site of its own with `consilium-site init`; never copy another's folder"
        raise _refused("identity-taken", "its key is another hospital's", remedy, ask.site)
    db.execute(
        "UPDATE sites SET state = ?, asked_identity = ?, asked_node = ?, asked_request = ?, asked_at = ? WHERE name = ?",
        (WAITING, ask.identity, ask.node, ask.request, now, ask.site),
    )


def _revoke(db: sqlite3.Connection, site: SiteName, now: float) -> None:
    db.execute("UPDATE certificates SET revoked_at = ? WHERE site = ? AND revoked_at IS NULL", (now, site))


def _add(db: sqlite3.Connection, site: SiteName, certificate: Certificate) -> None:
    begins, ends = certificate.begins.timestamp(), certificate.ends.timestamp()
    values = (certificate.fingerprint, site, f"{certificate.serial:x}", begins, ends, certificate.pem)
    db.execute("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, NULL)", values)


def _used() -> FederationError:
    remedy = "If it was not you, call the consortium at once; else ask it for a new invitation"
    return FederationError(
        "the one-time code", "it was used already, with another key", remedy, code="code-used"
    )


def _refused(code: str, rule: str, remedy: str, site: str) -> FederationError:
    return FederationError(f"the request of {site}", rule, remedy, code=code)
