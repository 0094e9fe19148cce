"""The envelope around a message: who says it to whom, about which run and round, once, and when.

Everything between a server and a hospital passes through couriers that may lie: a proxy, a SuperLink, the courier's own
process. So the two ends sign. The signature (Ed25519, RFC 8032) covers the digest of the body, sender, recipient, run,
round, nonce, time and lifetime, and what travels beside the body. A message opened under other circumstances than
those it was sealed for is refused by name:

    envelope             no envelope where there must be one, or not one of ours
    envelope-recipient   it is addressed to somebody else
    envelope-sender      it is from somebody else than the one expected
    envelope-signature   body or envelope are not what the sender signed
    envelope-clock       it is from the future or too old, by more than two minutes
    envelope-run         it is about another run or round
    envelope-replay      it was opened before (`common.replay`), or it answers another question than ours

On the wire: eight bytes of magic, four of length (little endian), the head as JSON, the body. A head alone can be made from
a body's digest, so that a server hashes the model once for all sites and holds one copy of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NoReturn

from common.errors import FederationError
from common.identity import Identity, PublicKey, verify
from common.tensors import give_back

MAGIC: Final = b"CNSLENV1"
"""As the length of a safetensors header this would be 3.5 exabytes: no bare message begins so."""
SKEW_MS: Final = 120_000
"""How far two clocks may differ."""
LONGEST_S: Final = 30 * 24 * 3600
"""No message is good for longer than this, whatever its sender says."""
EVERYONE: Final = "*"
"""Instead of a site's name, where the server does not know yet who answers: in a survey only."""
_DOMAIN: Final = "consilium/envelope/1"
_LENGTH: Final = 4
_LARGEST_HEAD: Final = 1 << 16
_NONCE_BYTES: Final = 16


@dataclass(frozen=True)
class Envelope:
    """What stands on a message."""

    sender: str
    to: str
    run: str
    round: int
    nonce: str
    """Fresh for every question; an answer bears its question's."""
    time_ms: int
    """When it was sealed: milliseconds since 1970, UTC, by the sender's clock."""
    lifetime_s: int = 0
    """How long after `time_ms` it may still be opened, clocks aside: a question waits in a queue."""


@dataclass(frozen=True)
class Expected:
    """The circumstances under which a message is opened; None: anything will do."""

    key: PublicKey
    """Of the sender."""
    sender: str
    to: tuple[str, ...]
    """The names under which the one who opens it is addressed."""
    now_ms: int
    run: str | None = None
    round: int | None = None
    nonce: str | None = None


@dataclass(frozen=True)
class Opened:
    """A message whose envelope held."""

    body: bytes
    envelope: Envelope
    beside: bytes = b""


def of_site(federation: str, site: str) -> str:
    """A hospital's address."""
    return f"{site}@{federation}"


def of_server(federation: str) -> str:
    """The consortium's server's address; no site can have it, because a name has at least one letter."""
    return f"@{federation}"


def nonce() -> str:
    """128 random bits, hexadecimal."""
    return secrets.token_hex(_NONCE_BYTES)


def now_ms() -> int:
    """What the clock of this machine says."""
    return time.time_ns() // 1_000_000


def body_digest(*parts: bytes | memoryview) -> bytes:
    """SHA-256 of a body, whole or in parts; what a head is made from."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
        give_back(part)
    return state.digest()


def head(digest: bytes, identity: Identity, envelope: Envelope, beside: bytes = b"") -> bytes:
    """The envelope without the body: magic, length, JSON.

    Args:
        digest: of the body, `body_digest`.
        identity: the sender's.
        envelope: what stands on it.
        beside: bytes for this recipient only, a few kilobytes at most; signed too.
    """
    what = {
        **asdict(envelope),
        "beside": beside.hex(),
        "signature": identity.sign(_signed(digest, envelope, beside)),
    }
    text = json.dumps(what, separators=(",", ":")).encode()
    return MAGIC + len(text).to_bytes(_LENGTH, "little") + text


def seal(body: bytes, identity: Identity, envelope: Envelope, beside: bytes = b"") -> bytes:
    """A body in its envelope, ready for a courier."""
    return b"".join((head(body_digest(body), identity, envelope, beside), body))


def is_sealed(blob: bytes) -> bool:
    """Whether these bytes begin as an envelope does."""
    return blob[: len(MAGIC)] == MAGIC


def split(blob: bytes) -> tuple[bytes, bytes]:
    """Head and body, unjudged.

    Raises:
        FederationError: code `envelope` where there is no head.
    """
    start = len(MAGIC) + _LENGTH
    length = int.from_bytes(blob[len(MAGIC) : start], "little")
    if not is_sealed(blob) or length > _LARGEST_HEAD or len(blob) < start + length:
        raise refusal("envelope", "it is in no envelope of ours")
    return blob[: start + length], blob[start + length :]


def unseal(blob: bytes, expected: Expected) -> Opened:
    """Open a message.

    Raises:
        FederationError: with the code of the first rule broken, in the order of this module's list.
    """
    return open_parts(*split(blob), expected)


def peek(head_: bytes) -> Envelope:
    """What stands on a message, before anything of it is believed.

    Raises:
        FederationError: code `envelope`.
    """
    return _read(head_)[0]


def open_parts(head_: bytes, body: bytes, expected: Expected) -> Opened:
    """As `unseal`, for a message whose head and body came apart."""
    opened = open_head(head_, body_digest(body), expected)
    return Opened(body, opened.envelope, opened.beside)


def open_head(head_: bytes, digest: bytes, expected: Expected) -> Opened:
    """As `open_parts`, for whoever holds the body elsewhere and knows its digest; the body given back is empty."""
    envelope, beside, signature = _read(head_)
    if envelope.to not in expected.to:
        raise refusal("envelope-recipient", "it is addressed to somebody else")
    if envelope.sender != expected.sender:
        raise refusal("envelope-sender", "it is from somebody else than the one expected")
    if not verify(expected.key, signature, _signed(digest, envelope, beside)):
        raise refusal("envelope-signature", "it is not what its sender signed")
    _check_clock(envelope, expected.now_ms)
    if expected.run not in (None, envelope.run) or expected.round not in (None, envelope.round):
        raise refusal("envelope-run", "it is about another run or round")
    if expected.nonce not in (None, envelope.nonce):
        raise refusal("envelope-replay", "it answers another question")
    return Opened(b"", envelope, beside)


def refusal(code: str, rule: str) -> FederationError:
    """The error of a message whose envelope does not hold."""
    return FederationError(
        "message", rule, _REMEDIES.get(code, "Look for who changed it on its way"), code=code
    )


_REMEDIES: Final = {
    "envelope": "Install the same release on both sides",
    "envelope-clock": "Set this machine's clock by a time server; two minutes are allowed",
    "envelope-replay": "Nothing was done twice; ask again",
}


def _check_clock(envelope: Envelope, now: int) -> None:
    lifetime = min(max(envelope.lifetime_s, 0), LONGEST_S) * 1000
    if not envelope.time_ms - SKEW_MS <= now <= envelope.time_ms + lifetime + SKEW_MS:
        raise refusal("envelope-clock", "its time and this machine's clock are more than two minutes apart")


def _signed(digest: bytes, envelope: Envelope, beside: bytes) -> bytes:
    what = [_DOMAIN, digest.hex(), beside.hex(), *(getattr(envelope, f.name) for f in fields(Envelope))]
    return json.dumps(what, separators=(",", ":")).encode()


def _read(head_: bytes) -> tuple[Envelope, bytes, str]:
    try:
        text = split(head_)[0][len(MAGIC) + _LENGTH :]
        what: dict[str, Any] = json.loads(text)
        beside, signature = bytes.fromhex(what.pop("beside")), what.pop("signature")
        for field in fields(Envelope):
            if type(what[field.name]) is not (int if field.type == "int" else str):
                _malformed()
        return Envelope(**what), beside, str(signature)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _malformed()


def _malformed() -> NoReturn:
    raise refusal("envelope", "its envelope cannot be read") from None
