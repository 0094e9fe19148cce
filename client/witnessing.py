"""What this hospital and its federation's server swear to each other about their audit logs.

`<state>/federation/witness.json` holds the newest word of the server, and the last one of ours;
`<state>/federation/witness.words.jsonl` every word of the server that was believed.

1. A word is believed when the pinned server signed it and it is about this hospital.
2. What it says of our own log is checked against our log by `audit verify`, not here: a round is not the place to read
   a whole log, and a server must not be able to stop a hospital by lying about it.
3. The newest word is kept, durably, before our own is given; one that tells of a shorter log of the server's, or
   another line at the same place, is noted in our log (`audit.behind`, `audit.fork`) and the one we had is kept.
4. Of our own log only the hash of a line with a fresh random number leaves. How many lines there are, and so how
   many studies came in between two rounds, stays here.
5. The same question gets the same word again, so that an answer that is repeated is the same bytes.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from client.connection_log import bind
from client.membership import FOLDER, Membership, load_membership
from common.audit import AuditLog
from common.audit_files import YEAR_S
from common.checkpoints import write_whole
from common.enrolment import PREFIX
from common.errors import FederationError, StorageError
from common.messages import Instruction, LogHead, Masked, Reply, SiteMetrics, Tally, Update, Witness
from common.witness import SERVER, SITE, Said, genuine, keep, kept, witness, witness_from

if TYPE_CHECKING:
    from client.site import Site
    from common.identity import PublicKey

NAME: Final = "witness.json"
BOOK: Final = "witness.words.jsonl"
SCHEMA: Final = "consilium/witnesses/1"


@dataclass(frozen=True)
class Words:
    """What is kept."""

    theirs: Witness | None = None
    """The server's newest."""
    ours: Witness | None = None
    asked: str = ""
    """The question to which `ours` was the answer."""
    bound: str = ""
    """The end of the connection's log, as our own log has it (`client.connection_log`)."""


class Witnessing:
    """The file of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = site.state / FOLDER / NAME
        self._book = site.state / FOLDER / BOOK

    @property
    def words(self) -> Words:
        """What is kept now.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            return _words(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Words()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise StorageError(NAME, "it cannot be read", "Keep it as evidence and move it away") from None

    def heard(self, server: PublicKey) -> list[Witness]:
        """Every word of the server that is kept, oldest first; the lines it is about may still be asked for.

        Args:
            server: the pinned key.

        Raises:
            StorageError: as `words`.
        """
        since = time.time() - self._site.policy.audit_years * YEAR_S
        found = dict.fromkeys(kept(self._book, server, since))
        newest = self.words.theirs
        # Kept before all words were: the newest alone.
        return [*found, *([newest] if newest is not None and newest not in found else [])]

    def answered(self, reply: Reply, instruction: Instruction) -> Reply:
        """The reply with our word in it, where this hospital is enrolled and the reply has room for it.

        Raises:
            StorageError: our log or the file cannot be read or written; then nothing leaves.
        """
        membership = load_membership(self._site)
        if membership is None or not isinstance(reply, (SiteMetrics, Update, Masked, Tally)):
            return reply
        given = instruction.countersignature
        before = self.words
        words = self._heard(membership, before, None if given is None else given.audit)
        asked = f"{instruction.kind.value} {instruction.run} {instruction.round}"
        if words.ours is None or words.asked != asked:
            words = replace(words, bound=bind(self._site, words.bound))
            words = replace(words, ours=self._said(membership, words, instruction), asked=asked)
        if words != before:
            self._keep(words)
        return replace(reply, audit=words.ours)

    def _heard(self, membership: Membership, words: Words, given: Witness | None) -> Words:
        if given is None or given.by != SERVER or given.site != self._site.name:
            return words
        log, end = AuditLog(self._site.audit), {"count": given.here.count or 0, "digest": given.here.digest}
        if not genuine(given, membership.server_key):
            log.append("audit.unsigned", site=given.site)
            return words
        before = words.theirs
        if before is not None and (given.here.count or 0) < (before.here.count or 0):
            log.append("audit.behind", **end)
            return words
        if before is not None and given.here.count == before.here.count and given.here != before.here:
            log.append("audit.fork", **end)
            return words
        if before is not None and (given.here, given.there) == (before.here, before.there):
            return words
        log.append("audit.seen", run=given.run, round=given.round, **end)
        keep(self._book, given, time.time())
        return replace(words, theirs=given)

    def _said(self, membership: Membership, words: Words, instruction: Instruction) -> Witness:
        # A fresh random number makes the hash of this line, which leaves, one that nobody can guess the log from.
        blind = "sha256:" + secrets.token_hex(32)
        where = {"run": instruction.run, "round": instruction.round}
        head = AuditLog(self._site.audit).append("audit.given", **where, digest=blind)
        there = None if words.theirs is None else words.theirs.here
        said = Said(SITE, self._site.name, LogHead(head.digest), there, instruction.run, instruction.round)
        return witness(membership.identity, said)

    def _keep(self, words: Words) -> None:
        text = json.dumps({"schema": SCHEMA, **asdict(words)}, indent=1, sort_keys=True)
        write_whole(self._path, text.encode())


def asked(site: Site) -> Witness:
    """The server's word on both logs at this moment, asked through the edge, for whoever checks a log.

    It is not kept: a question that was on its way meanwhile would seem to go back behind it.

    Raises:
        FederationError: `not-enrolled`, as `Link.ask`, or `witness` when what came is not the pinned server's word.
    """
    from client.enrolment import link_of  # noqa: PLC0415 - httpx, for those who ask

    membership, link = load_membership(site), link_of(site)
    try:
        given = witness_from(json.loads(link.ask("GET", f"{PREFIX}/heads"))["audit"])
    except (ValueError, KeyError, TypeError, RecursionError):
        given = None
    about_us = given is not None and (given.by, given.site) == (SERVER, site.name)
    if given is None or membership is None or not about_us or not genuine(given, membership.server_key):
        raise FederationError(
            "the server's word",
            "it is not what the pinned server signs",
            "Call the consortium",
            code="witness",
        )
    return given


def _words(values: dict[str, Any]) -> Words:
    if values["schema"] != SCHEMA:
        raise ValueError(SCHEMA)
    said = (_read(values["theirs"]), _read(values["ours"]), str(values["asked"]))
    return Words(*said, bound=str(values.get("bound", "")))


def _read(values: Any) -> Witness | None:
    return None if values is None else witness_from(values)
