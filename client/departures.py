"""What left this hospital, read from its audit log and the connection's: when, what, to whom, for which study, run and round, which bytes.

Both are checked whole before anything is told from it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.connection_log import check, path_of
from client.egress import RELEASED, digest_of
from client.membership import ENROLMENT
from client.site import Site
from common.audit import read, verify
from common.envelope import is_sealed, split
from common.errors import InputError

WORDS = {
    "update": "a trained model's protected update",
    "sitemetrics": "figures of groups of patients, suppressed and rounded",
    "tally": "counts of patients by label and group, suppressed and in fives",
    "refusal": "a refusal: one fixed word, no figures",
    "masked": "a protected update under masks, which no one can read alone",
    "keys": "two public keys of a masked round",
    "shares": "sealed shares of a masked round's seeds",
    "consent": "a signature over who is alive in a masked round",
    "opened": "shares that take the masks of a round's sum away",
    "ask": "a request to be enrolled: public keys, and the one-time code when it was typed in",
    "renew": "a request for the next certificate: a public key",
}
"""What each kind of message is, for people."""


@dataclass(frozen=True)
class Departure:
    """One message that was let out."""

    line: int
    """Number of the line in its log."""
    time: str
    """UTC."""
    kind: str
    what: str
    run: str
    round: int
    to: str
    """Fingerprint of the consortium's key; empty where none was pinned yet."""
    study: str
    """Name of the study; empty as `plan`."""
    plan: str
    """Digest of the study plan; empty for a refusal that came before a plan was read."""
    code: str
    """Of a refusal."""
    bytes: int
    digest: str
    """SHA-256 of the very bytes."""


@dataclass(frozen=True)
class Account:
    """All departures asked for, and their sums."""

    departures: tuple[Departure, ...]
    messages: dict[str, int]
    """Kind to number."""
    bytes: int
    runs: tuple[str, ...]
    log_lines: int
    """Lines of the audit log and of the connection's, whose chains were found whole."""


def account(site: Site, run: str = "") -> Account:
    """Everything that left, or everything of one run.

    Raises:
        StorageError: `audit-broken` when the log is not whole.
    """
    lines = verify(site.audit).count + check(site)
    told = sorted([*read(site.audit), *read(path_of(site))], key=lambda entry: str(entry["time"]))
    found = tuple(
        _departure(entry)
        for entry in told
        if entry["event"] in (RELEASED, ENROLMENT) and run in ("", entry["fields"].get("run"))
    )
    return Account(
        departures=found,
        messages=dict(Counter(one.kind for one in found)),
        bytes=sum(one.bytes for one in found),
        runs=tuple(dict.fromkeys(one.run for one in found if one.run)),
        log_lines=lines,
    )


def recognise(site: Site, file: Path) -> tuple[Departure, ...]:
    """The departures of the very bytes in `file`, in its envelope or out of it; empty when they never left here.

    Raises:
        InputError: the file cannot be read.
        FederationError: `envelope` when it is an envelope cut short.
        StorageError: as `account`.
    """
    try:
        blob = file.read_bytes()
    except OSError:
        raise InputError(
            "the file to compare", "it cannot be read", "Check its path and rights", code="input"
        ) from None
    # The log names the message; the envelope around it is new each time and bears a signature.
    digest = digest_of(split(blob)[1] if is_sealed(blob) else blob)
    return tuple(one for one in account(site).departures if one.digest == digest)


def _departure(entry: dict[str, Any]) -> Departure:
    fields = entry["fields"]
    kind = str(fields.get("kind", ""))
    return Departure(
        line=int(entry["n"]),
        time=str(entry["time"]),
        kind=kind,
        what=WORDS.get(kind, kind),
        run=str(fields.get("run", "")),
        round=int(fields.get("round", 0)),
        to=str(fields.get("to", "")),
        study=str(fields.get("study", "")),
        plan=str(fields.get("plan", "")),
        code=str(fields.get("code", "")),
        bytes=int(fields.get("bytes", 0)),
        digest=str(fields.get("digest", "")),
    )
