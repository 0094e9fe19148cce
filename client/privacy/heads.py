"""What the consortium's server has countersigned of this site's ledger, and whose word that is.

`<state>/countersigned.json` holds the server's key, pinned on first use, and the newest countersignature.
It lies beside the ledger, not in it, so that a ledger put back from a copy does not take it along.

1. A ledger that ends before the countersigned head is refused: `ledger-rollback`.
2. One that has another row there is another history, a copy that was used elsewhere: `ledger-fork`.
3. One that goes on after it is right: the server was restored, or an answer was lost on its way.
4. A word of another key, of another site, run or round, or none where there was one: `ledger-countersign`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from client.privacy.ledger import Ledger
from client.privacy.ledger_open import refuse
from common.checkpoints import write_whole
from common.errors import StorageError
from common.heads import genuine
from common.identity import fingerprint
from common.messages import Countersignature, LedgerHead
from common.types import Digest, RunId, SiteName

SCHEMA: Final = "consilium/countersigned/1"
NAME: Final = "countersigned.json"


@dataclass(frozen=True)
class Known:
    """What is remembered of the server."""

    key: str = ""
    """Its public key; empty before first contact."""
    since: str = ""
    """When the key was pinned, UTC."""
    newest: Countersignature | None = None

    @property
    def fingerprint(self) -> Digest | None:
        """Of the pinned key, to be compared by telephone."""
        return fingerprint(self.key) if self.key else None


@dataclass(frozen=True)
class Expected:
    """What a countersignature must be for."""

    site: SiteName
    run: RunId
    round: int


class Heads:
    """The file of one site.

    Raises:
        LedgerError: `ledger-countersign` when the file is not what was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known = _read(path)

    def check(self, ledger: Ledger) -> None:
        """Refuse a ledger that does not contain what was countersigned.

        Raises:
            LedgerError: `ledger-rollback` or `ledger-fork`.
        """
        if self.known.newest is not None:
            contains(ledger, self.known.newest.head)

    def accept(self, ledger: Ledger, given: Countersignature | None, expected: Expected) -> bool:
        """Judge what the server countersigned, and keep it, durably, when it is newer.

        Returns:
            Whether the key was pinned by this.

        Raises:
            LedgerError: `ledger-countersign`, `ledger-rollback`, `ledger-fork`; `ledger-write` when it
                cannot be kept.
        """
        if given is None:
            if self.known.key:
                _unsigned("the server has countersigned this ledger before, and now does not")
            return False
        if (given.site, given.run, given.round) != (expected.site, expected.run, expected.round):
            _unsigned("the countersignature is for another site, run or round")
        if self.known.key and given.key != self.known.key:
            _unsigned("the countersignature is by another key than the one pinned here")
        if not genuine(given):
            _unsigned("the countersignature is not genuine")
        contains(ledger, given.head)
        first = not self.known.key
        newest = self.known.newest
        if newest is None or given.head.sequence > newest.head.sequence or first:
            since = _now() if first else self.known.since
            self._keep(Known(given.key, since, given))
        return first

    def trust(self, key_fingerprint: str) -> None:
        """Let go of the pinned key, so that the next one counts as first use; what was countersigned stays.

        Raises:
            LedgerError: `ledger-countersign` when `key_fingerprint` is not that of the pinned key.
        """
        if not self.known.key or key_fingerprint != self.known.fingerprint:
            _unsigned("this is not the fingerprint of the key that is pinned here")
        self._keep(replace(self.known, key="", since=""))

    def _keep(self, known: Known) -> None:
        text = json.dumps({"schema": SCHEMA, **asdict(known)}, indent=1, sort_keys=True)
        try:
            write_whole(self._path, text.encode())
        except StorageError:
            refuse(
                "write", "what was countersigned cannot be kept", "Free disk space, check rights, start again"
            )
        self.known = known


def contains(ledger: Ledger, head: LedgerHead) -> None:
    """Refuse a ledger that does not have this head in its history.

    Raises:
        LedgerError: `ledger-rollback` or `ledger-fork`.
    """
    if ledger.head.sequence < head.sequence:
        refuse(
            "rollback",
            f"it ends at row {ledger.head.sequence} and the consortium has seen row {head.sequence}",
            "Put the newest ledger back; what an older one has forgotten was spent",
        )
    if ledger.digest_at(head.sequence) != head.digest:
        refuse(
            "fork",
            f"its row {head.sequence} is another than the one the consortium has seen",
            "Find the other copy of this ledger and use the one the consortium knows",
        )


def countersignature_from(values: dict[str, Any]) -> Countersignature:
    """A countersignature back from plain values; raises KeyError or TypeError for others."""
    head = LedgerHead(int(values["head"]["sequence"]), Digest(str(values["head"]["digest"])))
    return Countersignature(
        SiteName(str(values["site"])),
        head,
        RunId(str(values["run"])),
        int(values["round"]),
        str(values["key"]),
        str(values["signature"]),
    )


def _read(path: Path) -> Known:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            _unreadable()
        newest = countersignature_from(values["newest"]) if values["newest"] else None
        known = Known(str(values["key"]), str(values["since"]), newest)
    except FileNotFoundError:
        return Known()
    except (OSError, ValueError, KeyError, TypeError):
        _unreadable()
    if known.newest is not None and not genuine(known.newest):
        _unreadable()
    return known


def _unreadable() -> NoReturn:
    refuse(
        "countersign",
        f"{NAME} is not what was written",
        f"Restore {NAME} from backup; it may be older than the ledger",
    )


def _unsigned(rule: str) -> NoReturn:
    refuse(
        "countersign",
        rule,
        "Ask the consortium by telephone for its key's fingerprint and compare: consilium-site ledger show",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
