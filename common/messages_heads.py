"""Where ledgers and logs end, and who signed that it saw them: parts of messages, imported from `common.messages`."""

from __future__ import annotations

from dataclasses import dataclass

from common.types import Digest, RunId, SiteName


@dataclass(frozen=True)
class LedgerHead:
    """The end of a privacy ledger: its counter, and the digest of its last row."""

    sequence: int
    digest: Digest


@dataclass(frozen=True)
class LogHead:
    """The end of an audit log: the hash of its last line."""

    digest: Digest
    count: int | None = None
    """Lines, of a server's log; None of a hospital's: it would tell how many studies came in."""


@dataclass(frozen=True)
class Witness:
    """One side's signed word on both audit logs: where its own ends, and the newest end it saw of the other's."""

    by: str
    """`server` or `site`: who signed."""
    site: SiteName
    """The hospital of the two, whoever signed."""
    here: LogHead
    """Of the signer's log."""
    there: LogHead | None
    """Of the other's log, as the signer was last shown it; None before it was."""
    run: RunId
    round: int
    key: str
    """The signer's public key, hexadecimal."""
    signature: str


@dataclass(frozen=True)
class Countersignature:
    """The server's word, for one round, that it has seen this head of this site's ledger (`common.heads`)."""

    site: SiteName
    head: LedgerHead
    run: RunId
    round: int
    key: str
    """The server's public key, hexadecimal."""
    signature: str
    audit: Witness | None = None
    """The server's word on the audit logs, under a signature of its own."""
